"""Problem rates from a mean and a spread over seeds: both are met, and samples drawn from them show both."""

import math
import subprocess
import sys

import numpy as np
import pytest

from openrs.errors import UserError
from openrs.evaluation.difficulty_model import (
    problem_rates,
    sample_matrix,
    shifted,
    widest_seed_sd,
)


def cases(count: int) -> list[tuple[float, float, int]]:
    """Means, spreads as a share of the widest one, numbers of problems: all over what benchmarks have."""
    rng = np.random.default_rng(7)
    return [(rng.uniform(0.1, 0.9), rng.uniform(0.35, 0.95), int(rng.integers(20, 700))) for _ in range(count)]


@pytest.mark.parametrize(("mean", "share", "n"), cases(40))
def test_rates_have_the_mean_and_the_spread_that_were_asked_for(mean, share, n):
    spread = share * widest_seed_sd(mean, n)
    rates = problem_rates(mean, spread, n)
    assert len(rates) == n
    assert rates.mean() == pytest.approx(mean, abs=2e-4)
    assert math.sqrt((rates * (1 - rates)).sum()) / n == pytest.approx(spread, rel=5e-3)
    assert all(rates[:-1] <= rates[1:])


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_the_widest_spread_is_one_rate_for_all(factor):
    widest = widest_seed_sd(0.287, 30)
    assert widest == pytest.approx(0.0826, abs=1e-4)
    assert set(problem_rates(0.287, factor * widest, 30)) == {0.287}


def test_samples_show_mean_and_spread_of_the_papers_base():
    rates = problem_rates(0.287, 0.048, 30)
    scores = sample_matrix(rates, 40_000, np.random.default_rng(0)).mean(axis=0)
    assert scores.mean() == pytest.approx(0.287, abs=1e-3)
    assert scores.std() == pytest.approx(0.048, abs=1e-3)


@pytest.mark.parametrize("by", [-0.04, 0.0, 0.05])
def test_a_shift_moves_the_mean_and_leaves_sure_problems_sure(by):
    rates = np.array([0.0, 0.1, 0.5, 0.9, 1.0] * 6)
    moved = shifted(rates, by)
    assert moved.mean() == pytest.approx(rates.mean() + by, abs=1e-6)
    assert moved[0] < 1e-6
    assert moved[4] > 1 - 1e-6


@pytest.mark.parametrize(("mean", "spread", "n"), [(0.0, 0.1, 30), (1.0, 0.1, 30), (0.5, 0.0, 30), (0.5, 0.1, 0)])
def test_what_tells_no_difficulties_is_refused(mean, spread, n):
    with pytest.raises(UserError):
        problem_rates(mean, spread, n)


@pytest.mark.slow
def test_it_needs_no_torch():
    code = "import sys, openrs.evaluation.difficulty_model; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
