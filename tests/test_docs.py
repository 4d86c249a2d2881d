"""README, docs/ and CONTRIBUTING.md name only files, anchors, commands and figures that exist."""

import argparse
import re
import shlex
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from openrs.cli.main import main, parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_LINK = re.compile(r"\[[^\]\n]*\]\(([^()\s]+)\)")
_PATH = re.compile(r"(?<![\w./-])(?:\./)?((?:openrs|tests|docs|scripts|benchmarks|locks|k8s|docker|dev)/[\w./*{},-]*)")


def alternatives(path: str) -> list[str]:
    """`a_{b,c}.py` as the shell expands it: a_b.py and a_c.py."""
    braces = re.search(r"\{([^{}]*)\}", path)
    if braces is None:
        return [path]
    return [other for word in braces[1].split(",") for other in alternatives(path.replace(braces[0], word, 1))]


def tracked() -> set[str]:
    """Files in git and the folders that hold them, as paths below the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {str(path) for name in listed for path in (Path(name), *Path(name).parents)}


def dead(page: Path, existing: set[str]) -> list[str]:
    """The relative links and paths of a page that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in _LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]
    targets = [(page.parent / link).resolve() for link in links]
    paths = [path.rstrip(".,/-}") for word in _PATH.findall(text) for path in alternatives(word)]
    wrong = [str(target) for target in targets if not target.exists()]
    return wrong + [path for path in paths if path not in existing and not ("*" in path and any(ROOT.glob(path)))]


@pytest.fixture(scope="module")
def existing() -> set[str]:
    try:
        return tracked()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_link_exists(page: Path, existing: set[str]) -> None:
    assert dead(page, existing) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("see `openrs/run/rundir.py`", ["openrs/run/rundir.py"]),
        ("`tests/run/test_{gone,lost}.py`", ["tests/run/test_gone.py", "tests/run/test_lost.py"]),
        ("run ./scripts/nothing now.", ["scripts/nothing"]),
        ("| code | `pytest -k x docs/absent*.md` |", ["docs/absent*.md"]),
        ("[a page](nowhere.md#part)", None),
    ],
)
def test_a_dead_path_is_found(tmp_path: Path, existing: set[str], line: str, wrong: list[str] | None) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"`openrs/errors.py` and [errors]({ROOT / 'openrs/errors.py'}) are fine.\n{line}\n")
    assert dead(page, existing) == (wrong if wrong is not None else [str(tmp_path / "nowhere.md")])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    heads = re.findall(r"(?m)^#{1,6} +(.+?) *$", prose)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_anchors(page: Path) -> list[str]:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "#" in link and ":" not in link]
    targets = [(link, (page.parent / link.partition("#")[0]).resolve() if link[0] != "#" else page) for link in links]
    return [link for link, target in targets if link.partition("#")[2] not in anchors(target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_exists(page: Path) -> None:
    assert dead_anchors(page) == []


def test_a_dead_anchor_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("## What `MODEL` may be\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](#here) [b](other.md#what-model-may-be) [c](other.md#gone) [d](#there)\n```\n# there\n```\n"
    )
    assert dead_anchors(page) == ["other.md#gone", "#there"]


def commands(text: str) -> Iterator[str]:
    """The `openrs ...` lines of code blocks, fenced or indented, and the `openrs ...` between backquotes."""
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    lines = "\n".join([*blocks, *re.findall(r"(?m)^ {4}(.*)$", text)]).replace("\\\n", " ").splitlines()
    yield from (line for line in lines if re.match(r"openrs [a-z]", line))
    yield from re.findall(r"`(openrs [a-z][^`\n]*)`", re.sub(r"(?ms)^```.*?^```", "", text))


def misread(command: str, top: argparse.ArgumentParser) -> str | None:
    """What the real parser refuses in a command of the docs. `[X]` may be left out, `...` repeats, N is a number; a
    command that is only named (`openrs cluster`) may lack what it needs."""
    command = re.sub(r"\s(#|->|→|&&).*|\s{2,}.*", "", command)
    command = re.sub(r"\[[^\]]*\]|\.\.\.", "", command).replace("|", "/").replace("<", "").replace(">", "")
    words = ["1" if word in ("N", "USD", "S") else word for word in shlex.split(command)[1:]]
    try:
        top.parse_args(words)
    except ValueError as error:
        named = "the following arguments are required" in str(error) or str(error).endswith("expected one argument")
        return None if named else f"{command}: {error}"
    return None


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def error(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise ValueError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", error)
    return parser()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_openrs_command_is_one(page: Path, top: argparse.ArgumentParser) -> None:
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [wrong for command in found if (wrong := misread(command, top))] == []


def test_wrong_commands_are_found(top: argparse.ArgumentParser) -> None:
    text = (
        "```sh\nopenrs trian exp3  # a comment\n```\n\n    openrs plan exp3 --gpuz A40    what it says\n\n"
        "`openrs recipe shwo exp3`, `openrs cluster`\n"
    )
    found = list(commands(text))
    assert len(found) == 4
    assert [misread(command, top) is None for command in found] == [False, False, False, True]
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 150


def test_readme_says_what_the_plan_says(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    hours, dollars = re.findall(r"planned: ([\d.]+ to [\d.]+ h), (\$[\d.]+ to [\d.]+) for the training", readme)[0]
    assert main(["plan", "exp3"]) == 0
    assert f"500 steps: {hours}, {dollars} at" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_small_and_there(scheme: str) -> None:
    picture = (ROOT / "docs" / "pictures" / f"report-{scheme}.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) < 200_000
    assert struct.unpack(">II", picture[16:24]) > (1000, 500)
    assert f"docs/pictures/report-{scheme}.png" in (ROOT / "README.md").read_text(encoding="utf-8")


# What runs anywhere in seconds and writes nothing, unless a word stands for something of the reader's.
_RUNS_HERE = re.compile(r"openrs (recipe (list|show|diff)|plan|completion|train .*--dry-run)\b")
_READER_S = re.compile(r"\b(?!USD)[A-Z]{3,}\b|\b(my|mine|runs|lora|own)\b|\.\.\.")


def run_here() -> list[str]:
    every = {command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))}
    plain = {re.sub(r"\s(#|->|→|&&).*|\s{2,}.*", "", command) for command in every}
    named = {"openrs plan", "openrs plan --gpu"}
    return sorted(line for line in plain - named if _RUNS_HERE.match(line) and not _READER_S.search(line))


@pytest.mark.soak
@pytest.mark.parametrize("command", run_here())
def test_a_command_of_the_docs_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
