"""docs/own-model.md, block by block, in one folder, as its reader would give the commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "own-model.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.soak
def test_every_block_of_the_tutorial_does_what_it_says(made_model: Path, tmp_path: Path) -> None:
    shutil.copytree(made_model, tmp_path / "model")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "openrs").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m openrs.cli "$@"\n')
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    said = []
    for block in blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        said.append(done.stdout)
    whole = "\n".join(said)
    for text in (
        "prompt of row 0:",
        "openrs plan mine.yaml:",
        "training: in this process",
        "step-000004",
        "model: exported",
    ):
        assert text in whole
    metrics = [json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "reward" in row] == [1, 2, 3, 4]
    assert "held-out" in (tmp_path / "runs/mine/report.html").read_text(encoding="utf-8")
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in card
    assert "the local folder model" in card
    assert not (tmp_path / "exported" / "adapter_model.safetensors").exists()


def test_the_tutorial_has_every_stage() -> None:
    verbs = re.findall(r"^openrs (\w+)", "\n".join(blocks()), re.MULTILINE)
    assert verbs == ["recipe", "train", "train", "evaluate", "report", "export"]
