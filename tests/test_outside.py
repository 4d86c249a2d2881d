"""Every reader of something from outside, given whatever a stranger may put there: right, or exit 2 with file and place
within 5 s of the processor and 1 GiB; and nothing outside is touched.

Each reader gets sound files; one of them is spoiled, by a value in it, by its bytes, or by what stands in its place. The
short form takes fixed seeds. OPENRS_FUZZ_SECONDS=3600 goes on with new ones for an hour.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from openrs.cli.main import main
from openrs.config.load import RECIPES, load
from openrs.config.yaml_lines import NODES
from openrs.data import template_worker
from openrs.data.tokenizer import ChatEncoder, load_tokenizer
from openrs.errors import UserError
from openrs.evaluation.benchmarks import read_definitions
from openrs.hub.model_card import card
from openrs.outside import DEPTH
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.secrets import redact, secrets_in

# ruff: noqa: E501, UP031 - tables of what strangers write
PACKAGE = Path(template_worker.__file__).parents[1]
TOKENIZER = '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<s>": 0, "x": 1}, "unk_token": "x"}}'
PROCESSOR, MEMORY = 5.0, 2**30
SILENCE = 120  # seconds after which a reader is waiting for something that never comes, a pipe for one
FUZZ_SECONDS = float(os.environ.get("OPENRS_FUZZ_SECONDS", "0"))
ROUNDS = 16  # spoiled files of each reader in the short form; a report takes a second each

Files = dict[str, Any]
"""Path below the folder -> its sound content: a tree, written as JSON (which is YAML), or text."""


# --- what strangers do ------------------------------------------------------------------------------------------------

HUGE = ["9" * 4500, "1" + "0" * 400, "1e400", "-1e400", "1e-200", "NaN", "0x" + "f" * 4000, "9" * 25]  # as written
VALUES: list[Any] = [
    None, True, -1, 0, 2**64, 1.5, "", "x" * 70_000, "\ud800", "a\0b", "../../../etc/passwd", "\x1b]0;t\x07\u202e", [], {},
    [[]], {"": {}}, [0] * 3000, {str(i): i for i in range(3000)}, "2026-11-28", "190:20:30", "@/etc/shadow", "/dev/zero",
    "a" * 5000 + "/b", {"model_type": []}, ["a", 1, None],
]  # fmt: skip
DEEP = ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 200 + "]" * 200, "- " * 3000 + "x"]
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
TEXTS = [
    b"", b" \n", b"null", b"[]", b"3", b'"x"', b"{", b"\xff\xfe\x00", b"\x00" * 100, b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}',
    b'"' + b"x" * 10_000_000, b"a: b: c", b"&a [*a]", b"a: &a {b: *a}", b"!!python/object:os.system {}", b"{a: !!binary x}",
    b"? [a, b]\n: c", b"a: 1\na: 2", b"1: 2\nnull: 3", b"a: 2026-99-99", b"a: !!bool maybe", b"a: 0b", b"a: 0o9", b"a: -_",
    LAUGHS.encode(), "".join(f"k{i}: {i}\n" for i in range(300_000)).encode(), b"\n" * 400_000,
    *(text.encode() for text in DEEP),
]  # fmt: skip


def leaves(tree: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if key:
        yield key
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from leaves(value, (*key, name))


def changed(tree: Any, key: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    here = copy
    for part in key[:-1]:
        here = here[part]
    if value is changed:
        del here[key[-1]]
    else:
        here[key[-1]] = value
    return copy


def spoil(path: Path, content: Any, draw: random.Random) -> str:
    """Do something to the file at `path`; returns what, for messages."""
    way = draw.randrange(10)
    if way < 5 and not isinstance(content, str):  # a value
        tree = content[-1] if isinstance(content, Rows) else content
        key = draw.choice(list(leaves(tree)))
        value = draw.choice([*VALUES, changed, "@@"])
        text = json.dumps(changed(tree, key, value))
        shown = f"{key} = {str(value)[:40]!r}"
        if value == "@@":
            number = draw.choice(HUGE)
            text, shown = text.replace('"@@"', number), f"{key} = {number[:40]}"
        before = "".join(json.dumps(row) + "\n" for row in content[:-1]) if isinstance(content, Rows) else ""
        path.write_text(before + text + "\n")
        return shown
    if way < 8:  # bytes
        sound = path.read_bytes()
        at = draw.randrange(max(1, len(sound)))
        spoiled = draw.choice(
            [sound[:at], sound[:at] + bytes([draw.randrange(256)]) + sound[at + 1 :], sound + b"\0", *TEXTS]
        )
        path.write_bytes(spoiled)
        return f"bytes {spoiled[:40]!r} ({len(spoiled)})"
    path.unlink()  # something else in its place
    other = draw.choice(["gone", "folder", "loop", "dangling", "zero", "pipe", "large", "canary"])
    match other:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("nowhere")
        case "zero":
            path.symlink_to("/dev/zero")
        case "canary":
            path.symlink_to(next(parent for parent in path.parents if parent.name == "home").parent / "canary" / "file")
        case "pipe":
            os.mkfifo(path)
        case "large":
            with path.open("wb") as file:
                file.truncate(2**28)
    return other


class Rows(list):  # type: ignore[type-arg]
    """Content of a JSONL file."""


# --- the readers ------------------------------------------------------------------------------------------------------


RECIPE = {
    "extends": "demo",
    "title": "of a stranger",
    "prompt": {"system": "@system.txt", "max_tokens": 64},
    "grpo": {"max_steps": 4, "learning_rate": 1e-5, "warmup_steps": 0},
    "rewards": {"mode": "paper", "functions": [{"name": "cosine", "weight": 2.0, "args": {"max_length": 100}}]},
    "training": {"must_save_by": "2027-01-01T10:00:00", "max_hours": 1.5},
    "evaluation": {"benchmarks": ["demo"], "samples": 2},
    "hardware": {"layout": "single"},
}
CONFIG = {
    "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "vocab_size": 300, "max_position_embeddings": 512, "eos_token_id": [1, 2], "num_key_value_heads": 2,
    "text_config": {"max_position_embeddings": 512}, "rope_parameters": {"rope_theta": 1e4}, "head_dim": 32,
}  # fmt: skip
SCORE = {
    "n": 1, "k": 2, "accuracy": 0.5, "interval": [0.1, 0.9], "interval_fixed": [0.1, 0.9], "stderr": 0.1, "truncated": 0,
    "verdicts": {"correct": 1, "incorrect": 1}, "per_problem": {"p": [1, 0]}, "pass_at_k": {"1": 0.5}, "majority": 1.0,
    "mean_tokens": 3.5, "strict": {"accuracy": 0.5, "disagree": 0, "rows": [], "only_lighteval": 0, "only_strict": 0},
    "references": {"e-notation": 0},
}  # fmt: skip
SCORES = {
    "model": {"name": "m", "revision": None, "step": 1, "sha256": {"model.safetensors": "ab"}},
    "protocol": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 99, "seed": 1234, "engine": "transformers", "bos": 1},
    "inputs": {
        "checks": [{"benchmark": "demo", "state": "equal"}],
        "changes": [],
        "unproven": ["demo"],
        "proven": True,
    },
    "benchmarks": {"demo": SCORE},
    "seconds": {"generation": 1.5},
}
RECORD = {
    "called": "step-000001",
    "model": SCORES["model"],
    "protocol": SCORES["protocol"],
    "benchmarks": {"demo": {"n": 1, "k": 2, "problems": "ab"}},
    "inputs": {},
    "thinking": False,
    "evaluation": {"benchmarks": ["demo"], "samples": 2},
    "shard": {"number": 1, "of": 2, "tokens": {"demo": 10}},
}
SAMPLE = {
    "benchmark": "demo", "problem": "p", "sample": 0, "tokens": 3, "tokens_hash": "ab", "finish": "stop", "text": "5",
    "verdict": "correct", "answer": "5",
}  # fmt: skip
MANIFEST = {
    "openrs": {"version": "0.1", "commit": None},
    "recipe": {"title": "t", "sha256": "ab"},
    "machine": {"gpus": ["NVIDIA A40, 46068 MiB, 580.65"]},
    "model": {"name": "toy", "files": {"model.safetensors": "ab"}},
    "data": {"problems": 3, "files": {"rows.jsonl": "ab"}},
    "seeds": {"training": 42, "evaluation": 1234},
    "attempts": [
        {"number": 1, "started": "2026-11-21T07:34:00Z", "command": ["openrs"], "ended": None, "exit_code": 0},
        {"number": 2, "started": "2026-11-21T08:34:00Z", "accepted": [{"setting": "a", "was": 1, "now": 2}]},
    ],
}
METRICS = Rows(
    {"step": step, "loss": 0.5, "reward": 1.0, "step_time": 2.0, "time/step": 2.0, "problems": ["p"], "alarms": ["kl"]}
    for step in (1, 2, 3, 4)
)
RESULTS = {
    "config_general": {
        "model_name": "m",
        "model_sha": "ab",
        "model_config": {"generation_parameters": {"temperature": 0.6, "max_new_tokens": 99}},
        "openrs": {"strict": {"demo": {"accuracy": 0.5, "disagree": 1}}},
    },
    "results": {"aime24|0": {"avg@n:n=2": 0.5, "avg@n:n=2_stderr": 0.1}, "custom|x|0": {"m": 0.25, "m_stderr": 0.09}},
    "config_tasks": {"aime24|0": {"effective_num_docs": 30, "num_samples": [1]}},
    "summary_tasks": {"aime24|0": {"hashes": {"hash_examples": "ab", "hash_cont_tokens": "cd"}, "non_truncated": 30}},
}
CHECKPOINT = {"step": 1, "finite": True, "files": {"model.safetensors": {"bytes": 3, "sha256": "00"}}}
BENCHMARK = {"own": {"gold": ["answer"], "gold_kind": "latex", "question": "q", "rows": 3, "prompt": "p.txt"}}
CURATION = {"title": "t", "sources": {"own": {"path": "rows.jsonl"}}, "stages": {"length": {"max_tokens": 100}}}
RUN_FILES: Files = {
    "manifest.json": MANIFEST,
    "recipe.yaml": load("demo", ["prompt.system=x"]).model_dump(mode="json"),
    "metrics.jsonl": METRICS,
    "eval/step-000001/scores.json": SCORES,
    "eval/step-000001/settings.json": RECORD,
    "eval/step-000001/samples.jsonl": Rows([SAMPLE, {**SAMPLE, "sample": 1, "verdict": "incorrect"}]),
    "checkpoints/step-000001/checkpoint.json": CHECKPOINT,
    "checkpoints/step-000001/model.safetensors": "abc",
}


def reads_model(folder: Path) -> None:
    from openrs.data.tokenizer import _read_config, _template_text
    from openrs.evaluation.engines import _configured_stop_ids
    from openrs.hub.models import config_of, context_of, local_model, weight_files
    from openrs.planner.shapes import read_config

    local_model(str(folder))
    config_of(folder)
    context_of(folder)
    weight_files(folder)
    _configured_stop_ids(folder / "config.json")
    _template_text(folder, _read_config(folder))
    read_config(folder / "config.json")


def reads_checkpoint(folder: Path) -> None:
    from openrs.run.checkpoints import latest_resumable, list_complete

    list_complete(folder)
    latest_resumable(folder)


def reads_journals(folder: Path) -> None:
    from openrs.evaluation.sampling import Samples
    from openrs.rewards.grade_files import read_items
    from openrs.run.files import step_rows

    for name, read in (("samples.jsonl", Samples), ("metrics.jsonl", step_rows), ("items.jsonl", read_items)):
        rows = read(folder / name, "paper") if read is read_items else read(folder / name)  # type: ignore[operator]
        list(rows.rows if isinstance(rows, Samples) else rows)


def reads_run(folder: Path) -> None:
    from openrs.hub.model_card import card
    from openrs.planner.calibrate import calibrate
    from openrs.run.directory import existing_run
    from openrs.training.record import rewind

    run = existing_run(f"{folder}/")
    recipe = manifest.recipe_of(run)
    assert recipe is not None
    card(run, recipe, 1)
    manifest.started(run)
    with contextlib.suppress(UserError):
        calibrate(f"{folder}/")
    rewind(run, 2)


def reads_evaluation(folder: Path) -> None:
    from openrs.evaluation.merge import part_at, refuse_mixture
    from openrs.evaluation.run import read_scores
    from openrs.evaluation.scores import format_score, merge_scores

    refuse_mixture([part_at(folder), part_at(folder.parent / "2")])
    if (scores := read_scores(folder)) is not None:
        merge_scores(scores, {"benchmarks": {}, "inputs": {"checks": [], "changes": [], "unproven": []}})
        [format_score(score) for score in scores["benchmarks"].values()]


def verb(*words: str) -> Callable[[Path], None]:
    """A command in this process; {} in a word is the folder. Its exit code must be 0 or 2."""

    def call(folder: Path) -> None:
        code = main([word.format(folder) for word in words])
        if code == 2:
            raise UserError(str(sys.stderr.getvalue()))  # type: ignore[attr-defined]
        assert code == 0, code

    return call


# reader -> sound files below its folder, and how it is called
READERS: dict[str, tuple[Files, Callable[[Path], None]]] = {
    "recipe": ({"own.yaml": RECIPE, "system.txt": "Think."}, verb("recipe", "show", "{}/own.yaml")),
    "curation recipe": (
        {"own.yaml": CURATION},
        lambda folder: str(__import__("openrs.curation.settings", fromlist=["load"]).load(f"{folder}/own.yaml")),  # type: ignore[func-returns-value]
    ),
    "benchmarks": (
        {"own.yaml": BENCHMARK, "p.txt": "{Question}"},
        lambda folder: __import__("openrs.evaluation.benchmarks", fromlist=["x"]).read_definitions(folder / "own.yaml"),
    ),
    "model": (
        {
            "config.json": CONFIG,
            "tokenizer_config.json": {"bos_token": {"content": "<s>"}, "chat_template": [{"name": "default", "template": "x"}]},
            "model.safetensors.index.json": {"weight_map": {"a": "model-1.safetensors"}},
            "model-1.safetensors": "abc",
        },
        reads_model,
    ),
    "checkpoint": (
        {"step-000001/checkpoint.json": CHECKPOINT, "step-000001/model.safetensors": "abc"},
        reads_checkpoint,
    ),
    "run": (RUN_FILES, reads_run),
    "report": (RUN_FILES, verb("report", "{}/", "--out", "{}/out")),
    "evaluation": (
        {
            "1/settings.json": RECORD,
            "1/done.json": {"samples": 1, "drawn": 1, "seconds": {"demo": 1.0}},
            "1/scores.json": SCORES,
            "2/settings.json": {**RECORD, "shard": {"number": 2, "of": 2, "tokens": {"demo": 10}}},
            "2/done.json": {"samples": 1, "drawn": 1, "seconds": {"demo": 1.0}},
        },
        lambda folder: reads_evaluation(folder / "1"),
    ),
    "results": (
        {"results_2026-11-28T10-00-00.000000.json": RESULTS, "good/results_2026-11-27T10-00-00.000000.json": RESULTS},
        verb("results", "{}"),
    ),
    "journals": (
        {
            "samples.jsonl": Rows([SAMPLE]),
            "metrics.jsonl": METRICS,
            "items.jsonl": Rows([{"gold": "$4$", "completion": "4"}, {"gold": "$5$", "completion": "5", "rule": "paper"}]),
        },
        reads_journals,
    ),
}  # fmt: skip


# --- the harness ------------------------------------------------------------------------------------------------------


class TooLong(BaseException):
    pass


def too_long(*_: object) -> None:
    raise TooLong


def put(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Rows):
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))


def facts_of(folder: Path) -> dict[str, tuple[int, float, str]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def one_case(name: str, seed: int, place: Path) -> str:
    """Spoil one file of a reader's sound ones, and read; returns how that went against what must hold, or ""."""
    draw = random.Random(f"{name}/{seed}")
    files, call = READERS[name]
    home = place / f"{seed}" / "home"
    home.mkdir(parents=True)
    canary = place / f"{seed}" / "canary"
    canary.mkdir()
    (canary / "file").write_text("untouched")
    before = facts_of(canary)
    put(home, files)
    spoiled = draw.choice(list(files))
    what = f"{name} {seed}: {spoiled}: {spoil(home / spoiled, files[spoiled], draw)}"
    stream = io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR)
    signal.alarm(SILENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stream):
            call(home)
    except UserError as error:
        if not any(
            part in str(error) for part in (Path(spoiled).name, Path(spoiled).parent.name or "?", home.parent.name)
        ):
            return f"{what}: no file is named: {error}"
    except TooLong:
        return f"{what}: more than {PROCESSOR} s of the processor, or waiting"
    except BaseException as error:  # noqa: BLE001 - each is a finding
        return f"{what}: {type(error).__name__}: {error}"[:600]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return "" if facts_of(canary) == before else f"{what}: the canary was touched"


