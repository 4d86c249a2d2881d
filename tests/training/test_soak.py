"""The short form of scripts/soak: runs killed at random moments end equal to the undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = int(os.environ.get("OPENRS_SOAK_RUNS", "3"))  # 1: the short form
SCRIPT = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.mark.soak
@pytest.mark.limits(processor=1500)
@pytest.mark.parametrize(("runs", "processes"), [(RUNS, 1), (1, 2)])
def test_killed_at_random(tmp_path: Path, runs: int, processes: int) -> None:
    command = [sys.executable, SCRIPT, "--runs", str(runs), "--processes", str(processes), "--keep", tmp_path / "soak"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{runs} of {runs} runs equal to the undisturbed one" in done.stdout
    assert "damaged checkpoints: 0" in done.stdout
    assert done.stdout.count(" SIGKILL: steps done again: ") == 1
