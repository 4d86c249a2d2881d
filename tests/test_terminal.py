"""Strangers' words on the terminal: no control character in them gets there, but line ends and tabs."""

import ast
import json
import random
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from openrs.cli.main import main
from openrs.run import terminal
from openrs.run.progress import Progress
from openrs.run.terminal import clean

PACKAGE = Path(terminal.__file__).parents[1]
# Colours, titles, links, cleared screens, clipboards, one-byte forms, bells, other directions, halves of pairs, nests.
HARMFUL = [
    "\x1b[31mred\x1b[0m", "\x1b]0;a title\x07", "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "\x1b[2J\x1b[H", "\x1bc",
    "\x1b]52;c;aGVsbG8=\x07", "\x9b31m", "\x9d0;t\x9c", "\x07\x08\x0b\x0c\x0e", "\x7f", "over\rwritten", "\x1b",
    "\u202egnp.exe", "\u2066\u2069\u200f\u061c", "\u2028line", "\ud800", "\ufeff", "\x1b\x1b[31m[31m",
    "\x1b[\x1b[0m31m",
]  # fmt: skip


def harmless(text: str) -> bool:
    """No control or format character but line ends, tabs and joiners of letters; and it can be encoded."""
    allowed = "\n\t\u200b\u200c\u200d\u00ad"
    text.encode("utf-8")
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in allowed for c in text) and not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI") for c in text
    )


@pytest.mark.parametrize("text", HARMFUL)
def test_what_would_harm_is_taken_away_or_shown(text: str) -> None:
    shown = clean(f"before {text}\nafter")
    assert harmless(shown), ascii(shown)
    assert shown.startswith("before ")
    assert shown.endswith("\nafter")


@pytest.mark.slow
def test_any_characters_at_all() -> None:
    rng = random.Random(1)
    alphabet = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\x1b", "[", "]", "0", ";", "m", "a", "\n"]
    alphabet += [*map(chr, range(0x2000, 0x2070)), "\ud83d", "\udcff"]
    for _ in range(3000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(1, 30)))
        assert harmless(clean(text)), ascii(text)


def test_plain_words_stay_as_they_are() -> None:
    for text in ("x² ≤ 3, 東京, naïve, Ελλάς, עברית, العربية, 👩\u200d🔬, tab\there", "two\nlines\n", "100 % right"):
        assert clean(text) == text
    json_text = json.dumps({"a": "\x9b31m\u202e\x1b[0m"}, ensure_ascii=False)
    assert json.loads(clean(json_text)) == {"a": "\x9b31m\u202e\x1b[0m"}  # JSON stays JSON, and says the same


def _hostile_recipe(folder: Path, text: str) -> Path:
    path = folder / "hostile.yaml"
    tree = {"extends": "demo", "title": text, "data": {"source": "rows.jsonl", "problem_column": f"p{text}"}}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    (folder / "rows.jsonl").write_text(json.dumps({f"q{text}": "1+1", "answer": "2"}) + "\n")
    return path


@pytest.mark.parametrize(
    "text", [" ".join(HARMFUL).replace("\ud800", ""), "\x1b[31m", "\u202e"], ids=["all", "red", "turned"]
)
def test_every_command_that_shows_a_strangers_words(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Titles, settings, columns, names of files and folders: --dry-run, show, diff, plan, data show, results, train."""
    monkeypatch.chdir(tmp_path)
    recipe = str(_hostile_recipe(tmp_path, text))
    (tmp_path / "results_1.json").write_text(json.dumps({"results": {f"t{text}|0": {"acc": 1}}, text: text}))
    commands = [
        ["recipe", "show", recipe],
        ["recipe", "show", recipe, "--json"],
        ["recipe", "diff", recipe, "demo"],
        ["recipe", "show", recipe, "--set", f"grpo.{text}=1"],
        ["train", recipe, "--dry-run", "--run", "r"],
        ["train", recipe, "--run", "r"],
        ["plan", recipe],
        ["plan", recipe, "--json"],
        ["fetch", recipe, "--list"],
        ["data", "show", "rows.jsonl"],
        ["results", str(tmp_path / "results_1.json")],
        ["report", f"nothing {text}"],
        ["evaluate", f"./no {text}"],
        ["export", f"./no {text}"],
    ]
    for command in commands:
        main(command)
        said = capsys.readouterr()
        assert harmless(said.out), (command, ascii(said.out))
        assert harmless(said.err), (command, ascii(said.err))
        assert said.out or said.err, command


def test_a_resolved_recipe_says_the_same_although_it_is_shown_harmlessly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from openrs.config.load import load

    recipe = _hostile_recipe(tmp_path, "a \u202e title \x85 of \x1b[31m two\nlines")
    main(["recipe", "show", str(recipe)])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load(str(tmp_path / "again.yaml")) == load(str(recipe))


@pytest.mark.parametrize("text", HARMFUL)
def test_progress_and_its_log(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(tmp_path / "log", sys.stdout)
    progress.say(f"said {text}")
    progress.note(f"noted {text}")
    progress.step(f"step{text}", 1, 2, {f"name{text}": text})
    progress.close()
    assert harmless(capsys.readouterr().out)
    assert harmless((tmp_path / "log").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", HARMFUL)
def test_a_stack_trace(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(f"what {text}")
    terminal.show_traceback(caught.type, caught.value, caught.tb)
    said = capsys.readouterr().err
    assert "RuntimeError: what " in said
    assert harmless(said)


# Modules that write to stdout or stderr themselves: the printer; the live lines, whose words are cleaned before; and
# programs of their own whose output another program of ours reads, or is a log.
WRITERS = {
    "run/terminal.py", "run/progress.py", "hub/fetch.py", "cluster/screen.py", "doctor/allreduce.py",
    "cluster/remote.py", "evaluation/engine_process.py", "doctor/facts.py",
    "run/processes.py", "data/template_worker.py",
}  # fmt: skip


@pytest.mark.slow
def test_there_is_one_printer() -> None:
    """Nothing else in openrs prints, or writes to sys.stdout and sys.stderr."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "print" or called.endswith(("stdout.write", "stderr.write", "traceback.print_exc")):
                found.add(str(path.relative_to(PACKAGE)))
    assert found <= WRITERS
