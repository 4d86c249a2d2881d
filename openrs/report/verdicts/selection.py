"""The best of m checkpoints, chosen on the test set: what it scores although no checkpoint is better than the base."""

from typing import Any

from openrs.evaluation.statistics import expected_best
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData

BENCHMARK = "aime24"
LARGEST = 20_000  # samples of an evaluation up to which the distribution is computed
ENOUGH = 8  # samples a problem from which the base's rates are taken problem by problem


def of_paper() -> dict[str, Any]:
    """The best AIME24 score of the 21 evaluated checkpoints, if each were as good as the base (28.7, ten seeds)."""
    rate, deviation, seeds = reference.reevaluation(reference.tree()["base"], BENCHMARK) or (0.0, 0.0, 0)
    every = [one for one in reference.logs() if one.benchmark == BENCHMARK]
    top = max(every, key=lambda one: one.accuracy)
    best = expected_best(rate, top.n, len(every), top.accuracy)
    return {
        "benchmark": BENCHMARK,
        "rate": rate,
        "rate_deviation": deviation,
        "rate_seeds": seeds,
        "rates": "one for all problems: the widest spread that this rate allows",
        "n": best.n,
        "k": best.k,
        "checkpoints": best.m,
        "best": top.accuracy,
        "best_model": top.model,
        "expected_best": best.expected,
        "probability": best.probability,
        "scores": {
            experiment: [one.accuracy for one in every if one.experiment == experiment]
            for experiment in dict.fromkeys(one.experiment for one in every)
        },
    }


def of_run(run: RunData) -> dict[str, Any] | None:
    """The same of a run's own checkpoints on AIME24, or on its first benchmark; None with fewer than two of them."""
    base = run.base
    names = [name for name in (BENCHMARK, *(base.scores if base else ())) if base and name in base.scores]
    later = [one for one in run.later if names and names[0] in one.scores]
    if base is None or len(later) < 2:
        return None
    score = base.scores[names[0]]
    later = [one for one in later if (one.scores[names[0]].n, one.scores[names[0]].k) == (score.n, score.k)]
    if len(later) < 2 or score.n * score.k > LARGEST:
        return None
    by_problem = score.k >= ENOUGH and len(score.per_problem) == score.n
    rates = (
        [sum(marks) / len(marks) for marks in score.per_problem.values()] if by_problem else [score.accuracy] * score.n
    )
    top = max(later, key=lambda one: one.scores[names[0]].accuracy)
    reached = top.scores[names[0]].accuracy
    best = expected_best(rates * score.k, score.n * score.k, len(later), reached)
    return {
        "benchmark": names[0],
        "rate": score.accuracy,
        "rates": "problem by problem"
        if by_problem
        else "one for all problems: the widest spread that this rate allows",
        "n": score.n,
        "k": score.k,
        "checkpoints": len(later),
        "best": reached,
        "best_step": top.step,
        "expected_best": best.expected,
        "probability": best.probability,
    }
