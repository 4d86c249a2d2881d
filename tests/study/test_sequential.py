"""Sequential looks against published tables, full enumeration, independent integration, and the fixed-sample rules."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from openrs.evaluation.statistics import avg_at_k, paired_difference
from openrs.study import sequential
from openrs.study.sequential import boundaries, flip_boundaries, flip_p, normal_p, spent

EQUAL = {looks: tuple(i / looks for i in range(1, looks + 1)) for looks in range(1, 6)}
# Lan-DeMets spending of O'Brien-Fleming type, 0.025 a side, equal looks, as R packages print it: gsDesign (sfLDOF, four
# looks, six decimals) and rpact (asOF, three decimals).
PUBLISHED = {
    1: [1.960],
    2: [2.963, 1.969],
    3: [3.710, 2.511, 1.993],
    4: [4.332634, 2.963131, 2.359044, 2.014090],
    5: [4.877, 3.357, 2.680, 2.290, 2.031],
}


@pytest.mark.parametrize("looks", PUBLISHED)
def test_boundaries_are_those_of_the_published_tables(looks):
    assert boundaries(EQUAL[looks], 0.025) == pytest.approx(PUBLISHED[looks], abs=2e-6 if looks == 4 else 6e-4)


@pytest.mark.parametrize("side", [0.025, 0.05 / 6])
def test_boundaries_spend_what_is_allowed_by_another_integration(side):
    """scipy's multivariate normal integral knows no recursion: P(below all boundaries so far) = 1 - spent."""
    times = (0.4, 0.55, 0.8, 1.0)
    bounds = boundaries(times, side)
    law = np.sqrt([[min(a, b) / max(a, b) for a in times] for b in times])
    for look in (2, 4):
        below = stats.multivariate_normal(cov=law[:look, :look], seed=0, abseps=1e-5).cdf(bounds[:look])
        assert 1 - below == pytest.approx(float(spent(times[look - 1], side)), abs=2e-5)


def test_spending_says_how_little_a_first_look_may_spend():
    assert 2 * spent(0.25, 0.025) == pytest.approx(1.5e-5, rel=0.03)
    assert 2 * spent(1.0, 0.025) == pytest.approx(0.05)


def test_the_price_of_looking():
    bound, p_value = sequential.last_boundary(EQUAL[4])
    assert (round(bound, 3), round(p_value, 4)) == (2.014, 0.044)
    assert sequential.last_boundary([1.0]) == pytest.approx((1.95996, 0.05), abs=1e-5)


# --- exactness --------------------------------------------------------------------------------------------------------


def enumerated(sizes, times, alpha):
    """Every sign of every problem and round: boundaries and alpha spent, with no convolution and no absorption."""
    flat = np.array(list(itertools.product((-1, 1), repeat=sizes.size))).reshape(-1, *sizes.shape)
    sums = np.abs((flat * sizes).sum(axis=2).cumsum(axis=1))
    going, used, bounds, chances = np.ones(len(sums), dtype=bool), 0.0, [], []
    for look, t in enumerate(times):
        allowed = 2 * float(spent(t, alpha / 2)) - used
        tails = [(x, (going & (sums[:, look] >= x)).mean()) for x in range(1, int(sums.max()) + 2)]
        bound, tail = next((x, tail) for x, tail in tails if tail <= allowed + 1e-12)
        going &= sums[:, look] < bound
        used += tail
        bounds.append(bound)
        chances.append(1 - going.mean())
    return bounds, chances


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.9])
def test_exact_flips_are_what_full_enumeration_gives(alpha):
    rng = np.random.default_rng(5)
    checked = 0
    for n, rounds in [(1, 2), (2, 2), (3, 2), (4, 2), (4, 1), (3, 3)]:
        for _ in range(6):
            sizes, times = rng.integers(0, 3, (rounds, n)), np.sort(rng.uniform(0.3, 1.0, rounds))
            bounds, chances = flip_boundaries(sizes[None] * rng.choice([-1, 1], sizes.shape), times, alpha)
            expected = enumerated(sizes, times, alpha)
            reach = np.abs(sizes).sum()
            assert np.minimum(bounds[0], reach + 1).tolist() == np.minimum(expected[0], reach + 1).tolist()
            assert chances[0] == pytest.approx(expected[1], abs=1e-11)
            checked += any(chance > 0 for chance in chances[0])
    assert checked > 3 or alpha == 0.05  # with four problems nothing is rejected at 0.05


def test_unspent_alpha_is_carried_on():
    """At the first look no sum is rare enough; the second may then spend all that was allowed by then."""
    sizes = np.array([[1, 1, 1], [1, 1, 1]])
    bounds, used = flip_boundaries(sizes[None], (0.5, 1.0), 0.2)
    assert bounds[0, 0] > 3
    assert used[0, 0] == pytest.approx(0, abs=1e-12)
    assert used[0, 1] == pytest.approx(2 / 64)  # six of one sign; 14/64 would be above 0.2