def in_a_child(work: Callable[[], list[str]]) -> list[str]:
    """What `work` returns, in a fork with MEMORY more than it has, and no terminal."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))

            signal.signal(signal.SIGPROF, too_long)
            signal.signal(signal.SIGALRM, too_long)
            os.write(writing, json.dumps(work()).encode())
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must never go on into pytest
            os.write(writing, json.dumps([f"the child: {error!r}"]).encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return list(json.loads(answer)) if answer else [f"the child ended with {status}"]


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What the readers import on the way is not theirs."""
    import openrs.curation.settings
    import openrs.evaluation.lighteval_results
    import openrs.report.pages.page
    import openrs.training.record  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_whatever_a_stranger_puts_there(name: str, tmp_path: Path) -> None:
    assert in_a_child(lambda: sound(name, tmp_path)) == []

    def work() -> list[str]:
        rounds = 4 if name == "report" else ROUNDS
        faults = [fault for seed in range(rounds) if (fault := one_case(name, seed, tmp_path))]
        seed, end = rounds, time.monotonic() + FUZZ_SECONDS / len(READERS)
        while time.monotonic() < end and len(faults) < 20:
            fault = one_case(name, seed, tmp_path)
            faults += [fault] if fault else []
            seed += 1
        return faults

    faults = in_a_child(work)
    assert not faults, "\n".join(faults)


