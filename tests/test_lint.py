"""The lint says the same in every checkout, whatever people have made in it."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BADLY_WRITTEN = "import sys,os\nx = eval( 'os')\n"


def ruff(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The program itself: `python -m` would take modules from the folder's packages.
    command = [Path(sys.executable).parent / "ruff", *arguments, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def tracked_python_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("this checkout is not a git clone, so nothing says which files are the project's")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def imported_names(files: list[Path]) -> set[str]:
    """The first part of every module that these files import."""
    names = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.split(".")[0])
    return names


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The project's own Python files, as a clone has them: without .git, so that .gitignore is no help."""
    for name in tracked_python_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_python_file_of_the_project_is_linted() -> None:
    shown = ruff(ROOT, "check", "--show-files", ".").stdout.splitlines()
    linted = {str(Path(name).relative_to(ROOT)) for name in shown}
    assert set(tracked_python_files()) <= linted


@pytest.mark.slow
def test_no_folder_in_the_checkout_changes_what_the_lint_says(copied: Path) -> None:
    """Folders of what people make, and one with the name of every module that the project imports."""
    own = {path.name for path in copied.iterdir()}
    imported = imported_names(list(copied.rglob("*.py"))) - own
    assert {"runs", "pytest", "torch"} <= imported
    for name in {"runs", "report", "datasets", "venv", ".venv-py312", "my_experiment"} | imported:
        (copied / name).mkdir(exist_ok=True)
        (copied / name / "__init__.py").write_text(BADLY_WRITTEN)
    for command in (["check", "."], ["format", "--check", "."]):
        result = ruff(copied, *command)
        assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_a_badly_written_file_of_the_project_is_still_found(copied: Path) -> None:
    (copied / "openrs" / "planted.py").write_text(BADLY_WRITTEN)
    (copied / "tests" / "planted.py").write_text(BADLY_WRITTEN)
    result = ruff(copied, "check", ".", "--output-format=concise")
    assert result.returncode == 1
    assert {line.split(":")[0] for line in result.stdout.splitlines() if "planted" in line} == {
        "openrs/planted.py",
        "tests/planted.py",
    }


def test_pre_commit_runs_every_linter_of_scripts_test() -> None:
    checks = re.findall(r'^check "[^"]+" "\$VENV/bin/(\S+)"(.*)', (ROOT / "scripts" / "test").read_text(), re.MULTILINE)
    linters = {(tool, "--check" in options) for tool, options in checks if tool != "python"}  # python runs pytest
    assert {"ruff", "mypy", "shellcheck"} <= {tool for tool, _ in linters}
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # nothing to download
    entries = [hook["entry"].split() for hook in local["hooks"]]
    assert linters <= {(words[0].removeprefix(".venv/bin/"), "--check" in words) for words in entries}
