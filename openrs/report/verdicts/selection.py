"""The best of m checkpoints, chosen on the test set: what it scores although no checkpoint is better than the base."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openrs.evaluation.difficulty_model import fit_beta, problem_rates, widest_seed_sd
from openrs.evaluation.single_draws import expected_best, lead_of_best
from openrs.evaluation.statistics import Floats
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Score
from openrs.report.evidence.values import percent, points, probability

BENCHMARK = "aime24"
LARGEST = 20_000  # samples of an evaluation up to which the distribution is computed
ENOUGH = 8  # samples a problem, of all models together, from which rates are taken problem by problem


def of_paper() -> dict[str, Any]:
    """The best AIME24 score of the 21 evaluated checkpoints, if each were as good as the base (28.7, ten seeds).

    How far single draws spread depends on how much the problems differ in difficulty. `estimates`: beta models of the
    rates (difficulty_model) with the spread of the base's seeds, and with that of the study's six models pooled.
    `bound`: one rate for all problems, the widest spread that the mean allows.
    """
    rate, deviation, seeds = reference.reevaluation(reference.tree()["base"], BENCHMARK) or (0.0, 0.0, 0)
    every = [one for one in reference.logs() if one.benchmark == BENCHMARK]
    top = max(every, key=lambda one: one.accuracy)
    spreads = [("the base's own seeds", deviation), ("six models' seeds pooled", pooled_deviation(BENCHMARK))]

    def chosen(rates: float | Floats, spread: float, source: str) -> dict[str, Any]:
        best = expected_best(rates, top.n, len(every), top.accuracy)
        found = {"expected_best": best.expected, "probability": best.probability}
        return {"spread": source, "seed_sd": spread, **found}

    found = {
        "benchmark": BENCHMARK,
        "rate": rate,
        "rate_deviation": deviation,
        "rate_seeds": seeds,
        "n": top.n,
        "k": 1,
        "checkpoints": len(every),
        "best": top.accuracy,
        "best_model": top.model,
        "again": list(reference.reevaluation(top.model, BENCHMARK) or ()),
        "estimates": [chosen(problem_rates(fit_beta(rate, sd, top.n)), sd, source) for source, sd in spreads],
        "bound": chosen(rate, widest_seed_sd(rate, top.n), "one rate for all problems"),
        "scores": {
            experiment: [one.accuracy for one in every if one.experiment == experiment]
            for experiment in dict.fromkeys(one.experiment for one in every)
        },
    }
    return {**found, "said": _paper_said(found), "note": _paper_note(found)}


def _paper_said(best: dict[str, Any]) -> list[str]:
    """46.7 as the best of 21 draws: what choosing the best explains, and what these data cannot tell."""
    top, bound, estimates = percent(best["best"]), best["bound"], best["estimates"]
    low, high = (f"{100 * one['expected_best']:.0f}" for one in estimates)
    rare, often = (f"{100 * one['probability']:.0f}" for one in estimates)
    gain = sum(one["expected_best"] - best["rate"] for one in estimates) / len(estimates)
    again, _, seeds = best["again"]
    base, gap, most = percent(best["rate"]), best["best"] - best["rate"], percent(bound["probability"], 0)
    as_good = f"Were every checkpoint exactly as good as the base ({base} over {best['rate_seeds']} seeds),"
    return [
        f"{top} is the highest of {best['checkpoints']} single draws on AIME24 (n = {best['n']}, k = {best['k']}).",
        f"{as_good} the highest would be expected at {low} to {high}, at most at {percent(bound['expected_best'])}.",
        f"{top} or more would come up in about {rare} to {often} of 100 such papers, at most in {most}.",
        f"Choosing the best explains about {100 * gain:.0f} of the {100 * gap:.0f} points.",
        "Whether it explains all of them, these data cannot tell.",
        f"{seeds} new seeds of {best['best_model']} average {percent(again)}: {top} was a high draw.",
    ]


def _paper_note(best: dict[str, Any]) -> str:
    spreads = " and ".join(
        f"{percent(one['seed_sd'])} points ({one['spread']}: expected {percent(one['expected_best'])},"
        f" in {percent(one['probability'])} of 100)"
        for one in best["estimates"]
    )
    return (
        f"How far single draws spread decides. Measured: {spreads}; problem rates are a beta distribution of that"
        f" spread. At most: one rate for all problems, a spread of {percent(best['bound']['seed_sd'])} points, and the"
        f" base at exactly {percent(best['rate'])}."
    )


def pooled_deviation(benchmark: str) -> float:
    """Standard deviation over seeds of a benchmark, pooled over the models of arXiv 2504.07086 (equal seeds each)."""
    rows = reference.tree()["reevaluations"][0]["rows"]
    return math.sqrt(sum((row[benchmark][1] / 100) ** 2 for row in rows) / len(rows))


def of_run(run: RunData) -> dict[str, Any] | None:
    """A run's own checkpoints on AIME24, or on its first benchmark: how far the best of them leads the base.

    The probability is that of a lead as large when base and checkpoints are all equally good: then all their samples
    together tell the rates, and the base's score is as much luck as theirs. None with fewer than two checkpoints.
    """
    scored = run.base.scores if run.base else {}
    name = BENCHMARK if BENCHMARK in scored else next(iter(scored), "")
    if not name:
        return None
    score = scored[name]
    later = [(one, one.scores[name]) for one in run.later if name in one.scores]
    later = [(one, own) for one, own in later if (own.n, own.k) == (score.n, score.k)]
    if len(later) < 2 or score.n * score.k > LARGEST:
        return None
    top, best = max(later, key=lambda pair: pair[1].accuracy)
    scores = [score, *(own for _, own in later)]
    by_problem = common_rates(scores)
    mean = sum(one.accuracy for one in scores) / len(scores)
    rates = np.full(score.n, mean) if by_problem is None else by_problem
    ahead = best.accuracy - score.accuracy
    lead = lead_of_best(np.repeat(rates, score.k), len(later), round(ahead * score.n * score.k))
    found = {
        "benchmark": name,
        "rate": score.accuracy,
        "rates": "one for all problems, the widest spread" if by_problem is None else "problem by problem",
        "n": score.n,
        "k": score.k,
        "checkpoints": len(later),
        "best": best.accuracy,
        "best_step": top.step,
        "lead": ahead,
        "expected_lead": lead.expected,
        "expected_best": score.accuracy + lead.expected,
        "probability": lead.probability,
    }
    return {**found, "said": _run_said(found)}


def _run_said(best: dict[str, Any]) -> str:
    where = f"{reference.name(best['benchmark'])}, n = {best['n']}, k = {best['k']}"
    top, base, chance = percent(best["best"]), percent(best["rate"]), probability(best["probability"])
    return (
        f"{points(best['lead'])} points: so far the best of {best['checkpoints']} checkpoints (step"
        f" {best['best_step']}, {top}) leads the base ({base}; {where}). Were all exactly as good as the base, the best"
        f" would lead by {points(best['expected_lead'])} points on average, and as far as here with probability"
        f" {chance}. Rates of the problems: {best['rates']}."
    )


def common_rates(scores: Sequence[Score]) -> Floats | None:
    """[n] rates of the problems when all these evaluations are of equally good models; None with too few samples.

    Shares of N samples lie further apart than the rates behind them, which makes sampling look smaller than it is: they
    are drawn towards their mean until sum p (1 - p) is unbiased, N / (N - 1) times that of the shares.
    """
    marks: dict[str, list[int]] = {}
    for score in scores:
        for problem, own in score.per_problem.items():
            marks.setdefault(problem, []).extend(own)
    tries = len(scores) * scores[0].k
    if tries < ENOUGH or len(marks) != scores[0].n or any(len(own) != tries for own in marks.values()):
        return None
    share: Floats = np.array([sum(own) / tries for own in marks.values()])
    apart = float(((share - share.mean()) ** 2).sum())
    if not apart:
        return share
    kept = max(0.0, 1 - float((share * (1 - share)).sum()) / (tries - 1) / apart)
    drawn: Floats = share.mean() + math.sqrt(kept) * (share - share.mean())
    return drawn