def test_trials_of_one_call_do_not_change_each_other():
    rng = np.random.default_rng(2)
    differences = rng.integers(-9, 10, (7, 3, 50)) * (rng.random((7, 1, 50)) < np.linspace(0.1, 1, 7)[:, None, None])
    together, used = flip_boundaries(differences, EQUAL[3])
    for i, one in enumerate(differences):
        alone, own = flip_boundaries(one[None], EQUAL[3])
        reach = np.abs(one).sum()
        assert np.minimum(alone[0], reach + 1).tolist() == np.minimum(together[i], reach + 1).tolist()
        assert own[0] == pytest.approx(used[i], abs=1e-11)


# --- repeated p-values ------------------------------------------------------------------------------------------------


def marks(rng, n, k, gain=0.0):
    rates = rng.beta(0.4, 0.6, n)
    return tuple((rng.random((n, k)) < np.clip(p, 0, 1)[:, None]).astype(int) for p in (rates + gain, rates))


@pytest.mark.parametrize(("n", "k"), [(30, 1), (30, 16), (40, 5), (272, 4)])
def test_with_a_single_look_the_repeated_p_value_is_the_fixed_one(n, k):
    after, before = marks(np.random.default_rng(n + k), n, k, 0.05)
    fixed = paired_difference(after, before, resamples=2)
    assert flip_p((after - before).sum(axis=1)[None], (1.0,)) == pytest.approx(fixed.p_value, abs=1e-10)
    assert normal_p(fixed.p_value, (1.0,)) == pytest.approx(fixed.p_value, rel=1e-9)


def test_a_repeated_p_value_is_below_a_level_exactly_when_its_test_rejects():
    """Of Holm's levels none is missed, for sums that move from no to overwhelming evidence."""
    times, rng = (0.4, 0.6, 0.8, 1.0), np.random.default_rng(1)
    rejected = 0
    for gain in np.linspace(0, 0.15, 8):
        after, before = marks(rng, 40, 20, gain)
        edges = [0, 8, 12, 16, 20]
        sums = [(after - before)[:, a:b].sum(axis=1) for a, b in itertools.pairwise(edges)]
        for look in (2, 4):
            differences = np.array(sums[:look])
            p_value = flip_p(differences, times[:look])
            for level in (0.05, 0.025, 0.05 / 3, 0.01):
                bound = flip_boundaries(differences[None], times[:look], level)[0][0, -1]
                assert (p_value <= level) == (abs(differences.sum()) >= bound)
                rejected += p_value <= level
    assert 10 < rejected < 60


def test_normal_p_inverts_the_boundaries():
    times = (0.4, 0.7, 1.0)
    for look in (1, 2, 3):
        for side in (0.2, 0.05, 0.025, 1e-4):
            bound = boundaries(times[:look], side)[-1]
            assert normal_p(float(stats.norm.sf(bound)), times[:look]) == pytest.approx(side, rel=1e-4)
    assert normal_p(1.0, times) == 1.0
    assert normal_p(1e-300, times) == sequential.SMALLEST


def test_no_more_errors_than_allowed_at_any_look_in_small():
    """20,000 trials of every condition are in benchmarks/study_simulation.py; here 600 null trials of 30 problems."""
    rng, times = np.random.default_rng(3), EQUAL[4]
    rates = rng.beta(0.3, 0.5, 30)
    differences = rng.binomial(4, rates, (600, 4, 30)) - rng.binomial(4, rates, (600, 4, 30))
    bounds, used = flip_boundaries(differences, times)
    allowed = 2 * spent(np.array(times), 0.025)
    assert (used <= allowed + 1e-11).all()  # given the absolute values, in every single trial
    assert used[:, -1].mean() > 0.03  # and it is spent
    hit = np.abs(differences.sum(axis=2).cumsum(axis=1)) >= bounds
    assert np.logical_or.accumulate(hit, axis=1).mean(axis=0)[-1] < 0.05 + 3 * 0.009


# --- at the stop ------------------------------------------------------------------------------------------------------


def test_intervals_of_one_look_are_the_fixed_ones():
    rng = np.random.default_rng(8)
    for k in (1, 2, 8):
        after, before = marks(rng, 40, k, 0.1)
        tail = sequential.last_boundary([1.0])[1] / 2
        fixed = avg_at_k(after).fixed
        assert sequential.score_bounds(after.sum(axis=1), k, tail) == pytest.approx((fixed.low, fixed.high), abs=1e-9)
        low, high = sequential.difference_bounds(after.sum(axis=1), before.sum(axis=1), k, tail)
        assert low < after.mean() - before.mean() < high


