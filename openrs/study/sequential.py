"""Looking at an evaluation before it is finished, without erring more often: the mathematics.

The estimand is the mean on these very problems. Samples come in whole rounds: every problem of both models has k of K
samples at a look. Samples are independent, so the information fraction is exactly t = k / K. By each look the test
may have spent what Lan and DeMets' function of O'Brien-Fleming type allows, alpha / 2 a side; what discreteness left
over is carried on.

Two tests. Of two models: signs of the differences of right samples, problem by problem and round by round, are
exchangeable where both have the same rates, so the law of their sum is known exactly (`flip_boundaries`). Of anything
else: the fixed-sample p-value as a normal deviate against boundaries by recursive integration (`boundaries`).

What a rule is given is the repeated p-value: the smallest alpha whose sequential test rejects at this look. It is below
alpha at any look in at most alpha of all studies, whatever made the study stop, and with a single look it is the
fixed-sample p-value itself. Holm's correction of repeated p-values is alpha / m for each claim, passed on after a
rejection (Maurer and Bretz 2013).

Sources: Lan and DeMets 1983; Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, chapters 7 to 9; Tsiatis,
Rosner and Mehta 1984. docs/study-design.md has the derivations and the limits.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special, stats

from openrs.evaluation.statistics import Floats

Ints = NDArray[np.int64]
ALPHA = 0.05
FUTILE = 0.10  # conditional power below which going on is not worth it; stopping for it is allowed, never required
NODES, WEIGHTS = np.polynomial.legendre.leggauss(160)
BATCH = 4_000_000  # numbers of one array in flip_boundaries: 32 MB
ROUNDING = 1e-12  # of probabilities in flip_boundaries
SMALLEST = 1e-12  # repeated p-value that is not followed further down


# --- spending and boundaries ------------------------------------------------------------------------------------------


def information(k: int, planned: int, seeds: int | None = None) -> float:
    """Information fraction with k of `planned` samples a problem, at most 1. A look may be left out, for a budget's
    sake; none may be added or repeated: a look made is a look spent.

    seeds: of a published mean compared with; its noise does not shrink: t = (1/K + 1/seeds) / (1/k + 1/seeds).
    """
    own = 0.0 if seeds is None else 1 / seeds
    return min(1.0, (1 / planned + own) / (1 / k + own))


def spent(t: Any, side: Any) -> Any:
    """What a one-sided test at level `side` may have spent at information fraction t: 2 - 2 Phi(z_{side/2} / sqrt t).

    O'Brien-Fleming type (Lan and DeMets 1983). A two-sided test at alpha is two of them at alpha / 2. Arrays broadcast.
    """
    return 2 * stats.norm.sf(stats.norm.isf(np.asarray(side) / 2) / np.sqrt(t))


@functools.lru_cache(maxsize=4096)
def boundaries(times: tuple[float, ...], side: float = ALPHA / 2) -> tuple[float, ...]:
    """Normal deviates at which a one-sided test at level `side` rejects, one a look; infinite where none is allowed.

    times: information fractions of the looks made, rising. By recursive integration (Armitage, McPherson and Rowe) with
    Gauss-Legendre nodes. Four equal looks at side 0.025: 4.333 2.963 2.359 2.014.
    """
    grid, mass, last, used, found = np.zeros(1), np.ones(1), 0.0, 0.0, []
    for t in times:
        allowed = float(spent(t, side)) - used
        bound = _bound(grid, mass, t - last, allowed, math.sqrt(t))
        found.append(bound / math.sqrt(t))
        grid, mass = _spread(grid, mass, t - last, 0.0, low=-9 * math.sqrt(t), high=min(bound, 9 * math.sqrt(t)))
        last, used = t, used + allowed
    return tuple(found)


def last_boundary(times: Sequence[float], alpha: float = ALPHA) -> tuple[float, float]:
    """The price of looking: deviate and two-sided p-value that the last look asks for, instead of 1.960 and 0.05.

    Half of that p-value is the one-sided tail of the repeated interval there: all looks' hold together with 1 - alpha.
    """
    bound = boundaries(tuple(times), alpha / 2)[-1]
    return bound, float(2 * stats.norm.sf(bound))


def _tail(grid: Floats, mass: Floats, step: float, drift: float, bound: float) -> float:
    """P(not stopped before, and at or above `bound` after a step of this much information)."""
    return float(mass @ special.ndtr((grid + drift * step - bound) / math.sqrt(step)))


def _bound(grid: Floats, mass: Floats, step: float, allowed: float, scale: float) -> float:
    if allowed < 1e-300:
        return math.inf
    return float(optimize.brentq(lambda b: _tail(grid, mass, step, 0.0, b) - allowed, -9 * scale, 40 * scale))


def _spread(grid: Floats, mass: Floats, step: float, drift: float, *, low: float, high: float) -> tuple[Floats, Floats]:
    """Nodes and masses of those that went on after one more step: between low and high."""
    nodes = low + (high - low) * (NODES + 1) / 2
    away = (nodes[:, None] - grid[None, :] - drift * step) / math.sqrt(step)
    density = np.exp(-(away**2) / 2) / math.sqrt(2 * math.pi * step)
    return nodes, WEIGHTS * (high - low) / 2 * (density @ mass)


# --- the exact test of two models -------------------------------------------------------------------------------------


def flip_boundaries(differences: Ints, times: Sequence[float], alpha: Any = ALPHA) -> tuple[Ints, Floats]:
    """Sums at which the sequential sign flip rejects, and the alpha that is spent by each look.

    differences: [trials, looks, n], right samples of one model less those of the other, in each round and problem.
    Their absolute values are given; signs are fair coins under equal rates. times: [looks]. alpha: two-sided, a number
    or [trials]. Returns [trials, looks] smallest absolute sums over all rounds so far that reject (larger than any
    possible one where none does), and [trials, looks] P(stopped at this look or before | absolute values), never above
    alpha.

    The law of a round's sum has the characteristic function prod_i cos(e_i x); round by round it is multiplied, and
    what lies beyond the boundary is taken out. Rounding is below 1e-12.
    """
    sizes = np.abs(differences)
    trials, looks, _ = sizes.shape
    levels = np.broadcast_to(np.asarray(alpha, dtype=float), (trials,))
    # beyond nine standard deviations lies less than 1e-17 (Hoeffding)
    far = math.ceil(9 * math.sqrt(int((sizes**2).sum(axis=(1, 2)).max(initial=0))))
    reach = min(far, int(sizes.sum(axis=(1, 2)).max(initial=0)))
    length = fft.next_fast_len(2 * reach + 2, real=True)
    length += length % 2
    chunk = max(1, BATCH // length)
    parts = [
        _flip_batch(sizes[i : i + chunk], np.asarray(times), levels[i : i + chunk], reach, length)
        for i in range(0, trials, chunk)
    ]
    if not parts:
        return np.zeros((0, looks), dtype=np.int64), np.zeros((0, looks))
    return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])


def _flip_batch(sizes: Ints, times: Floats, levels: Floats, reach: int, length: int) -> tuple[Ints, Floats]:
    trials, looks, _ = sizes.shape
    alive = np.zeros((trials, length))  # P(going on with this sum), index modulo length
    alive[:, 0] = 1.0
    bounds, used = np.empty((trials, looks), dtype=np.int64), np.zeros((trials, looks + 1))
    rows, sums = np.arange(trials), np.arange(reach + 2)
    folded = np.minimum(np.arange(length), length - np.arange(length))
    for look in range(looks):
        law = _characteristic(sizes[:, look], length)
        alive = np.maximum(fft.irfft(fft.rfft(alive, axis=1) * law, n=length, axis=1), 0.0)
        tail = np.zeros((trials, reach + 2))  # P(going on until here, |sum| >= x); none above reach
        tail[:, : reach + 1] = 2 * np.cumsum(alive[:, reach::-1], axis=1)[:, ::-1]
        allowed = 2 * spent(times[look], levels / 2) - used[:, look]
        fits = (tail <= allowed[:, None] + ROUNDING) & (sums > 0)
        bounds[:, look] = fits.argmax(axis=1)
        used[:, look + 1] = used[:, look] + tail[rows, bounds[:, look]]
        alive[folded[None, :] >= bounds[:, look, None]] = 0.0
    return bounds, used[:, 1:]


def _characteristic(sizes: Ints, length: int) -> Floats:
    """[trials, length // 2 + 1]: characteristic function of a sum of +-sizes [trials, n], at 2 pi j / length."""
    waves = np.cos(np.outer(np.arange(int(sizes.max(initial=0)) + 1), 2 * np.pi * np.arange(length // 2 + 1) / length))
    counts = np.zeros((len(sizes), len(waves)))
    np.add.at(counts, (np.arange(len(sizes))[:, None], sizes), 1.0)
    logs, negative = np.log(np.maximum(np.abs(waves), 1e-300)), (waves < 0).astype(float)
    law: Floats = np.exp(counts @ logs) * (1 - 2 * ((counts @ negative) % 2))
    return law


def flip_p(differences: Ints, times: Sequence[float]) -> float:
    """Repeated two-sided p-value of the sequential sign flip at the last of these looks.

    differences: [looks, n] of the rounds so far. The smallest alpha at which the sum of all rounds reaches the last
    boundary, to a relative 1e-4; sums are whole numbers, so boundaries need not fall steadily with alpha: it is the
    smallest from which on all up to 0.05 reject. The levels 0.05 / 1 ... 0.05 / 10 of Holm's correction are among those
    tried. With one look at t = 1 it is the fixed-sample p-value (statistics.paired_difference).
    """
    seen = abs(int(differences.sum()))
    if len(times) == 1:
        reach = int(np.abs(differences).sum())
        chances = fft.irfft(_characteristic(np.abs(differences), 2 * reach + 2), n=2 * reach + 2, axis=1)[0]
        tail = min(1.0, 2 * float(chances[seen : reach + 1].sum())) if seen else 1.0
        return min(1.0, float(4 * stats.norm.sf(math.sqrt(times[0]) * stats.norm.isf(tail / 4))))
    holm = ALPHA / np.arange(10, 0, -1)
    for levels in (np.union1d(np.geomspace(SMALLEST, ALPHA, 80), holm), np.geomspace(ALPHA, 0.5, 30)):
        rejects = _rejects(differences, times, levels, seen)
        if rejects[-1]:
            break
    else:
        return 1.0
    for _ in range(2):
        missed = np.flatnonzero(~rejects)
        if not len(missed):
            break
        levels = np.geomspace(levels[missed[-1]], levels[missed[-1] + 1], 60)
        rejects = _rejects(differences, times, levels, seen)
    missed = np.flatnonzero(~rejects)
    return float(levels[missed[-1] + 1 if len(missed) else 0])


def _rejects(differences: Ints, times: Sequence[float], levels: Floats, seen: int) -> NDArray[np.bool_]:
    every = np.broadcast_to(differences, (len(levels), *differences.shape))
    rejects: NDArray[np.bool_] = flip_boundaries(every, times, levels)[0][:, -1] <= seen
    return rejects


# --- any other test ---------------------------------------------------------------------------------------------------


def normal_p(p_value: float, times: Sequence[float]) -> float:
    """Repeated one-sided p-value at the last of these looks, from the one-sided fixed-sample p-value of all samples.

    The smallest level whose boundary there the normal deviate of p_value reaches. With one look at t = 1: p_value.
    """
    if len(times) == 1:
        return float(2 * stats.norm.sf(math.sqrt(times[0]) * stats.norm.isf(p_value / 2)))
    z = float(stats.norm.isf(p_value))

    def short(level: float) -> float:
        return boundaries(tuple(times), level)[-1] - z

    if short(0.5) > 0:
        return 1.0
    if short(SMALLEST) <= 0:
        return SMALLEST
    return math.exp(optimize.brentq(lambda log: short(math.exp(log)), math.log(SMALLEST), math.log(0.5), xtol=1e-7))


# --- what to say at the stop ------------------------------------------------------------------------------------------


def score_bounds(right: Ints, k: int, quantile_tail: float) -> tuple[Floats, Floats]:
    """Wilson's interval of the mean on these very problems, as statistics.avg_at_k, with any one-sided tail.

    right: [..., n] right samples of k. Returns low and high, [...].
    """
    n, share = right.shape[-1], right / k
    value = share.mean(axis=-1)
    if k == 1:
        effective, quantile = np.full_like(value, n), np.full_like(value, stats.norm.isf(quantile_tail))
    else:
        se, freedom = sampling_errors(right, k)
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = np.where(se > 0, value * (1 - value) / se**2, n * k)
        quantile = stats.t.isf(quantile_tail, freedom)
    square = quantile**2 / effective
    middle = (value + square / 2) / (1 + square)
    half = np.sqrt(square * (value * (1 - value) + square / 4)) / (1 + square)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def sampling_errors(right: Ints, k: int) -> tuple[Floats, Floats]:
    """statistics.sampling_error of many evaluations at once: right [..., n] of k >= 2 samples; se and freedom [...]."""
    share = right / k
    parts = share * (1 - share) / (k - 1)
    whole = parts.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(whole > 0, whole**2 / ((parts**2).sum(axis=-1) / (k - 1)), np.inf)
    return np.sqrt(whole) / right.shape[-1], freedom


def difference_bounds(after: Ints, before: Ints, k: int, quantile_tail: float) -> tuple[Floats, Floats]:
    """Interval of the difference of two means on the same problems: Newcombe's (1998, method 10), of Wilson's two.

    Wider by half the step between two possible differences (continuity). Problems that all samples solve or miss leave
    it a width, which a plain standard error does not.
    """
    (low_a, high_a), (low_b, high_b) = (score_bounds(one, k, quantile_tail) for one in (after, before))
    a, b = after.mean(axis=-1) / k, before.mean(axis=-1) / k
    half_step = 0.5 / (after.shape[-1] * k)
    low = a - b - np.sqrt((a - low_a) ** 2 + (high_b - b) ** 2) - half_step
    return np.maximum(-1.0, low), np.minimum(1.0, a - b + np.sqrt((high_a - a) ** 2 + (b - low_b) ** 2) + half_step)


def unbiased_estimate(estimate: float, se: float, times: Sequence[float]) -> float:
    """Median-unbiased estimate of the difference at the stop: as likely too high as too low.

    estimate, se: difference and its standard error at the last look, of all samples. Order by stages (Tsiatis, Rosner
    and Mehta 1984): the effect at which a result as far up, or an earlier stop above, has a chance of one half. At the
    first look it is the estimate itself: nothing had been chosen yet.
    """
    if len(times) == 1 or not se:
        return estimate
    bounds = boundaries(tuple(times))
    scale = se * math.sqrt(times[-1])  # standard error at t = 1

    def surplus(drift: float) -> float:
        grid, mass, last, above = np.zeros(1), np.ones(1), 0.0, 0.0
        for t, bound in zip(times[:-1], bounds[:-1], strict=True):
            edge = min(bound, 9.0) * math.sqrt(t)
            above += _tail(grid, mass, t - last, drift, edge)
            grid, mass = _spread(grid, mass, t - last, drift, low=-edge, high=edge)
            last = t
        return above + _tail(grid, mass, times[-1] - last, drift, estimate / scale * times[-1]) - 0.5

    far = 25.0 + abs(estimate) / scale
    return float(optimize.brentq(surplus, -far, far)) * scale


def conditional_power(z: float, times: Sequence[float], planned: Sequence[float], effect: float, se: float) -> float:
    """Chance that the last planned look rejects upwards when the effect is the one the study was designed for.

    z: normal deviate at the last look made. planned: the looks still to come, the last at t = 1. effect: difference;
    se: its standard error at the last look made. Below FUTILE going on is not worth it (non-binding: boundaries count
    on no such stop, so ignoring it errs no more often).
    """
    t = times[-1]
    bound = boundaries((*times, *planned), ALPHA / 2)[-1]
    drift = effect / (se * math.sqrt(t))
    return float(stats.norm.sf((bound - z * math.sqrt(t) - drift * (1 - t)) / math.sqrt(1 - t)))
