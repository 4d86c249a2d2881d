"""README, docs/ and CONTRIBUTING.md name only files that exist."""

import re
import subprocess
from pathlib import Path

import pytest

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
