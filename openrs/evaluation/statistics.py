"""How sure anyone can be of a score: exact where that is possible, with an interval everywhere.

All functions take `correct`: for every problem its samples as 0 or 1, a matrix [problems, samples], or a list of lists
when the numbers of samples differ. Scores are proportions; a problem counts once, however many samples it has. Two
questions are kept apart: "what would these very problems give on average?" (fixed: only sampling is noise) and "what
would other problems of this kind give?" (over problems: problems are clusters, their draw is noise too).

Sources: pass@k Chen et al. 2021 (arXiv 2107.03374, eq. 1); clustered standard errors Miller 2024 (arXiv 2411.00640);
Wilson 1927, with the effective sample size of survey statistics (Korn and Graubard 1998); expanded percentile bootstrap
Hesterberg 2015 (arXiv 1411.5279, section 5.2); TOST Schuirmann 1987.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from openrs.errors import UserError

Matrix = Sequence[Sequence[int]] | NDArray[Any]
Floats = NDArray[np.float64]
LEVEL = 0.95
EXACT_REACH = 200_000  # steps of the sum up to which a sign-flip distribution is computed exactly: about a second
RESAMPLES = 10_000  # of a bootstrap interval, where no other number is asked for
ALIKE = 1e-9  # a spread below this is a rounding error: 3/10 - 2/10 is not 4/10 - 3/10


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds in proportions."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over problems.

    fixed: standard error and interval of the mean on these very problems; None for the error when k is 1.
    problems: the same when the problems themselves are a sample; None when n is 1.
    """

    value: float
    se_fixed: float | None
    se_problems: float | None
    fixed: Interval
    problems: Interval


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """a - b on the same n problems. se and interval over problems; p_value two-sided, by flipping signs of problems."""

    difference: float
    n: int
    k: tuple[int, int]
    se: float
    interval: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided tests: is the difference within +- margin (both proportions)?

    p_beyond: two-sided, that it lies beyond the margin, above or below.
    """

    difference: float
    margin: float
    p_value: float
    p_beyond: float

    @property
    def equivalent(self) -> bool:
        return self.p_value < 1 - LEVEL


def t_quantile(probability: float, freedom: float | None = None) -> float:
    """Of Student's t with so many degrees of freedom; of the normal distribution without.

    What scipy.stats computes, to the bit; importing that would take an evaluation a second.
    """
    return float(special.ndtri(probability) if freedom is None else special.stdtrit(freedom, probability))


def t_tail(value: float, freedom: float | None = None) -> float:
    """The probability of more than `value`, by the same distributions."""
    return float(special.ndtr(-value) if freedom is None else special.stdtr(freedom, -value))


def avg_at_k(correct: Matrix) -> Score:
    """avg@k: the mean over problems of the share of right samples.

    se_fixed**2 = sum_i p_i (1 - p_i) / (k_i - 1) / n**2; se_problems**2 = sum_i (p_i - mean)**2 / (n (n - 1)).
    Intervals are Wilson's with the effective sample size mean (1 - mean) / se**2 and Student's t, so that scores near 0
    or 1 keep an honest width; coverage is simulated in the tests. Degrees of freedom: n - 1 over problems; for the
    fixed problems Satterthwaite's, since few samples of few undecided problems tell their own noise badly. For k = 1
    both are plain Wilson, which is too wide rather than too narrow for the fixed problems.
    """
    right, tries = counts(correct)
    share = right / tries
    value = float(share.mean())
    se_problems, problems = _over_problems(share, tries)
    se = sampling_error(share, tries)[0] if int(tries.min()) > 1 else None
    return Score(value, se, se_problems, _wilson(value, *_effective_size(share, tries)), problems)


def sampling_error(share: Floats, tries: NDArray[np.int64]) -> tuple[float, float]:
    """Standard error of the mean of these shares when only sampling is noise, and its degrees of freedom.

    share: share of right samples, tries: samples, of each problem; at least two of each. Satterthwaite: problems whose
    samples agree tell nothing of the noise, so the degrees are those of the problems that are undecided; infinite
    where all agree.
    """
    parts = share * (1 - share) / (tries - 1)
    if not parts.any():
        return 0.0, math.inf
    return float(np.sqrt(parts.sum()) / len(share)), float(parts.sum() ** 2 / (parts**2 / (tries - 1)).sum())


def p_against(correct: Matrix, number: float) -> float:
    """Two-sided p-value of the hypothesis that the mean on these very problems is `number` (a proportion, exact).

    The test whose 95 % interval is avg_at_k's `fixed`: p < 0.05 exactly when the number lies outside it.
    """
    right, tries = counts(correct)
    share, value = right / tries, float((right / tries).mean())
    effective, freedom = _effective_size(share, tries)
    return 2 * t_tail(abs(value - number) / math.sqrt(number * (1 - number) / effective), freedom)


def pass_at_k(correct: Matrix, k: int) -> float:
    """Unbiased pass@k: the mean over problems of 1 - C(n_i - c_i, k) / C(n_i, k), for c_i right of n_i samples."""
    right, tries = counts(correct)
    return float(np.mean([1 - math.comb(t - r, k) / math.comb(t, k) for r, t in zip(right, tries, strict=True)]))


def majority(answers: Sequence[Sequence[str | None]], correct: Matrix) -> float:
    """Is the most frequent answer of a problem's samples right? Mean over problems.

    answers: what each sample answered, None for no answer (it has no vote). A tie counts as the share of right answers
    among the tied ones, which is the expectation over a fair draw.
    """
    return float(np.mean([_vote(texts, row) for texts, row in zip(answers, _rows(correct), strict=True)]))


def paired_difference(a: Matrix, b: Matrix, *, resamples: int | None = None) -> PairedDifference:
    """Mean difference a - b over the same problems, in the same order; numbers of samples may differ.

    interval: cluster bootstrap over problems, percentiles widened by sqrt(n / (n - 1)) t / z, so that few problems do
    not make it too narrow, and by half the step between two possible means (continuity; it matters for k = 1). Where
    every problem has the same difference resampling shows nothing; it then reaches as far as one unseen problem could,
    z**2 / (n + z**2). p_value: the share of all 2**n ways to swap a and b within problems that differ at least as
    much, computed exactly by convolution (sampled only when sample numbers have no small common multiple). It tests
    that no problem favours a model; with unequal numbers of samples it is approximate.
    """
    difference, tries_a, tries_b = _differences(a, b)
    rng = np.random.default_rng(0)
    steps = math.lcm(*{*tries_a, *tries_b})
    p_value = _sign_flip(difference * steps, rng)
    return PairedDifference(
        difference=float(difference.mean()),
        n=len(difference),
        k=(min(tries_a), min(tries_b)),
        se=float(difference.std(ddof=1) / math.sqrt(len(difference))),
        interval=_bootstrap(difference, 1 / (len(difference) * steps), rng, resamples or RESAMPLES),
        p_value=p_value,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction (1979): adjusted p-values under the same names.

    The smallest of m is multiplied by m, the next by m - 1 ...; none is below one before it, none above 1.
    """
    found, reached = {}, 0.0
    for i, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        reached = max(reached, min(1.0, (len(p_values) - i) * p_value))
        found[name] = reached
    return {name: found[name] for name in p_values}


