"""Run directories made up for tests of the report, by the formats of docs/report.md. No model was ever trained here."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrs.run.directory import Run

RECIPE = """title: A made-up run (for tests)
model: {name: toy}
data: {source: toy-sums}
rewards: {mode: paper, functions: [{name: format, weight: 1.0}, {name: cosine, weight: 2.0}]}
grpo: {max_steps: %d, learning_rate: 1.0e-06}
training: {stop_after: null}
evaluation: {benchmarks: [aime24, amc23], samples: 4, checkpoints: all}
hardware: {gpu: A40, gpus: 4, layout: split, price_per_gpu_hour: 0.4375}
paper: {experiment: exp3, released_step: 50}
"""


def made_run(
    path: Path,
    *,
    steps: int = 120,
    checkpoints: tuple[int, ...] = (0, 50, 100),
    benchmarks: tuple[tuple[str, int, float], ...] = (("aime24", 30, 0.29), ("amc23", 40, 0.63)),
    samples: int = 4,
    seed: int = 0,
    gain: float = 0.06,
    text_length: int = 400,
) -> Run:
    """Write a whole run: manifest, recipe, metrics, completions, evaluations. Equal arguments give equal files."""
    draw = random.Random(seed)
    run = Run(path)
    path.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(RECIPE % steps)
    run.manifest.write_text(json.dumps(manifest(seed)))
    with run.metrics.open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(metrics_row(step, steps, draw)) + "\n")
    run.completions.mkdir()
    for step in range(10, steps + 1, max(10, steps // 20)):
        write_completions(run, step, draw, text_length)
    for step in checkpoints:
        write_evaluation(run, step, benchmarks, samples, gain * (step > 0), random.Random(seed + step), text_length)
        (run.checkpoints / f"step-{step:06d}").mkdir(parents=True, exist_ok=True)
    return run


def manifest(seed: int) -> dict[str, Any]:
    return {
        "openrs": {"version": "0.1.0", "commit": "0123456789abcdef", "changed": False},
        "recipe": {"title": "A made-up run (for tests)", "sha256": "ab" * 32},
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "trl": "1.16.0"},
        "machine": {"system": "Linux", "cpu": "made up", "cores": 2, "memory_gib": 24.0, "gpus": []},
        "seeds": {"training": seed, "evaluation": 1234},
        "attempts": [
            {
                "number": 1,
                "command": ["openrs", "train"],
                "started": "2026-11-20T08:00:00Z",
                "ended": "2026-11-20T10:00:00Z",
                "exit_code": 75,
                "reason": "interrupted",
            },
            {
                "number": 2,
                "command": ["openrs", "train"],
                "started": "2026-11-20T10:05:00Z",
                "ended": "2026-11-20T14:05:00Z",
                "exit_code": 0,
                "reason": "done",
            },
        ],
    }


def metrics_row(step: int, steps: int, draw: random.Random) -> dict[str, Any]:
    done = step / steps
    right = 0.1 + 0.5 * (1 - math.exp(-4 * done)) + draw.gauss(0, 0.04)
    return {
        "step": step,
        "loss": draw.gauss(0, 0.01),
        "grad_norm": abs(draw.gauss(0.4, 0.1)),
        "learning_rate": 1e-6,
        "reward": 1.2 + right + draw.gauss(0, 0.05),
        "reward_std": 0.8,
        "rewards/format/mean": 0.6 + 0.3 * done,
        "rewards/format/std": 0.3,
        "rewards/cosine/mean": 0.2 + right / 2,
        "rewards/cosine/std": 0.4,
        "frac_reward_zero_std": max(0.0, 0.5 - 0.3 * done + draw.gauss(0, 0.08)),
        "completions/mean_length": 2800 - 900 * done + draw.gauss(0, 60),
        "completions/max_length": 3584.0,
        "completions/clipped_ratio": max(0.0, 0.5 - 0.4 * done + draw.gauss(0, 0.03)),
        "kl": 0.001 + 0.08 * done**2 + abs(draw.gauss(0, 0.004)),
        "entropy": 0.6 - 0.2 * done + draw.gauss(0, 0.01),
        "time/generation": 60 + draw.gauss(0, 4),
        "time/reward": 3 + draw.random(),
        "time/sync": 1.5,
        "time/update": 80 + draw.gauss(0, 3),
        "time/step": 145.0,
        "accuracy": right,
        "problems": [f"p{draw.randrange(7000)}" for _ in range(12)],
    }


def write_completions(run: Run, step: int, draw: random.Random, length: int) -> None:
    count = 8
    words = ["so", "then", "we", "have", "x = 3", "\n", "Wait,", "therefore", "\\boxed{7}", "<think>"]
    table = {
        "id": [f"p{i}" for i in range(count)],
        "gold": ["$7$"] * count,
        "prompt": ["What is 3 + 4?"] * count,
        "completion": [" ".join(draw.choices(words, k=length // 5)) for _ in range(count)],
        "reward/format": [float(draw.random() < 0.7) for _ in range(count)],
        "reward/cosine": [draw.choice([-0.4, 0.8]) for _ in range(count)],
        "advantage": [draw.gauss(0, 1) for _ in range(count)],
    }
    table["verdict"] = ["correct" if paid > 0 else "incorrect" for paid in table["reward/cosine"]]
    pq.write_table(pa.table(table), run.completions / f"step-{step:06d}.parquet")


def write_evaluation(
    run: Run,
    step: int,
    benchmarks: tuple[tuple[str, int, float], ...],
    samples: int,
    gain: float,
    draw: random.Random,
    length: int = 400,
) -> None:
    """eval/step-000050/ with samples.jsonl and scores.json that belong together."""
    folder = run.evaluation(f"step-{step:06d}")
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, list[int]]] = {}
    with (folder / "samples.jsonl").open("w") as file:
        for name, n, rate in benchmarks:
            hard = random.Random(name)  # how hard a problem is, is the problem's, not the checkpoint's
            for i in range(n):
                ease = min(1.0, max(0.0, hard.betavariate(rate, 1 - rate) + gain))
                marks = [int(draw.random() < ease) for _ in range(samples)]
                rows.setdefault(name, {})[f"{name}-{i}"] = marks
                for sample, mark in enumerate(marks):
                    row = {
                        "benchmark": name,
                        "problem": f"{name}-{i}",
                        "sample": sample,
                        "seed": 1,
                        "tokens": draw.randrange(500, 9000),
                        "tokens_hash": "00",
                        "finish": "stop" if draw.random() > 0.08 else "length",
                        "text": "<think>\nLet me see. " + "so x = 3 then " * (length // 14) + "\\boxed{7}",
                        "verdict": "correct" if mark else "incorrect",
                        "answer": "7" if mark else str(draw.randrange(999)),
                    }
                    file.write(json.dumps(row) + "\n")
    write_scores(run, folder.name, rows, step=step)


def write_scores(
    run: Run,
    name: str,
    rows: dict[str, dict[str, list[int]]],
    *,
    step: int | None = None,
    inputs: str = "not checked",
    **protocol: Any,
) -> None:
    """eval/<name>/scores.json of these verdicts (benchmark -> problem -> zeros and ones), by the paper's sampling."""
    from openrs.evaluation.statistics import avg_at_k, pass_at_k

    scores: dict[str, Any] = {}
    for benchmark, problems in rows.items():
        marks = list(problems.values())
        at_k, k, right = avg_at_k(marks), len(marks[0]), sum(map(sum, marks))
        scores[benchmark] = {
            "n": len(marks),
            "k": k,
            "accuracy": at_k.value,
            "stderr": at_k.se_problems,
            "interval": [at_k.problems.low, at_k.problems.high],
            "pass_at_k": {str(j): pass_at_k(marks, j) for j in (1, 4) if j <= k},
            "majority": None,
            "truncated": 3,
            "mean_tokens": 4000.0 + 10 * (step or 0) + right,
            "verdicts": {"correct": right, "incorrect": len(marks) * k - right},
            "per_problem": problems,
        }
    checks = [{"benchmark": b, "hash": "hash_examples", "expected": "0", "found": "0", "state": inputs} for b in rows]
    sampling = {"samples": 1, "temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "seed": 1234}
    tree = {
        "schema": 1,
        "model": {"name": name, "revision": None, "step": step, "sha256": {"model.safetensors": "cd" * 32}},
        "protocol": {"name": "custom", **sampling, "engine": "vllm", "bos": 2, **protocol},
        "inputs": {
            "proven": inputs == "equal",
            "equal": 0,
            "of": len(checks),
            "bos": 2,
            "checks": checks,
            "changes": [],
        },
        "benchmarks": scores,
        "seconds": {"load": 160.0, "generate": 3000.0, "score": 20.0},
        "finished": "2026-11-20T15:00:00Z",
    }
    folder = run.path / "eval" / name.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(tree))


def verdicts(n: int, right: int, k: int = 1) -> dict[str, list[int]]:
    """n problems, k samples each; `right` of the n k samples are right, spread evenly over the problems."""
    marks = [0] * (n * k)
    for i in range(right):
        marks[i * n * k // right] = 1
    return {f"p{i}": marks[i * k : (i + 1) * k] for i in range(n)}
