"""What is published, as rates of problems: the worlds in which a plan's power is simulated.

Published are a mean for each model and benchmark, and for some models a spread over seeds. Problems' rates are beta
distributed with that mean and the spread pooled over the six models of arXiv 2504.07086
(openrs/evaluation/difficulty_model.py). Equally hard problems stand at equal places, so two models of one mean have
equal rates, problem by problem; nothing published tells how far models differ on single problems.
"""

import functools
from typing import Literal

from openrs.evaluation.difficulty_model import problem_rates
from openrs.evaluation.statistics import Floats
from openrs.report.evidence import reference
from openrs.report.verdicts.selection import pooled_deviation

World = Literal["paper", "none", "again"]
WORLDS: dict[World, str] = {
    "paper": "the paper is right: every model has its printed mean",
    "none": "no effect: every model is the base, at its re-evaluated mean",
    "again": "the re-evaluations are right: every model has its mean of arXiv 2504.07086",
}
EARLY, LATE = (50, 100), 200  # steps of the claims on scores in training


def mean_of(world: World, model: str, benchmark: str) -> float | None:
    """The model's true mean in a world, a proportion; None where nothing is published."""
    if world == "paper":
        return reference.published(model, benchmark)
    again = reference.reevaluation(str(reference.tree()["base"]) if world == "none" else model, benchmark)
    return again[0] if again else None


@functools.cache
def rates(mean: float, benchmark: str) -> Floats:
    """[n] rates of the benchmark's problems for a model of this mean, hardest first."""
    return problem_rates(mean, pooled_deviation(benchmark), int(reference.tree()["problems"][benchmark]))


def training_change(world: World, benchmark: str, *, late: bool) -> float:
    """True change of a score in training (a proportion): from the base to steps 50 to 100, or from there to the end.

    paper: means over the experiments' logs (and the printed base). again: the three released models against the base,
    re-evaluated; late checkpoints were never re-evaluated, so no change is assumed there.
    """
    if world == "none" or (late and world == "again"):
        return 0.0
    base = mean_of(world, str(reference.tree()["base"]), benchmark) or 0.0
    if world == "again":
        own = [mean_of(world, model, benchmark) or 0.0 for model in reference.released()]
        return sum(own) / len(own) - base
    logs = [one for one in reference.logs() if one.benchmark == benchmark]
    by_experiment = [
        [one for one in logs if one.experiment == name] for name in sorted({one.experiment for one in logs})
    ]
    early = [next(one.accuracy for one in own if EARLY[0] <= one.step <= EARLY[1]) for own in by_experiment]
    last = [next(one.accuracy for one in reversed(own) if one.step >= LATE) for own in by_experiment]
    return sum(last) / len(last) - sum(early) / len(early) if late else sum(early) / len(early) - base