def equivalent(a: Matrix, b: Matrix, margin_points: float) -> Equivalence:
    """TOST on the same problems: do a and b differ by less than margin_points percentage points?

    Errors over problems, Student's t with n - 1 degrees of freedom.
    """
    difference, _, _ = _differences(a, b)
    n = len(difference)
    return _tost(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(n)), n - 1, margin_points)


def equivalent_to_published(correct: Matrix, published: float, seeds: int, margin_points: float) -> Equivalence:
    """TOST against a published mean (a proportion) of `seeds` single draws of the same model on the same problems.

    Only sampling is noise, since the problems are the same: se**2 = se_fixed**2 (1 + k / seeds), for a mean of single
    draws has k / seeds times the variance of a mean of k. A published standard deviation of three seeds has two degrees
    of freedom and is often below what sampling alone must give, so it is not used. Student's t (sampling_error).
    Raises UserError for k = 1, which does not tell its own noise.
    """
    right, tries = counts(correct)
    if int(tries.min()) < 2:
        raise UserError("one sample a problem does not tell its own noise", fix="evaluate with --samples 2 or more")
    share, k = right / tries, int(tries.min())
    fixed, freedom = sampling_error(share, tries)
    return _tost(float(share.mean()) - published, fixed * math.sqrt(1 + k / seeds), freedom, margin_points)


def _rows(correct: Matrix) -> list[list[int]]:
    rows = correct.tolist() if isinstance(correct, np.ndarray) else [list(row) for row in correct]
    if not rows or any(not row for row in rows):
        raise UserError("a score needs at least one problem, and at least one sample of each")
    if not set().union(*map(set, rows)) <= {0, 1}:
        raise UserError("verdicts are 0 or 1")
    return rows


