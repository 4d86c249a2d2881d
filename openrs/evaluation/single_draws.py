"""Evaluations with one sample a problem: what the next one would score, and what the best of several gives.

Problems are fixed; sampling is the only noise, so the number of right answers has a Poisson-binomial distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from openrs.errors import UserError
from openrs.evaluation.statistics import LEVEL, Floats, Interval, Matrix, counts, sampling_error

ROUNDED = 0.0005  # published scores are rounded to a tenth of a point


@dataclass(frozen=True, slots=True)
class Best:
    """The best of m equally good checkpoints, each evaluated once: its score, or its lead over an equally good base.

    expected: the mean, a proportion. probability: of one as large as the one that was seen.
    """

    expected: float
    probability: float


def poisson_binomial(rates: Sequence[float] | Floats) -> Floats:
    """Exact distribution of the number of successes, [n + 1], when problem i succeeds with probability rates[i]."""
    chances = np.zeros(len(rates) + 1)
    chances[0] = 1.0
    for i, rate in enumerate(rates, 1):
        moved = chances[:i] * rate
        chances[:i] *= 1 - rate
        chances[1 : i + 1] += moved
    return chances


def new_draw(correct: Matrix) -> Floats:
    """[n + 1]: chances of 0 ... n right answers in one more evaluation, one sample a problem, of the measured model.

    The Poisson-binomial distribution at each problem's share of right samples; because the shares are themselves
    measured with k_i samples, noise of variance 2 p_i (1 - p_i) / (k_i - 1) is added, which makes the whole variance
    unbiased for a new run around them; its law is Student's t (sampling_error), since few samples tell little of it.
    Below four samples a problem the far tails are too thin (benchmarks/verdict_rates.py): p-values of 0.003 and less
    come up too often, so verdicts ask for four.
    Raises UserError for k = 1.
    """
    right, tries = counts(correct)
    n, share = len(right), right / tries
    if int(tries.min()) < 2:
        raise UserError(
            "one sample a problem tells nothing about a second run", fix="evaluate with --samples 2 or more"
        )
    chances = poisson_binomial(share)
    se, freedom = sampling_error(share, tries)
    if not se:
        return chances
    extra = math.sqrt(2) * n * se
    offsets = np.arange(-n, n + 1)
    law = stats.t(freedom)
    noise = law.cdf((offsets + 0.5) / extra) - law.cdf((offsets - 0.5) / extra)
    spread = np.convolve(chances, noise)
    chances = spread[n : 2 * n + 1].copy()
    chances[0] += spread[:n].sum()
    chances[-1] += spread[2 * n + 1 :].sum()
    whole: Floats = chances / chances.sum()
    return whole


def p_values(chances: Floats) -> Floats:
    """The p-value of every outcome: the chance of an outcome at most as likely, equal but for rounding included."""
    return np.array([min(1.0, chances[chances <= chance * (1 + 1e-9)].sum()) for chance in chances])


def middle_of(chances: Floats) -> Interval:
    """Where 95 of 100 outcomes lie, as proportions of n."""
    below, n = np.cumsum(chances), len(chances) - 1
    low = int(np.searchsorted(below, (1 - LEVEL) / 2, side="right"))
    high = int(np.searchsorted(below, (1 + LEVEL) / 2 - 1e-12))
    return Interval(low / n, min(high, n) / n)


def expected_best(rates: Sequence[float] | Floats, m: int, at_least: float) -> Best:
    """What choosing the best of m checkpoints on the test set gives although none is better than another.

    rates: probability of a right answer to each of n problems. With F the distribution of the number right,
    E[best] = sum_{x=0}^{n-1} (1 - F(x)**m) / n and P(best >= t) = 1 - F(t - 1)**m. at_least: a published score, rounded
    to a tenth of a point. One rate for all problems gives the largest spread, and so an upper bound: 44.8 for the
    paper's base (0.287) on AIME24 (30) and 21 checkpoints. What is likely takes the rates of the problems
    (difficulty_model): 38 to 40 with the spread that seeds of the base and of such models have.
    """
    n, below = len(rates), np.cumsum(poisson_binomial(rates))
    count = math.ceil((at_least - ROUNDED) * n)  # a published 46.7 % of 30 is 14, although 14.01 > 14
    chance = 1.0 if count <= 0 else float(1 - min(1.0, below[count - 1]) ** m) if count <= n else 0.0
    return Best(float((1 - below[:-1] ** m).sum() / n), chance)


def lead_of_best(rates: Sequence[float] | Floats, m: int, seen: int) -> Best:
    """The lead of the best of m checkpoints over their base when all m + 1 have the same rates.

    rates: one for each sample drawn of a model, [n k]. seen: right answers that the best had more than the base, a
    count, so that nothing is rounded. The base is drawn as the checkpoints are: its own score is luck too.
    P = sum_b f(b) (1 - F(b + seen - 1)**m), E = (E[max] - E[base]) / (n k).
    """
    chances = poisson_binomial(rates)
    total = len(chances) - 1
    below = np.concatenate([[0.0], np.minimum(1.0, np.cumsum(chances))])  # below[x]: fewer than x right
    reach = np.clip(np.arange(total + 1) + seen, 0, total + 1)
    probability = float((chances * (1 - below[reach] ** m)).sum())
    best = float((1 - below[1 : total + 1] ** m).sum())
    return Best((best - float(np.sum(rates))) / total, min(1.0, probability))


def count_of(score: float, n: int) -> int:
    """Right answers behind a score printed to a tenth of a point. Raises UserError where no whole number fits."""
    count = round(score * n)
    if not 0 <= count <= n or abs(score * n - count) > ROUNDED * n + 1e-9:
        raise UserError(f"{100 * score:.2f} % is no whole number of {n} problems answered once")
    return count
