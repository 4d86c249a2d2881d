"""Who may read and write what openrs makes: no umask makes it writable to others, and OPENRS_PRIVATE=1 unreadable."""

import os
import stat
from pathlib import Path

import pytest
import runs

from openrs.cli.main import main

pytestmark = pytest.mark.slow


def an_open_umask() -> None:
    os.umask(0)


def a_group_umask() -> None:
    os.umask(0o002)


def a_closed_umask() -> None:
    os.umask(0o077)


@pytest.mark.parametrize(
    ("fault", "private", "file", "folder"),
    [
        pytest.param(an_open_umask, "", 0o644, 0o755, marks=pytest.mark.soak),
        (a_group_umask, "0", 0o644, 0o755),
        (an_open_umask, "1", 0o600, 0o700),
        pytest.param(a_closed_umask, "0", 0o600, 0o700, marks=pytest.mark.soak),
    ],
)
def test_whatever_the_umask(fault: object, private: str, file: int, folder: int, tmp_path: Path) -> None:
    """Everything of a whole run, whichever library wrote it, has at most these bits; openrs's own files have them."""
    run, recipe = tmp_path / "new" / "run", runs.recipe_in(tmp_path)
    sets = ["--set", "grpo.max_steps=2", "--set", "grpo.save_steps=2"]
    for command in (["reproduce", recipe, "--run", run, *sets], ["export", run]):
        code, said = runs.openrs(command, fault, OPENRS_PRIVATE=private)  # type: ignore[arg-type]
        assert code == 0, said
    paths = [run, *run.rglob("*")]
    assert len(paths) > 50
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & ~(folder if path.is_dir() else file) == 0, f"{path}: {mode:o}"
    for name in ("manifest.json", "metrics.jsonl", ".lock", "report.html", "eval/step-000002/samples.jsonl"):
        assert stat.S_IMODE((run / name).stat().st_mode) == file


def test_a_privacy_that_is_misspelt_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENRS_PRIVATE", "yes")
    assert main(["recipe", "list"]) == 2
    assert "fix: set it to 1 (only you may), or unset it" in capsys.readouterr().err