def sound(name: str, place: Path) -> list[str]:
    """The reader reads its sound files: what is refused later is refused for what was spoiled."""
    files, call = READERS[name]
    put(place / "sound", files)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call(place / "sound")
    return []


# --- each kind once, in words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "own.yaml:"),
        ("a: &a {b: *a}", "own.yaml:1: its aliases stand for a tree without end"),
        ("".join(f"k{i}: {i}\n" for i in range(30_000)), f"own.yaml:5000: more than {NODES:,} values"),
        ("title: " + "x" * 10_000_000, "larger than 512 KiB"),
        ("a: " + "[" * 100_000, f"own.yaml:1: nested more than {DEPTH} levels deep"),
        ("extends: demo\ngrpo:\n  seed: " + "9" * 30, "own.yaml:3: a whole number of more than 63 bits"),
        ("extends: demo\ngrpo:\n  seed: " + "9" * 5000, "own.yaml:3: not a value"),
        ("extends: demo\ngrpo:\n  seed: 190:20:30", "own.yaml:3: grpo.seed = '190:20:30' is a str"),
        ("extends: demo\ngrpo:\n  seed: 2026-11-28", "own.yaml:3: grpo.seed = '2026-11-28' is a str"),
        ("extends: demo\na: !!set {x: null}", "own.yaml:2: the tag tag:yaml.org,2002:set"),
        ("extends: demo\na: !!bool maybe", "own.yaml:2: not a value"),
        ('extends: demo\ntitle: "\\ud800"', "own.yaml:2: a NUL, or half of a surrogate pair"),
        ("extends: demo\ntitle: a\0b", "own.yaml:2: a NUL byte"),
        ("extends: demo\n1: 2", "own.yaml:2: the key 1 is not a text"),
        ("extends: " + "x" * 5000, "own.yaml:1: there is no recipe"),
        ("a: 1", "own.yaml: title is missing"),
    ],
)
def test_what_a_recipe_may_not_hold(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load(str(tmp_path / "own.yaml"))
    assert message in str(refused.value)


SECRETS = [
    "hf_abcdefgh12345678", "sk-abcdefgh12345678", "AKIAABCDEFGHIJKL1234", "ghp_abcdefgh12345678",
    "https://user:hunter2@host/x.jsonl", "https:/user:hunter2@host/x.jsonl", "https://:hunter2@host/x", "u:hunter2@host.org",
    "https://host/x.jsonl?X-Amz-Signature=hunter2", "planted-and-never-to-be-seen",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", ["title", "data.source", "rewards.functions"])
def test_secrets_in_settings_are_refused_without_being_shown(
    secret: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", "planted-and-never-to-be-seen")
    value = [{"name": "format", "args": {"x": secret}}] if way == "rewards.functions" else secret
    tree = {"extends": "demo"}
    for key in reversed(way.split(".")):
        value = {key: value}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree | value))
    for words in (
        ["recipe", "show", str(tmp_path / "own.yaml")],
        ["plan", "demo", "--set", f"{way}={json.dumps(value)}"],
    ):
        assert main(words) == 2
        shown = "".join(capsys.readouterr())
        assert "hunter2" not in shown, shown
        assert secret not in shown, shown
        assert f"{way}" in shown


def test_nothing_harmless_is_taken_for_a_secret() -> None:
    for text in (
        "https://host:8000/a@b", "module:function", "pass@k:k=1&n=4", "http://127.0.0.1:8000", "a/b@main", "exp3@50",
        "nvidia/cuda:13.0.3@sha256:14f6d0", "https:/host/x?page=2", "git@github.com:a/b", "ask-someone-else-today",
    ):  # fmt: skip
        assert redact(text) == text
    for recipe in RECIPES.glob("exp*.yaml"):
        load(recipe.stem)


@pytest.mark.parametrize(
    "name",
    [
        "/data/hf_datasets/x.jsonl",
        "./hf_checkpoints/step-50",
        "hf_models2024",
        "data/sk-wikipedia-2024.jsonl",
        "SK-hynix",
    ],
)
def test_names_that_begin_like_a_token_are_no_secrets(name: str) -> None:
    assert list(secrets_in({"data": {"source": name}, name: 1})) == []


def test_every_writer_of_a_run_redacts(tmp_path: Path) -> None:
    run, secret = Run(tmp_path), "https:/user:hunter2@host/x.jsonl"
    manifest.begin(load("demo"), run, ["openrs", secret])
    manifest.record(run, data={"problems": secret, "files": {}})
    manifest.end(run, 2, f"cannot read {secret}")
    assert main(["report", f"{tmp_path}/"]) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"manifest.json", "report.html", "report.json", "report.md"} <= {path.name for path in written}
    assert [path for path in written if b"hunter2" in path.read_bytes()] == []
    assert "hunter2" not in card(run, load("demo"), 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/shadow", "is not below"), ("../above.txt", "is not below"), ("link.txt", "is not below"),
        ("/proc/self/environ", "is not below"), ("loop.txt", "own.yaml:2"), ("pipe", "not a file"), ("sub", "not a file"),
        ("large.txt", "larger than 64 KiB"), ("none.txt", "No such file"), ("x" * 5000, "own.yaml:2"),
    ],
)  # fmt: skip
def test_a_recipe_reads_small_files_below_its_folder_only(tmp_path: Path, name: str, message: str) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "above.txt").write_text("x")
    (home / "link.txt").symlink_to(tmp_path / "above.txt")
    (home / "loop.txt").symlink_to("loop.txt")
    (home / "large.txt").write_text("x" * 100_000)
    os.mkfifo(home / "pipe")
    (home / "own.yaml").write_text(f"extends: demo\nprompt: {{system: '@{name}'}}")
    with pytest.raises(UserError, match=r"own\.yaml:2") as refused:
        load(str(home / "own.yaml"))
    assert message in str(refused.value)
    (home / "sub" / "own.yaml").write_text(
        "{own: {question: q, gold: [a], gold_kind: latex, rows: 1, prompt: ../../above.txt}}"
    )
    with pytest.raises(UserError, match=r"own\.yaml:1: @../../above.txt is not below"):
        read_definitions(home / "sub" / "own.yaml")