def test_problems_that_tell_no_noise_leave_the_interval_a_width():
    solved, missed = np.full(30, 8), np.zeros(30, dtype=int)
    low, high = sequential.difference_bounds(solved, solved, 8, 0.025)
    assert low < -0.01
    assert high > 0.01
    assert sequential.difference_bounds(solved, missed, 8, 0.025)[0] < 1.0


def test_the_estimate_at_the_stop_is_as_often_too_high_as_too_low():
    """Paths of the estimated effect: half of them end further up in the order by stages."""
    times, se = (0.4, 0.7, 1.0), 0.02
    for look, value in ((2, 0.06), (3, 0.045), (3, 0.01)):
        at = sequential.unbiased_estimate(value, se, times[:look])
        scale = se * np.sqrt(times[look - 1])
        rng = np.random.default_rng(look)
        steps = np.diff(np.array(times[:look]), prepend=0)
        paths = np.cumsum(rng.normal(at / scale * steps, np.sqrt(steps), (200_000, look)), axis=1)
        z, bounds = paths / np.sqrt(times[:look]), np.array(boundaries(times[:look]))
        crossed = np.abs(z[:, :-1]) >= bounds[:-1]
        first = crossed.argmax(axis=1)
        earlier = crossed.any(axis=1)
        up = np.where(earlier, z[np.arange(len(z)), first] > 0, z[:, -1] >= value / se)
        assert up.mean() == pytest.approx(0.5, abs=0.005)
    assert sequential.unbiased_estimate(0.06, 0.02, times[:1]) == 0.06
    assert sequential.unbiased_estimate(0.3, 0.01, (1 / 64, 1.0)) == pytest.approx(0.3)  # 30 standard errors, too
    assert 0 < sequential.unbiased_estimate(0.045, 0.02, times) < 0.045  # a stop that was not taken was chosen, too


def test_conditional_power_is_how_often_the_last_look_rejects():
    times, left, se, effect, z = (0.4, 0.6), (0.8, 1.0), 0.02, 0.03, 1.2
    rng = np.random.default_rng(0)
    drift = effect / (se * np.sqrt(0.6))
    ends = z * np.sqrt(0.6) + rng.normal(drift * 0.4, np.sqrt(0.4), 200_000)
    expected = (ends >= boundaries((*times, *left))[-1]).mean()
    assert sequential.conditional_power(z, times, left, effect, se) == pytest.approx(expected, abs=0.005)


# --- looks ------------------------------------------------------------------------------------------------------------


def test_a_published_mean_keeps_its_noise():
    """Var of mean - published = s^2 (1/k + 1/seeds): its inverse, as a share of the last one."""
    for k in (16, 32, 64):
        assert sequential.information(k, 64, 10) == pytest.approx((1 / 64 + 1 / 10) / (1 / k + 1 / 10))
    assert [sequential.information(k, 64) for k in (16, 80)] == [0.25, 1.0]


def test_the_worked_example_of_the_docs_is_what_the_code_gives():
    page = (Path(__file__).parents[2] / "docs" / "study-design.md").read_text()
    rows = [[int(cell) for cell in line.split("|")[2:12]] for line in page.splitlines() if ", round " in line]
    model, base = np.array(rows[::2]), np.array(rows[1::2])
    differences, times = model - base, (0.5, 1.0)
    bounds, used = flip_boundaries(differences[None], times)
    assert differences.sum(axis=1).cumsum().tolist() == [10, 15]
    assert (bounds.tolist(), used[0].round(4).tolist()) == ([[11, 10]], [0.0, 0.0415])
    said = [
        f"alpha*(0.5) = {200 * spent(0.5, 0.025):.3f} %",
        f"repeated p-value is {flip_p(differences[:1], times[:1]):.2f}",
        f"repeated p-value {flip_p(differences, times):.4f}",
        f"by problem, where seven differences are left: p = {flip_p(differences.sum(axis=0)[None], (1.0,)):.3f}",
    ]
    for look, text in ((1, "interval is {:.1f} to {:+.1f} points"), (2, "interval {:+.1f} to {:+.1f},")):
        a, b, k = model[:look].sum(axis=0), base[:look].sum(axis=0), 4 * look
        tail = sequential.last_boundary(times[:look])[1] / 2
        said.append(text.format(*(100 * edge for edge in sequential.difference_bounds(a, b, k, tail))))
        said.append(f"give {100 * (a - b).mean() / k:+.1f}")
    se = float(np.hypot(*(sequential.sampling_errors(side, 8)[0] for side in (a, b))))
    said.append(f"median-unbiased estimate {100 * sequential.unbiased_estimate(0.1875, se, times):+.1f}")
    said.append(f"{boundaries(times)[-1]:.4f} instead of 1.9600")
    said.append(f"for p < {sequential.last_boundary([k / 64 for k in (26, 39, 52, 64)])[1]:.4f}")
    text = " ".join(page.split())
    assert [one for one in said if one not in text] == []
