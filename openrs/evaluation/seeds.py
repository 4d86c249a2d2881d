"""A training repeated with several seeds: the seed is the unit, not the sample and not the problem.

Two trainings of one recipe differ by more than the samples of their evaluations do. Pooling all samples takes the
trainings that were made as all there are; a statement on the recipe has to count how far they lie apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from openrs.errors import UserError
from openrs.evaluation.statistics import LEVEL, Interval, Matrix, counts, sampling_error


@dataclass(frozen=True, slots=True)
class SeedEffect:
    """Mean difference after - before over seeds (proportions). p_up, p_down: one-sided, of no rise and of no fall."""

    difference: float
    by_seed: tuple[float, ...]
    se: float
    freedom: float
    interval: Interval
    p_up: float
    p_down: float

    def p_within(self, margin_points: float) -> float:
        """TOST: p-value of the hypothesis that the difference is at least margin_points percentage points."""
        law, margin = stats.t(self.freedom), margin_points / 100
        up, down = (self.difference - margin) / self.se, (self.difference + margin) / self.se
        return float(max(law.cdf(up), law.sf(down)))


def over_seeds(before: Sequence[Matrix], after: Sequence[Matrix]) -> SeedEffect:
    """Student's t over seeds. before, after: one matrix a seed, the same problems; two or more seeds.

    se**2 = max(variance of the seeds' differences, their sampling variance) / seeds, plus the sampling variance of
    `before` where seeds share it (one evaluation of the base serves them all, and its luck is in every difference).
    The sampling variance is a floor: seeds that agree by chance are no proof. Degrees of freedom: seeds - 1 for the
    first part, infinite for the second, together Satterthwaite's.
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
    common = max(noise_before) if shared else 0.0
    se, freedom = math.sqrt(own + common), (len(by_seed) - 1) * ((own + common) / own) ** 2
    mean, law = float(np.mean(by_seed)), stats.t(freedom)
    half = float(law.ppf((1 + LEVEL) / 2)) * se
    interval = Interval(max(-1.0, mean - half), min(1.0, mean + half), "Student's t over seeds")
    return SeedEffect(mean, tuple(by_seed), se, freedom, interval, float(law.sf(mean / se)), float(law.cdf(mean / se)))


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
