"""The contracts on imports in pyproject.toml: kept by the tree, and broken by imports that they forbid."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = [LINT, "--no-cache"]
    return subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The package's source and pyproject.toml, without anything else of the checkout."""
    shutil.copytree(ROOT / "openrs", tmp_path / "openrs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_are_kept(tree: Path) -> None:
    said = lint(tree)
    assert said.returncode == 0, said.stdout
    assert "0 broken" in said.stdout


@pytest.mark.parametrize(
    ("module", "imported", "broken"),
    [
        ("run/files.py", "openrs.planner.memory", "openrs.run is not allowed to import openrs.planner"),
        (
            "evaluation/scores.py",
            "openrs.training.record",
            "openrs.evaluation is not allowed to import",
        ),
        (
            "training/record.py",
            "openrs.evaluation.scores",
            "openrs.training is not allowed to import",
        ),
        ("report/evidence/values.py", "openrs.report.pages.grid", "openrs.report.evidence is not allowed to import"),
        ("report/verdicts/cost.py", "openrs.report.verdicts.judge", "No cycles are allowed"),
    ],
)
def test_a_wrong_import_breaks_them(tree: Path, module: str, imported: str, broken: str) -> None:
    path = tree / "openrs" / module
    path.write_text(f"{path.read_text()}\n\ndef planted() -> None:\n    import {imported}\n")
    said = lint(tree)
    assert said.returncode == 1
    assert broken in said.stdout


def test_a_new_package_must_have_a_layer(tree: Path) -> None:
    (tree / "openrs" / "novelty").mkdir()
    (tree / "openrs" / "novelty" / "__init__.py").write_text("")
    said = lint(tree)
    assert said.returncode == 1
    assert "novelty" in said.stdout