@pytest.mark.parametrize(
    "bad",
    [
        '{"results": {%s}}' % ",".join(f'"t{i}|0": {{"m": 0.5}}' for i in range(200_000)),
        '{"results": {"t|0": {%s}}}' % ",".join(f'"m{i}": 0.5' for i in range(200_000)),
        '{"results": {"t|0": {"avg@n:n=%s": 0.5}}}' % ("9" * 4500),
        '{"results": {"t|0": {"m": 1%s}}}' % ("0" * 400),
        '{"results": {"t|0": {"m": 0.5, "m_stderr": 1%s}}}' % ("0" * 400),
        '{"results": {"t|0": {"m": 0.5, "m_stderr": 1e-200}}}',
        '{"results": {"t|0": {"m": 0.5, "m_stderr": 1e-320}}, "config_tasks": {"t|0": {"num_samples": [%s]}}}' % ("9" * 400),
        '{"results": {"t|0": {"%s": 0.5}}}' % ("m" * 10_000_000),
        "[" * 1_000_000,
    ],
    ids=range(9),
)  # fmt: skip
def test_one_bad_results_file_never_loses_the_folder(
    tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results_bad.json").write_text(bad)
    (tmp_path / "results_good.json").write_text(json.dumps(RESULTS))
    assert main(["results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "aime24" in shown
    assert len(shown) < 10_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "takes more than"),
        ("{% if not add_generation_prompt %}{{ 2 ** 9999999999 }}{% endif %}x", "takes more than"),
        ("{{ 'x' * 20000000000 }}", "needs more than 1 GiB"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", "nested too deeply"),
        ("{{ 'x' * 50000000 }}", "50,000,000 characters"),
        ("{{ raise_exception('no \x1b[2J') }}", "refuses a single user message: no"),
    ],
)
def test_a_chat_template_ends(tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(TOKENIZER)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "bos_token": "<s>"}))
    with pytest.raises(UserError, match=str(tmp_path)) as refused:
        ChatEncoder.from_folder(tmp_path)
    assert message in str(refused.value)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_a_chat_template_renders_as_it_is() -> None:
    template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    assert (
        template_worker.render(template, [{"role": "user", "content": "2+2"}], {"bos_token": "<s>"}, "x")
        == "<s><user>2+2<a>"
    )