def counts(correct: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right samples and samples of each problem. Raises UserError for what is no matrix of verdicts."""
    rows = _rows(correct)
    return np.array([sum(row) for row in rows]), np.array([len(row) for row in rows])


def _differences(a: Matrix, b: Matrix) -> tuple[Floats, list[int], list[int]]:
    (right_a, tries_a), (right_b, tries_b) = counts(a), counts(b)
    if len(right_a) != len(right_b) or len(right_a) < 2:
        raise UserError(
            f"{len(right_a)} and {len(right_b)} problems cannot be paired",
            fix="compare two evaluations of the same problems, at least two of them",
        )
    return right_a / tries_a - right_b / tries_b, tries_a.tolist(), tries_b.tolist()


def _effective_size(share: Floats, tries: NDArray[np.int64]) -> tuple[float, float | None]:
    """Of the mean on these very problems: samples that would vary as much, and the degrees of freedom for t."""
    if int(tries.min()) == 1:
        return float(len(share)), None
    value = float(share.mean())
    se, freedom = sampling_error(share, tries)
    return value * (1 - value) / se**2 if se else float(tries.sum()), freedom


def _over_problems(share: Floats, tries: NDArray[np.int64]) -> tuple[float | None, Interval]:
    """Standard error and interval over problems of the mean of one figure a problem, made of `tries` samples.

    The effective sample size is never above the number of samples (Korn and Graubard): problems that came out alike by
    chance are no proof that others will.
    """
    n, value = len(share), float(share.mean())
    if n == 1:
        return None, Interval(0.0, 1.0)  # one problem tells nothing about others
    se = float(share.std(ddof=1) / math.sqrt(n))
    if int(tries.max()) == 1:
        return se, _wilson(value, n)
    effective = float(n) if se < ALIKE else min(value * (1 - value) / se**2, float(tries.sum()))
    return se, _wilson(value, effective, n - 1)


def _wilson(value: float, n: float, freedom: float | None = None) -> Interval:
    z = t_quantile((1 + LEVEL) / 2, freedom)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _vote(answers: Sequence[str | None], right: Sequence[int]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = [answer for answer, count in votes.items() if count == max(votes.values())]
    verdicts = [[r for a, r in zip(answers, right, strict=True) if a == answer] for answer in top]
    return float(np.mean([np.mean(verdict) for verdict in verdicts]))


def _bootstrap(difference: Floats, step: float, rng: np.random.Generator, resamples: int) -> Interval:
    n, mean = len(difference), float(difference.mean())
    z = t_quantile((1 + LEVEL) / 2)
    if np.ptp(difference) < ALIKE:
        reach = z * z / (n + z * z)
        return Interval(max(-1.0, mean - reach), min(1.0, mean + reach))
    chunk = max(1, 2_000_000 // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    means = np.concatenate([difference[rng.integers(0, n, (size, n))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    wider = math.sqrt(n / (n - 1)) * t_quantile((1 + LEVEL) / 2, n - 1) / z
    low, high = mean + (low - mean) * wider - step / 2, mean + (high - mean) * wider + step / 2
    return Interval(max(-1.0, float(low)), min(1.0, float(high)))


def _sign_flip(steps: Floats, rng: np.random.Generator) -> float:
    """P(|sum of +-steps| >= |sum of steps|) over all signs. steps are whole numbers but for rounding."""
    whole = [round(step) for step in steps.tolist()]
    sizes = [abs(step) for step in whole if step]
    reach, seen = sum(sizes), abs(sum(whole))
    if not sizes:
        return 1.0
    common = math.gcd(*sizes)
    sizes, reach, seen = [size // common for size in sizes], reach // common, seen // common
    if reach <= EXACT_REACH:
        chances = np.zeros(2 * reach + 1)
        chances[reach] = 1.0
        for size in sizes:
            flipped = np.zeros_like(chances)
            flipped[size:] += chances[: len(chances) - size]
            flipped[: len(chances) - size] += chances[size:]
            chances = flipped / 2
        far = chances[: reach - seen + 1].sum() + chances[reach + seen :].sum()
        return float(min(1.0, far))
    floats, draws = np.array(sizes, dtype=np.float64), 20_000
    sums = np.abs((rng.integers(0, 2, (draws, len(sizes))) * 2 - 1) @ floats)
    return (1 + int((sums >= seen * (1 - 1e-12)).sum())) / (1 + draws)


def _tost(difference: float, se: float, freedom: float, margin_points: float) -> Equivalence:
    if not margin_points > 0:
        raise UserError(
            f"a margin of {margin_points} points: nothing is that equal", fix="give a margin above 0, e.g. 3"
        )
    margin = margin_points / 100
    if se <= ALIKE:  # no spread was seen: nothing is known of the noise, and nothing is proven
        return Equivalence(difference, margin, 1.0, 1.0)
    p_value = max(t_tail((difference + margin) / se, freedom), t_tail((margin - difference) / se, freedom))
    return Equivalence(difference, margin, p_value, min(1.0, 2 * t_tail((abs(difference) - margin) / se, freedom)))
