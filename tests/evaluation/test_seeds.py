"""Seeds of a training are the unit: error rates of the test over seeds, by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from openrs.errors import UserError
from openrs.evaluation.difficulty_model import problem_rates, sample_matrix, shifted
from openrs.evaluation.seeds import _quantile, _tail, over_seeds
from openrs.evaluation.statistics import paired_difference


def trainings(rng, rates, effect, spread, *, seeds=3, k=4, shared=True):
    """Base and checkpoint of each training, whose true differences lie around `effect` with deviation `spread`."""
    bases = [sample_matrix(rates, k, rng) for _ in range(1 if shared else seeds)] * (seeds if shared else 1)
    return bases, [sample_matrix(shifted(rates, effect + spread * rng.normal()), k, rng) for _ in range(seeds)]


@pytest.mark.parametrize("alpha", [0.05, 0.0167])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0, 5.0, 20.0, 100.0])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_quantile_errs_in_no_more_than_it_says_whatever_seeds_and_base_contribute(seeds, ratio, alpha):
    """Normal differences: seeds' variance `ratio` times the samples', a shared base of the samples' variance.

    Satterthwaite's degrees of freedom fail here: 6.1 % for 5, and 3.0 % for 1.67.
    """
    rng, runs = np.random.default_rng(8), 200_000
    own = (ratio + 1) / seeds
    estimated = np.maximum(own * rng.chisquare(seeds - 1, runs) / (seeds - 1), 1 / seeds)
    means = rng.normal(0, math.sqrt(own + 1), runs)
    wrong = means > _quantile(alpha, estimated, 1.0, seeds - 1) * np.sqrt(estimated + 1)
    assert wrong.mean() <= alpha + 3 * math.sqrt(alpha / runs)


def test_the_tail_is_the_inverse_of_the_quantile():
    for alpha in (0.3, 0.05, 0.0167, 0.001):
        for parts in ((1.0, 0.0, 2), (1.0, 1.0, 2), (0.1, 3.0, 4)):
            value = _quantile(alpha, *parts) * math.sqrt(parts[0] + parts[1])
            assert _tail(value, *parts) == pytest.approx(alpha, rel=1e-4)
            assert _tail(-value, *parts) == pytest.approx(1 - alpha, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("shared", [True, False])
def test_no_effect_is_called_a_rise_in_at_most_5_of_100_and_a_fall_as_well(spread, shared):
    rng, rates = np.random.default_rng(1), problem_rates(0.83, 0.02, 200)
    runs, up, down = 200, 0, 0
    for _ in range(runs):
        found = over_seeds(*trainings(rng, rates, 0.0, spread, shared=shared))
        up, down = up + (found.p_up < 0.05), down + (found.p_down < 0.05)
    bound = 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / runs)
    assert max(up, down) / runs <= bound, (up / runs, down / runs)


@pytest.mark.slow
def test_pooled_samples_alone_err_far_more_often():
    """Why the unit is the seed: the same trainings by a test whose only noise is that of samples and problems."""
    rng, rates = np.random.default_rng(2), problem_rates(0.83, 0.013, 500)
    runs, wrong = 100, 0
    for _ in range(runs):
        before, after = trainings(rng, rates, 0.0, 0.02, k=4)
        found = paired_difference(np.concatenate(after, axis=1), before[0], resamples=1)
        wrong += found.p_value < 0.05
    assert wrong / runs > 0.15


@pytest.mark.slow
def test_an_effect_of_the_margins_size_is_called_smaller_in_at_most_5_of_100():
    rng, rates = np.random.default_rng(3), problem_rates(0.83, 0.02, 200)
    runs, wrong = 120, 0
    for _ in range(runs):
        wrong += over_seeds(*trainings(rng, rates, 0.02, 0.005, k=8)).p_within(2) < 0.05
    assert wrong / runs <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / runs)


def test_by_hand_without_a_shared_base():
    """Differences 0.2, 0.4, 0.6 over ten problems of 1,000 samples: the sampling variance is far below theirs."""

    def matrix(share):
        return [[1] * round(1000 * share) + [0] * round(1000 * (1 - share))] * 10

    found = over_seeds([matrix(s) for s in (0.1, 0.2, 0.3)], [matrix(s) for s in (0.3, 0.6, 0.9)])
    assert found.by_seed == pytest.approx((0.2, 0.4, 0.6))
    assert (found.difference, found.own + found.common, found.freedom) == pytest.approx((0.4, 0.2**2 / 3, 2))
    assert found.common == 0
    assert found.p_up == pytest.approx(stats.ttest_1samp([0.2, 0.4, 0.6], 0, alternative="greater").pvalue)


def test_seeds_that_agree_by_chance_leave_a_doubt():
    rows = [[1, 0]] * 30
    found = over_seeds([rows] * 3, [[[1, 1]] * 30] * 3)
    assert found.own + found.common > 0.05**2
    assert found.interval.high > found.difference > found.interval.low


def test_one_training_is_refused():
    with pytest.raises(UserError, match="one training"):
        over_seeds([[[1]]], [[[0]]])