# Files that openrs itself made or brings along, or an answer of a process that it started: not from outside.
OWN = {
    "outside.py", "config/yaml_lines.py", "run/files.py",  # the boundary, and lines of JSONL
    "config/checks.py", "report/evidence/reference.py", "evaluation/inputs.py", "cluster/jobs.py",  # packaged
    "doctor/allreduce.py", "doctor/checks_cache.py", "evaluation/engine_pool.py", "evaluation/engine_process.py",
    "rewards/pool.py", "rewards/worker.py", "training/nodes.py", "run/processes.py", "data/template_worker.py",  # processes
    "data/rows.py", "data/shapes.py",  # rows, with limits of their own
    "curation/decontaminate.py", "report/verdicts/compare.py",  # written by the stage before; a copy of a tree
    "run/manifest.py",  # pip's own record
    "run/weights.py", "training/record.py",  # parse bytes with limits of their own, ValueError and RecursionError caught
    "cluster/api.py", "cluster/watch.py", "cluster/pods_exec.py", "cluster/submit.py", "cluster/collect.py",  # the API server
    "training/demo_model.py",  # the marker of a model that this run made
}  # fmt: skip


def test_json_and_yaml_are_parsed_at_the_boundary_only() -> None:
    parsing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func)
        in ("json.load", "json.loads", "yaml.load", "yaml.safe_load", "yaml.safe_load_all", "tomllib.load")
    }
    assert parsing <= OWN, parsing - OWN
