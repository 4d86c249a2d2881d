"""How difficult the problems of a benchmark are, as far as its mean score and the spread over seeds tell.

A benchmark evaluated with one sample a problem scores differently from seed to seed. How much depends on the problems:
if all were solved at the same rate m, the standard deviation over seeds would be sqrt(m (1 - m) / n), the largest that
this mean allows; problems that are always or never solved add nothing. So mean and spread fix a distribution of rates
with two parameters, taken as a beta distribution here:

    var over seeds = sum_i p_i (1 - p_i) / n**2
    E[p (1 - p)] = m (1 - m) c / (c + 1)  with c = a + b, for p ~ Beta(a, b) of mean m

Sampling is the only noise in it: problems stay the same. Needs numpy and scipy only.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from openrs.errors import UserError
from openrs.evaluation.statistics import Floats

SMALLEST_SPREAD = 1e-3  # of the widest: below it a beta distribution sits on 0 and 1 so closely that nothing is random


def widest_seed_sd(mean: float, n_problems: int) -> float:
    """The largest standard deviation over seeds that a mean allows: one rate for all problems (Hoeffding 1956)."""
    return math.sqrt(mean * (1 - mean) / n_problems)


def problem_rates(mean: float, seed_sd: float, n_problems: int) -> Floats:
    """[n_problems] rates, hardest first, whose mean and spread over seeds are these (proportions, one sample each).

    Quantiles of a beta distribution at (i + 1/2) / n have nearly the right mean and spread; its parameters are adjusted
    until they are exact (to 1e-6 where the spread is not extreme). A spread at or above the widest possible one gives
    one rate for all problems. Raises UserError for a mean outside (0, 1), a spread of 0 or less, or no problem.
    """
    if not 0 < mean < 1 or not seed_sd > 0 or n_problems < 1:
        raise UserError(
            f"a mean of {mean} with a spread of {seed_sd} over {n_problems} problems tells no difficulties",
            fix="give a mean between 0 and 1, a standard deviation over seeds above 0, and at least one problem",
        )
    widest = widest_seed_sd(mean, n_problems)
    share = (max(seed_sd, SMALLEST_SPREAD * widest) / widest) ** 2
    if share >= 1:
        return np.full(n_problems, mean)
    concentration = share / (1 - share)
    places = (np.arange(n_problems) + 0.5) / n_problems

    def rates(logs: Floats) -> Floats:
        found: Floats = np.clip(stats.beta.ppf(places, *np.exp(logs)), 0.0, 1.0)
        return found

    def errors(logs: Floats) -> Floats:
        p = rates(logs)
        return np.array([p.mean() - mean, math.sqrt((p * (1 - p)).sum()) / n_problems - seed_sd])

    start = np.log([mean * concentration, (1 - mean) * concentration])
    solved = optimize.least_squares(errors, start, bounds=(start - 2, start + 2), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    return rates(solved.x)


def shifted(rates: Floats, difference: float) -> Floats:
    """The rates moved along the logit scale until their mean has changed by `difference` (a proportion).

    Problems that are sure to be solved or missed hardly move, those in between move most. A mean that cannot be reached
    is reached as nearly as it can be.
    """
    target = min(max(float(rates.mean()) + difference, 1e-6), 1 - 1e-6)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(rates) - np.log1p(-rates), -20.0, 20.0)

    def mean_error(by: float) -> float:
        return float((1 / (1 + np.exp(-(logits + by)))).mean()) - target

    by = float(optimize.brentq(mean_error, -60.0, 60.0, xtol=1e-9))
    moved: Floats = 1 / (1 + np.exp(-(logits + by)))
    return moved


def sample_matrix(rates: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[n_problems, k] zeros and ones: k samples of every problem, each right with the problem's rate."""
    return (rng.random((len(rates), k)) < rates[:, None]).astype(np.int64)
