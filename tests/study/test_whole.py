"""A study of one's own on a CPU, whole, through the command line: planned, run, killed, resumed, reported."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openrs.report.evidence.collect import collect
from openrs.report.verdicts.cost import ledger
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.study import state

RECIPE = """
extends: demo
title: a tiny run
model: {toy: {seed: 0, layers: 1, hidden: 32, heads: 1, steps: 2, learning_rate: 6e-3}}
data: {source: toy-sums, limit: 12}
rewards: {mode: corrected, workers: 1, functions: [{name: format, weight: 1.0}]}
grpo:
  {max_steps: 20, warmup_steps: 2, per_device_train_batch_size: 12, max_completion_length: 8, save_steps: 5}
evaluation: {benchmarks: [demo], samples: 1, max_tokens: 4}
"""
STUDY = """
title: do five steps more help on sums?
gpu: none
gpus: 0
trainings:
  short: {recipe: tiny.yaml, until: 5, seeds: [1, 2, 3]}
  longer: {recipe: tiny.yaml, until: 10, seeds: [1, 2, 3], after: short}
claims:
  helps: {text: ten steps are better than the base on sums, benchmark: demo, margin: 5, needs: [[longer]]}
"""


def openrs(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "openrs.cli", *words]
    with (folder / "said").open("a") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, text=True)


def written(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "own.yaml").write_text(STUDY)


@pytest.mark.soak
@pytest.mark.limits(processor=1200, silence=600)
def test_killed_at_random_it_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """SIGKILL and SIGTERM at random moments; the metrics are those of a study that nobody touched."""
    draw = random.Random(7)
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    for folder in (whole, disturbed):
        folder.mkdir()
        written(folder)
    assert openrs(whole, "reproduce", "own.yaml", "--plan").wait() == 0
    assert "1 of 1 claims that data can decide can be decided" in (whole / "said").read_text()
    assert openrs(whole, "reproduce", "own.yaml").wait() == 0, (whole / "said").read_text()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        process = openrs(disturbed, "reproduce", "own.yaml")
        time.sleep(draw.uniform(5, 40))
        process.send_signal(number)
        assert process.wait() in (0, 75, -9), (disturbed / "said").read_text()
    assert openrs(disturbed, "reproduce", "own.yaml").wait() == 0, (disturbed / "said").read_text()
    exact = ("step", "loss", "reward", "problems")
    for seed in (1, 2, 3):
        rows = [list(read_jsonl(one / f"runs/own/short-seed{seed}/metrics.jsonl")) for one in (whole, disturbed)]
        assert [len(one) for one in rows] == [10, 10]
        first, second = ([[row[key] for key in exact] for row in one] for one in rows)
        assert first == second
    assert openrs(disturbed, "report", "runs/own").wait() == 0
    tree = json.loads((disturbed / "runs/own/report.json").read_text())
    (claim,) = tree["claims"]
    assert claim["verdict"] != "not tested"
    assert claim["numbers"]["seeds"] == 3
    kept = state.read(whole / "runs/own")
    assert kept is not None
    for seed in (1, 2, 3):  # what the study counts is what the runs' own ledgers count, and the little around it
        book = ledger(collect(Run(whole / f"runs/own/short-seed{seed}")))
        assert book is not None
        counted = kept.seconds(f"short/seed{seed}") + kept.seconds(f"longer/seed{seed}")
        assert counted >= book.seconds - 4  # a manifest's times are whole seconds
