"""A training repeated with several seeds: the seed is the unit, not the sample and not the problem.

Two trainings of one recipe differ by more than the samples of their evaluations do. Pooling all samples takes the
trainings that were made as all there are; a statement on the recipe has to count how far they lie apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from openrs.errors import UserError
from openrs.evaluation.statistics import LEVEL, Interval, Matrix, counts, sampling_error


@dataclass(frozen=True, slots=True)
class SeedEffect:
    """Mean difference after - before over seeds (proportions). p_up, p_down: one-sided, of no rise and of no fall.

    own: variance of the mean over seeds, with `freedom` degrees of freedom; common: that of what all seeds share.
    """

    difference: float
    by_seed: tuple[float, ...]
    own: float
    common: float
    freedom: int
    interval: Interval
    p_up: float
    p_down: float

    def p_within(self, margin_points: float) -> float:
        """TOST: p-value of the hypothesis that the difference is at least margin_points percentage points."""
        margin, parts = margin_points / 100, (self.own, self.common, self.freedom)
        return max(_tail(side, *parts) for side in (margin - self.difference, margin + self.difference))


def over_seeds(before: Sequence[Matrix], after: Sequence[Matrix]) -> SeedEffect:
    """Is there a difference over seeds? before, after: one matrix a seed, the same problems; two or more seeds.

    The variance of the mean has two parts: that of the seeds' differences (never taken below their sampling variance:
    seeds that agree by chance are no proof), estimated with seeds - 1 degrees of freedom; and, where seeds share one
    evaluation of the base, its sampling variance, for its luck is in every difference. Quantiles are Cochran's, the
    mean of Student's and the normal one weighted by the parts: Satterthwaite's degrees of freedom err in 6 of 100 where
    5 are allowed, and in 3 where it is 1.7, for they grow just when the seeds happen to agree.
    Raises UserError for fewer than two seeds.
    """
    if len(before) != len(after) or len(after) < 2:
        raise UserError("one training tells nothing of how far trainings lie apart", fix="train with two seeds or more")
    means = [[_mean(matrix) for matrix in side] for side in (before, after)]
    by_seed = [new - old for old, new in zip(*means, strict=True)]
    different = {tuple(tuple(row) for row in matrix) for matrix in before}
    shared = len(different) < len(before)
    noise_before, noise_after = ([_sampling_variance(matrix) for matrix in side] for side in (before, after))
    floor = float(np.mean(noise_after)) + (0.0 if shared else float(np.mean(noise_before)))
    own = max(float(np.var(by_seed, ddof=1)), floor, 1e-12) / len(by_seed)
    parts = (own, max(noise_before) if shared else 0.0, len(by_seed) - 1)
    mean, half = float(np.mean(by_seed)), _quantile((1 - LEVEL) / 2, *parts) * math.sqrt(parts[0] + parts[1])
    interval = Interval(max(-1.0, mean - half), min(1.0, mean + half))
    return SeedEffect(mean, tuple(by_seed), *parts, interval, _tail(mean, *parts), _tail(-mean, *parts))


def _quantile(alpha: float, own: float, common: float, freedom: int) -> float:
    """Cochran's upper quantile (Cochran and Cox 1957): of t for the seeds' part, normal for the common part."""
    student, normal = float(stats.t.isf(alpha, freedom)), float(stats.norm.isf(alpha))
    return (own * student + common * normal) / (own + common)


def _tail(value: float, own: float, common: float, freedom: int) -> float:
    """One-sided p-value of a mean this far above 0."""
    if value < 0:
        return 1 - _tail(-value, own, common, freedom)
    reached = value / math.sqrt(own + common)
    if _quantile(1e-12, own, common, freedom) <= reached:
        return 1e-12
    return float(optimize.brentq(lambda alpha: _quantile(alpha, own, common, freedom) - reached, 1e-12, 0.5, xtol=1e-9))


def _mean(matrix: Matrix) -> float:
    right, tries = counts(matrix)
    return float((right / tries).mean())


def _sampling_variance(matrix: Matrix) -> float:
    """Variance of a mean by sampling alone; with one sample a problem its upper bound, one rate for all problems."""
    right, tries = counts(matrix)
    share = right / tries
    if int(tries.min()) < 2:
        return float(share.mean() * (1 - share.mean()) / len(share))
    return sampling_error(share, tries)[0] ** 2
