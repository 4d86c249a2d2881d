"""Every reader of something from outside, given whatever a stranger may put there: right, or exit 2 with file and place
within 5 s of the processor and 1 GiB; and nothing outside is touched.

Each reader gets sound files; one of them is spoiled, by a value in it, by its bytes, or by what stands in its place.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openrs.cli.main import main
from openrs.config.load import load
from openrs.data import template_worker
from openrs.errors import UserError
from openrs.hub.export import card
from openrs.run import manifest

# ruff: noqa: E501 - tables of what strangers write
PACKAGE = Path(template_worker.__file__).parents[1]
TOKENIZER = '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<s>": 0, "x": 1}, "unk_token": "x"}}'
PROCESSOR, MEMORY = 5.0, 2**30
SILENCE = 120  # seconds asleep after which a reader is waiting for something that never comes, a pipe for one
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
    from openrs.evaluation.scores import format_score, merge_scores, read_scores
    from openrs.evaluation.shards import part_at, refuse_mixture

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
STUDY = """
title: sums
trainings: {mine: {recipe: demo, until: 20, seeds: [1, 2, 3]}}
claims: {helps: {text: better on sums, benchmark: demo, margin: 3, needs: [[mine]]}}
"""
STUDY_STATE = {
    "schema": 1,
    "file": "own.yaml",
    "sha256": "ab",
    "settings": {
        "title": "sums",
        "trainings": {"mine": {"recipe": "demo", "until": 20, "seeds": [1, 2, 3]}},
        "claims": {"helps": {"text": "better", "benchmark": "demo", "margin": 3, "needs": [["mine"]]}},
    },
    "machine": {"gpu": "none", "gpus": 0, "price": 0.0},
    "accepted": [],
    "jobs": {"mine/seed1": {"attempts": [{"started": 1.0, "seconds": 2.0, "folder": "mine-seed1"}], "done": True}},
    "looks": {"helps": [{"samples": 8, "at": "2026-11-29T00:00:00Z", "sha256": "ab", "p": {"differs": 0.5}}]},
}


def read_study(folder: Path) -> None:
    """What every command does with a study's state before anything else."""
    from openrs.study import state

    kept = state.read(folder)
    if kept is not None:
        state.study_of(kept)
        kept.seconds()
        kept.dollars()


READERS: dict[str, tuple[Files, Callable[[Path], None]]] = {
    "recipe": ({"own.yaml": RECIPE, "system.txt": "Think."}, verb("recipe", "show", "{}/own.yaml")),
    "study": (
        {"own.yaml": STUDY},
        lambda folder: str(__import__("openrs.study.settings", fromlist=["load"]).load(folder / "own.yaml")),  # type: ignore[func-returns-value]
    ),
    "study.json": ({"study.json": STUDY_STATE}, read_study),
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


def too_long(number: int, _: object) -> None:
    """Ends a reader for its processor time, or for sleep; being ready to run on a busy machine is neither."""
    if number == signal.SIGALRM and (left := SILENCE - (asleep() - STATE["asleep"])) > 1:
        signal.alarm(int(left))
        return
    raise TooLong


STATE = {"asleep": 0.0}


def asleep() -> float:
    """Seconds in which this process neither ran nor was ready to run (schedstat: ns on a core, ns waiting for one)."""
    try:
        on_core, ready = Path("/proc/self/schedstat").read_text().split()[:2]
    except OSError:
        return time.monotonic()
    return time.monotonic() - (int(on_core) + int(ready)) / 1e9


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
    STATE["asleep"] = asleep()
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
    if facts_of(canary) != before:
        return f"{what}: the canary was touched"
    shutil.rmtree(place / f"{seed}")  # an hour makes a hundred thousand of them
    return ""


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
