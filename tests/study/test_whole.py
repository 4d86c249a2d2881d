"""A study of one's own on a CPU, whole, through the command line: planned, run, killed, resumed, reported.

Real trainings and real evaluations, the latter of stand-in weights that a stand-in of the hub gives as the paper's.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo
from waiting import until

from openrs.report.evidence.collect import collect
from openrs.report.verdicts.cost import ledger
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.study import state

RUNS = int(os.environ.get("OPENRS_SOAK_RUNS", "4"))  # kills; .ci/run takes 1, and then one seed and no twin
SEEDS = [1, 2, 3] if RUNS > 1 else [1]
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
STUDY = f"""
title: do five steps more help on sums?
gpu: none
gpus: 0
evaluation: {{data: ., max_tokens: 4, engine: transformers, processes: 1}}
evaluations:
  base:     {{model: "paper:base",     samples: {{amc23: 2}}}}
  open-rs2: {{model: "paper:open-rs2", samples: {{amc23: 2}}}}
trainings:
  short: {{recipe: tiny.yaml, until: 5, seeds: {SEEDS}}}
  longer: {{recipe: tiny.yaml, until: 10, seeds: {SEEDS}, after: short}}
claims:
  helps: {{text: ten steps are better than the base on sums, benchmark: demo, margin: 5, needs: [[longer]]}}
  better-amc23: {{needs: [[base/amc23, open-rs2/amc23]], looks: [1, 2]}}
"""
REPRODUCE = ("reproduce", "own.yaml", "--also", "short,longer")
WEIGHTS = {  # at their pinned commits
    "models/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562",
    "models/knoveleng/Open-RS2": "5a080aa479de" + "0" * 28,
}


def openrs(folder: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    hub = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(folder.parent / "cache")}
    command = [sys.executable, "-m", "openrs.cli", *words]
    with (folder / "said").open("a") as said:
        environment = {**os.environ, **hub, **more}
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, text=True)


def lines(folder: Path) -> int:
    return (folder / "said").read_text().count("\n")


def written(folder: Path, amc23: Path) -> None:
    folder.mkdir()
    shutil.copy(amc23, folder / "amc23.jsonl")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "own.yaml").write_text(STUDY)


def killed(folder: Path, number: signal.Signals, after: int) -> int:
    """One launch that gets the signal when it has printed so many lines; its exit code."""
    begun = lines(folder)
    process = openrs(folder, *REPRODUCE)
    until(lambda: process.poll() is not None or lines(folder) >= begun + after)
    process.send_signal(number)
    return process.wait()


@pytest.mark.soak
@pytest.mark.limits(processor=1200, silence=600)
def test_killed_at_random_it_ends_as_an_undisturbed_one(tmp_path: Path, made_model: Path, shared_data: Path) -> None:
    """SIGKILL and SIGTERM at random moments; the metrics are those of a study that nobody touched."""
    draw = random.Random(7)
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    written(disturbed, shared_data / "benchmarks" / "amc23.jsonl")
    files = {path.name: path.read_bytes() for path in made_model.iterdir() if path.is_file()}
    with FakeHub(
        {name: Repo(files, [commit], large=("model.safetensors",)) for name, commit in WEIGHTS.items()}
    ) as hub:
        fetching = openrs(disturbed, "fetch", "own.yaml", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
        assert fetching.wait() == 0, (disturbed / "said").read_text()
    assert openrs(disturbed, "reproduce", "own.yaml", "--plan").wait() == 0, (disturbed / "said").read_text()
    count = 2 if len(SEEDS) == 3 else 1  # fewer seeds decide nothing
    assert f"{count} of {count} claims that data can decide can be decided" in (disturbed / "said").read_text()
    for kill in range(RUNS):
        code = killed(disturbed, (signal.SIGKILL, signal.SIGTERM)[kill % 2], draw.randint(10, 60))
        assert code in (0, 75, -9), (disturbed / "said").read_text()
    assert openrs(disturbed, *REPRODUCE).wait() == 0, (disturbed / "said").read_text()
    kept = state.read(disturbed / "runs/own")
    assert kept is not None
    assert len(kept.done()) == 2 + 2 * len(SEEDS)
    assert [look["samples"] for look in kept.looks("better-amc23")] == [1, 2]
    for name in ("base", "open-rs2"):
        rows = list(read_jsonl(disturbed / f"runs/own/evaluations/eval/paper-{name}/samples.jsonl"))
        assert len(rows) == len({(row["problem"], row["sample"]) for row in rows}) == 80
    if RUNS > 1:
        written(whole, disturbed / "amc23.jsonl")
        assert openrs(whole, *REPRODUCE).wait() == 0, (whole / "said").read_text()
    exact = ("step", "loss", "reward", "problems")
    for seed in SEEDS:
        places = [one / f"runs/own/short-seed{seed}" for one in ((whole, disturbed) if RUNS > 1 else (disturbed,))]
        rows = [[[row[key] for key in exact] for row in read_jsonl(place / "metrics.jsonl")] for place in places]
        assert [row[0] for row in rows[0]] == list(range(1, 11))
        assert rows[0] == rows[-1]
        # what the study counts is what the run's own ledger counts, and the little around it
        book, counted = ledger(collect(Run(places[0]))), state.read(places[0].parent)
        assert book is not None
        assert counted is not None
        seconds = counted.seconds(f"short/seed{seed}") + counted.seconds(f"longer/seed{seed}")
        if RUNS > 1:  # nobody killed it
            assert seconds >= book.seconds - 4  # a manifest's times are whole seconds
    assert openrs(disturbed, "report", "runs/own").wait() == 0
    tree = json.loads((disturbed / "runs/own/report.json").read_text())
    claims = {claim["id"]: claim for claim in tree["claims"]}
    assert claims["better-amc23"]["verdict"] == "not tested"  # four tokens an answer are not the paper's sampling
    assert claims["helps"]["verdict"] != "not tested"
    assert claims["helps"]["numbers"]["seeds"] == len(SEEDS)
    by_ledger = {job["id"]: (job["hours"], job["ledger_hours"]) for job in tree["study"]["jobs"]}
    for job, (hours, counted_hours) in by_ledger.items():
        assert (counted_hours is None) == ("amc23" in job)
        assert counted_hours is None or abs(hours - counted_hours) < 30 / 3600
