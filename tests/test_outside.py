"""Whatever a stranger may write, each kind once, and every reader of it under one harness (outside_readers.py).

The short form takes fixed seeds. OPENRS_FUZZ_SECONDS=3600 goes on with new ones for an hour.
"""

import ast
import contextlib
import io
import json
import os
import time
from pathlib import Path

import pytest
import yaml
from outside_readers import (
    FUZZ_SECONDS,
    LAUGHS,
    PACKAGE,
    READERS,
    RESULTS,
    ROUNDS,
    TOKENIZER,
    in_a_child,
    one_case,
    put,
)

from openrs.cli.main import main
from openrs.config.load import RECIPES, load
from openrs.config.yaml_lines import NODES
from openrs.data import template_worker
from openrs.data.tokenizer import ChatEncoder, load_tokenizer
from openrs.errors import UserError
from openrs.evaluation.benchmarks import read_definitions
from openrs.hub.export import card
from openrs.outside import DEPTH
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.secrets import redact, secrets_in

# ruff: noqa: E501, UP031 - tables of what strangers write


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What the readers import on the way is not theirs."""
    import openrs.curation.settings
    import openrs.evaluation.lighteval_results
    import openrs.report.pages.page
    import openrs.training.record  # noqa: F401


@pytest.mark.slow
@pytest.mark.limits(processor=300 + FUZZ_SECONDS)
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
        if FUZZ_SECONDS:  # pytest -s shows it
            os.write(1, f"{name}: {seed} files, {time.process_time():.0f} s of CPU, {len(faults)} faults\n".encode())
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
    "outside.py", "run/files.py",  # the boundary, and lines of JSONL
    "config/checks.py", "report/evidence/reference.py", "evaluation/inputs.py", "cluster/jobs.py",  # packaged
    "doctor/allreduce.py", "doctor/probe.py", "evaluation/engine_pool.py", "evaluation/engine_process.py",
    "rewards/pool.py", "rewards/worker.py", "training/nodes.py", "run/processes.py", "data/template_worker.py",  # processes
    "data/rows.py", "data/shapes.py",  # rows, with limits of their own
    "curation/decontaminate.py", "report/verdicts/compare.py",  # written by the stage before; a copy of a tree
    "run/manifest.py",  # pip's own record
    "training/record.py",  # parses bytes with limits of their own, ValueError and RecursionError caught
    "cluster/api.py", "cluster/watch.py", "cluster/pods_exec.py", "cluster/submit.py", "cluster/collect.py",  # the API server
    "training/demo_model.py",  # the marker of a model that this run made
}  # fmt: skip


@pytest.mark.slow
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
    assert parsing == OWN
