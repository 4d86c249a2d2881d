"""Figures against hand-made matrices and other people's implementations; coverage by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from openrs.errors import UserError
from openrs.evaluation.statistics import (
    avg_at_k,
    equivalent,
    equivalent_to_published,
    holm,
    majority,
    p_against,
    paired_difference,
    pass_at_k,
    t_quantile,
    t_tail,
)

HAND = [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]  # shares 1/2, 1, 0, 1/4


def once(right: int, n: int) -> list[list[int]]:
    return [[1]] * right + [[0]] * (n - right)


def test_quantiles_and_tails_are_scipys_to_the_bit():
    dice = np.random.default_rng(3)
    for law, freedom in ((stats.norm(), None), *((stats.t(n), n) for n in (1, 1.7, 29, 499, math.inf))):
        for chance, value in zip(dice.random(50).tolist(), (dice.normal(size=50) * 4).tolist(), strict=True):
            assert t_quantile(chance, freedom) == law.ppf(chance)
            assert t_tail(value, freedom) == law.sf(value) == law.cdf(-value)


def test_avg_and_both_standard_errors_by_hand():
    score = avg_at_k(HAND)
    assert score.value == pytest.approx(0.4375)
    # sampling only: (1/4 + 0 + 0 + 3/16) / 3 / 16
    assert score.se_fixed == pytest.approx(math.sqrt((0.25 + 0.1875) / 3 / 16))
    # over problems: sum of squares 0.00390625 + 0.31640625 + 0.19140625 + 0.03515625 over 4 * 3
    assert score.se_problems == pytest.approx(math.sqrt(0.546875 / 12))
    assert score.fixed.low < score.value < score.fixed.high
    assert score.problems.high - score.problems.low > score.fixed.high - score.fixed.low


@pytest.mark.parametrize(
    ("right", "n", "stderr"),
    [(14, 30, 0.09264111117062017), (9, 30, 0.0850962943396763), (427, 500, 0.01580720517583485)],
)
def test_standard_error_of_one_sample_is_that_of_the_authors_logs(right, n, stderr):
    score = avg_at_k(once(right, n))
    assert score.se_problems == pytest.approx(stderr, rel=1e-12)
    assert score.se_fixed is None


def test_one_sample_interval_is_wilson():
    wilson = stats.binomtest(14, 30).proportion_ci(method="wilson")
    score = avg_at_k(once(14, 30))
    for interval in (score.problems, score.fixed):
        assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("right", [0, 30])
def test_scores_at_the_edge_keep_a_width(right):
    for k in (1, 10):
        score = avg_at_k([[int(i < right)] * k for i in range(30)])
        assert score.value == right / 30
        assert 0.1 < score.problems.high - score.problems.low < 0.15
        assert score.fixed.high - score.fixed.low > 0.01


def test_problems_that_came_out_alike_leave_a_doubt():
    """Equal shares give a spread of 1e-17, nearly equal ones of next to nothing: neither makes a score certain."""
    from scipy import stats

    alike = avg_at_k([[1, 1, 1] + [0] * 7] * 30)
    t = stats.t.ppf(0.975, 29)
    centre, half = (0.3 + t * t / 60) / (1 + t * t / 30), t / (1 + t * t / 30) * (0.21 / 30 + t * t / 3600) ** 0.5
    assert (alike.problems.low, alike.problems.high) == pytest.approx((centre - half, centre + half))
    nearly = avg_at_k([[1, 1, 1] + [0] * 7] * 29 + [[1] * 4 + [0] * 6])
    assert nearly.problems.high - nearly.problems.low == pytest.approx(2 * t * (0.212 / 300) ** 0.5, rel=0.02)


def test_numbers_of_samples_may_differ():
    score = avg_at_k([[1, 0], [1, 1, 1, 0], [0]])
    assert score.value == pytest.approx((0.5 + 0.75 + 0) / 3)
    assert score.se_fixed is None


@pytest.mark.parametrize("bad", [[], [[]], [[1], []], [[2]], [[0.5]], [[None]], [[float("nan")]]])
def test_what_is_no_matrix_of_verdicts_is_refused(bad):
    with pytest.raises(UserError):
        avg_at_k(bad)


def test_pass_at_k_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(1)
    correct = rng.integers(0, 2, (5, 6))
    from itertools import combinations

    for k in range(1, 7):
        by_hand = np.mean([np.mean([max(subset) for subset in combinations(row, k)]) for row in correct])
        assert pass_at_k(correct, k) == pytest.approx(by_hand, abs=1e-12)
    assert pass_at_k(HAND, 1) == pytest.approx(avg_at_k(HAND).value)
    assert pass_at_k([[0] * 999 + [1]], 500) == pytest.approx(0.5)


def test_majority():
    answers = [["7", "7", "8"], ["1", "2", "2"], ["1", "2", None], [None, None, None], [None, None, "5"]]
    correct = [[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert majority(answers, correct) == pytest.approx((1 + 0 + 0.5 + 0 + 1) / 5)


def test_paired_difference_by_hand_and_by_enumeration():
    a = [[1, 1], [1, 0], [1, 1], [0, 0], [1, 0], [1, 1]]
    b = [[0, 1], [1, 0], [0, 0], [0, 1], [0, 0], [1, 0]]
    d = np.array([0.5, 0, 1, -0.5, 0.5, 0.5])
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(2 / 6)
    assert found.se == pytest.approx(d.std(ddof=1) / math.sqrt(6))
    sums = [abs(np.dot(signs, d)) for signs in product((1, -1), repeat=6)]
    assert found.p_value == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-12))
    assert (found.n, found.k) == (6, (2, 2))
    back = paired_difference(b, a)
    assert back.difference == -found.difference
    assert back.p_value == found.p_value


def test_interval_of_the_difference_is_the_expanded_bootstrap():
    """Against the exact bootstrap distribution: the mean of 30 draws from 9 times +1, 3 times -1 and 18 times 0."""
    a, b = [[1]] * 9 + [[0]] * 21, [[0]] * 9 + [[1]] * 3 + [[0]] * 18
    chances = np.ones(1)
    for _ in range(30):
        chances = np.convolve(chances, [3 / 30, 18 / 30, 9 / 30])
    low, high = ((np.searchsorted(np.cumsum(chances), tail) - 30) / 30 for tail in (0.025, 0.975))
    wider = math.sqrt(30 / 29) * stats.t.ppf(0.975, 29) / stats.norm.ppf(0.975)
    found = paired_difference(a, b, resamples=40_000).interval
    assert found.low == pytest.approx(0.2 + (low - 0.2) * wider - 1 / 60)
    assert found.high == pytest.approx(0.2 + (high - 0.2) * wider + 1 / 60)


def test_sign_flip_of_single_samples_is_mcnemars_exact_test():
    a = [[1]] * 12 + [[0]] * 3 + [[1]] * 15
    b = [[0]] * 12 + [[1]] * 3 + [[1]] * 15
    assert paired_difference(a, b).p_value == pytest.approx(stats.binomtest(12, 15).pvalue)


def test_sign_flip_is_exact_for_large_benchmarks_and_sampled_where_it_cannot_be():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2, (675, 10)), rng.integers(0, 2, (675, 3))
    assert paired_difference(a, b).p_value * 20_001 % 1 > 1e-6  # of 20,000 drawn it would be a multiple
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41]
    ragged = [rng.integers(0, 2, n).tolist() for n in primes]
    again = [rng.integers(0, 2, n).tolist() for n in primes]
    drawn = paired_difference(ragged, again)
    assert drawn.p_value * 20_001 == pytest.approx(round(drawn.p_value * 20_001))
    d = np.array([np.mean(x) - np.mean(y) for x, y in zip(ragged, again, strict=True)])
    sums = np.abs(np.array(list(product((1, -1), repeat=13))) @ d)
    assert drawn.p_value == pytest.approx(np.mean(sums >= abs(d.sum()) - 1e-12), abs=0.015)


def test_equal_models_differ_by_nothing_but_not_for_sure():
    same = paired_difference(once(14, 30), once(14, 30))
    assert (same.difference, same.p_value) == (0, 1)
    assert same.interval.high == pytest.approx(stats.norm.ppf(0.975) ** 2 / (30 + stats.norm.ppf(0.975) ** 2))
    assert not equivalent(once(14, 30), once(14, 30), 3).equivalent


def test_a_difference_that_is_the_same_everywhere_is_no_certainty():
    """3/10 - 2/10 is not 4/10 - 3/10 to the last bit: no spread was seen all the same, so nothing is proven."""

    def tens(*counts):
        return [[1] * count + [0] * (10 - count) for count in counts]

    a, b = tens(*(3, 4, 5) * 10), tens(*(2, 3, 4) * 10)
    found = paired_difference(a, b)
    z = stats.norm.ppf(0.975) ** 2
    assert found.interval.high - found.interval.low == pytest.approx(2 * z / (30 + z))
    assert not equivalent(a, b, 20).equivalent


def test_unpaired_evaluations_are_refused():
    with pytest.raises(UserError, match="30 and 40 problems"):
        paired_difference(once(1, 30), once(1, 40))


def test_holm():
    # 0.01 * 3, max(0.03, 0.02 * 2), max(0.04, 0.2)
    assert holm({"a": 0.02, "b": 0.01, "c": 0.2}) == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.2})
    assert holm({}) == {}


def test_equivalence_is_the_paired_tost_of_statsmodels():
    from statsmodels.stats.weightstats import ttost_paired

    rng = np.random.default_rng(5)
    rates = rng.beta(0.4, 0.8, 60)
    a, b = (np.array([rng.binomial(1, p, 10) for p in rates]) for _ in range(2))
    found = equivalent(a, b, 5)
    assert found.p_value == pytest.approx(ttost_paired(a.mean(1), b.mean(1), -0.05, 0.05)[0])
    assert equivalent(a, b, 20).equivalent
    assert not equivalent(a, b, 0.1).equivalent


def test_equivalence_to_a_published_mean():
    correct = [[1, 0] * 5] * 30  # 50 %, se_fixed = sqrt(30 * 0.25 / 9) / 30
    se = math.sqrt(30 * 0.25 / 9) / 30 * math.sqrt(1 + 10 / 5)
    found = equivalent_to_published(correct, 0.51, 5, 12)
    # 30 problems alike with 9 degrees of freedom each
    assert found.p_value == pytest.approx(stats.t(270).sf((-0.01 + 0.12) / se))
    assert found.equivalent
    assert not equivalent_to_published(correct, 0.51, 5, 6).equivalent
    with pytest.raises(UserError, match="own noise"):
        equivalent_to_published(once(3, 30), 0.1, 3, 4)
    with pytest.raises(UserError, match="margin"):
        equivalent(correct, correct, 0)


# --- coverage of 95 % intervals, within Monte-Carlo error ----------------------------------------------------------


def aime(rng: np.random.Generator, n: int) -> np.ndarray:
    """Many problems that are never solved, some that always are, 29 % on average."""
    return rng.beta(0.35, 0.85, n)


def math_500(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.beta(1.6, 0.3, n)


def draw(rng: np.random.Generator, rates: np.ndarray, k: int) -> np.ndarray:
    return (rng.random((len(rates), k)) < rates[:, None]).astype(int)


def close(hits: int, runs: int, low: float = 0.95, high: float = 0.95) -> bool:
    """Whether the share is between low and high, give or take three Monte-Carlo errors and a point for discreteness."""
    error = 3 * math.sqrt(0.95 * 0.05 / runs) + 0.01
    return low - error <= hits / runs <= high + error


@pytest.mark.parametrize(
    ("kind", "mean", "n", "k"), [(aime, 0.35 / 1.2, 30, 1), (aime, 0.35 / 1.2, 30, 10), (math_500, 1.6 / 1.9, 500, 3)]
)
def test_interval_over_problems_covers(kind, mean, n, k):
    rng = np.random.default_rng(11)
    runs = 1000 if n < 100 else 400
    hits = 0
    for _ in range(runs):
        interval = avg_at_k(draw(rng, kind(rng, n), k)).problems
        hits += interval.low <= mean <= interval.high
    assert close(hits, runs), hits / runs


@pytest.mark.slow
@pytest.mark.parametrize(("k", "seed"), [(3, 0), (10, 1), (64, 2)])
def test_equivalence_to_three_published_seeds_errs_in_at_most_5_of_100(k, seed):
    """The truth is the margin away: `equivalent` is wrong. The published mean is that of three single draws."""
    rng, rates = np.random.default_rng(seed), math_500(np.random.default_rng(9), 500)
    runs, wrong = 400, 0
    for _ in range(runs):
        published = draw(rng, rates, 3).mean() + 0.02
        wrong += equivalent_to_published(draw(rng, rates, k), published, 3, 2).equivalent
    assert wrong / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs), wrong / runs


def undecided(rng: np.random.Generator, n: int) -> np.ndarray:
    """Half of the problems nearly never solved, a fifth nearly always: few are left to tell the noise."""
    kind, rest = rng.random(n), rng.random(n)
    return np.where(kind < 0.55, 0.01 * rest, np.where(kind < 0.73, 1 - 0.02 * rest, rest))


@pytest.mark.parametrize("n", [30, 40])
def test_interval_for_fixed_problems_with_two_samples_is_not_too_narrow(n):
    rng = np.random.default_rng(21)
    runs, hits = 1500, 0
    for _ in range(runs):
        rates = undecided(rng, n)
        interval = avg_at_k(draw(rng, rates, 2)).fixed
        hits += interval.low <= rates.mean() <= interval.high
    assert hits / runs > 0.95


@pytest.mark.parametrize("number", [0.1, 0.3, 0.45, 0.6])
def test_the_p_value_against_a_number_is_the_dual_of_the_interval(number):
    rng = np.random.default_rng(22)
    for k in (1, 2, 4, 16):
        for _ in range(20):
            correct = draw(rng, aime(rng, 30), k)
            interval = avg_at_k(correct).fixed
            assert (p_against(correct, number) < 0.05) == (not interval.low <= number <= interval.high)


@pytest.mark.parametrize(("kind", "n", "k"), [(aime, 30, 10), (aime, 30, 4), (math_500, 500, 3)])
def test_interval_for_fixed_problems_covers(kind, n, k):
    rng = np.random.default_rng(12)
    runs = 1000 if n < 100 else 400
    hits = 0
    for _ in range(runs):
        rates = kind(rng, n)
        interval = avg_at_k(draw(rng, rates, k)).fixed
        hits += interval.low <= rates.mean() <= interval.high
    assert close(hits, runs), hits / runs


def test_interval_of_one_sample_is_never_too_narrow_for_fixed_problems():
    rng = np.random.default_rng(13)
    rates = aime(rng, 30)
    hits = 0
    for _ in range(500):
        interval = avg_at_k(draw(rng, rates, 1)).fixed
        hits += interval.low <= rates.mean() <= interval.high
    assert hits / 500 > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(30, 1), (30, 10), (500, 3)])
def test_interval_of_the_difference_covers(n, k):
    rng = np.random.default_rng(14)
    runs = 500 if n < 100 else 200
    hits = 0
    for _ in range(runs):
        rates = aime(rng, n)
        better = rates + 0.2 * rates * (1 - rates)
        found = paired_difference(draw(rng, better, k), draw(rng, rates, k), resamples=400)
        hits += found.interval.low <= 0.2 * 0.35 * 0.85 / (1.2 * 2.2) <= found.interval.high
    assert close(hits, runs, high=0.97), hits / runs


@pytest.mark.slow
def test_permutation_p_value_is_honest_under_no_difference():
    rng = np.random.default_rng(15)
    runs = 1000
    small = 0
    for _ in range(runs):
        rates = aime(rng, 30)
        small += paired_difference(draw(rng, rates, 4), draw(rng, rates, 4), resamples=1).p_value <= 0.05
    assert 0.02 < small / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
