"""The order of `openrs reproduce`'s stages, and the lines that it ends with, whatever has been evaluated."""

from pathlib import Path
from typing import Any

import pytest

from openrs import reproduce
from openrs.config.load import load
from openrs.evaluation.plan import Target
from openrs.reproduce import compare
from openrs.run.directory import Run
from openrs.run.progress import Progress

SCORE = {"accuracy": 0.5, "interval": [0.4, 0.6], "n": 30, "k": 4, "truncated": 0, "verdicts": {"correct": 60}}


@pytest.mark.parametrize("base", [[], ["aime24"], ["aime24", "aime25"], ["math_500"]])
@pytest.mark.parametrize("last", [["aime24"], ["aime24", "aime25"]])
def test_a_benchmark_that_the_base_has_not(base: list[str], last: list[str]) -> None:
    before = {"benchmarks": dict.fromkeys(base, SCORE)}
    after = {"benchmarks": dict.fromkeys(last, SCORE), "model": {"step": 50}}
    labels = [line.partition(":")[0] for line in compare(before, after)]
    assert [label for label in labels if label.endswith("step 50")] == [f"{name}, step 50" for name in last]
    assert [label for label in labels if label.endswith("base")] == [f"{name}, base" for name in last if name in base]


def test_a_resumed_run_evaluates_no_checkpoint_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of an interruption (here step 151) is not the recipe's last."""
    done: list[str] = []

    def evaluate(target: Target, *_: Any) -> dict[str, Any]:
        done.append(target.label)
        return {"benchmarks": {}, "model": {"step": target.step}}

    def targets(run: Run, *_: Any, **__: Any) -> list[Target]:
        last = "step-000200" if "trained" in done else "step-000151"
        return [Target(label, str(run.path), None, 0, "float32", False) for label in ("step-000000", last)]

    monkeypatch.setattr(reproduce, "prepare", lambda *_: None)
    monkeypatch.setattr(reproduce, "train", lambda *_: done.append("trained"))
    monkeypatch.setattr(reproduce, "evaluate", evaluate)
    monkeypatch.setattr(reproduce, "targets_of_run", targets)
    monkeypatch.setattr(reproduce, "write_report", lambda run: run.path / "report.html")
    reproduce.reproduce(load("demo", []), Run(tmp_path), Progress())
    assert done == ["step-000000", "trained", "step-000000", "step-000200"]
