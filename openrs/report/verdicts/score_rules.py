"""Rules on claims about one model's scores: published single draws, averages of five, a threshold."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import gammaln

from openrs.evaluation.single_draws import count_of, middle_of, new_draw, p_values
from openrs.evaluation.statistics import avg_at_k, counts, equivalent_to_published, p_against, sampling_error
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured
from openrs.report.evidence.values import number, p_said, percent, points, span
from openrs.report.verdicts.claims import ALPHA, Claim, ClaimVerdict, Evidence, Word, not_tested
from openrs.report.verdicts.family import Corrected, Prepared, Tests

ENOUGH = 4  # samples a problem, with verdicts by problem, from which `compatible` says something
# Of the evidence on released weights; in the order in which evidence counts.
LEVELS = {"released weights": "L2", "a results file": "L2", "trained here": "L3", "authors' log": None}
DRAW_RULE = (
    "not reproduced when one more draw of the measured model is at most as likely as the printed one with p < 0.05"
    " (Holm over all printed scores and averages tested); else compatible from 4 samples a problem on, and below that"
    " the data cannot tell. One printed draw can be no more than compatible"
)
OTHER_TRAINING = "a model trained here is another training, and cannot tell what the authors' weights score"


# --- finding evidence -------------------------------------------------------------------------------------------------


def best(evidence: Evidence, model: str | None, benchmark: str | None) -> Measured | None:
    """The evidence that counts most: usable before excluded, released weights before others, then most samples.

    Never the order in which files were named; what is left over is said (`describe`).
    """
    return min(_all(evidence, model, benchmark), key=_rank, default=None)


def _all(evidence: Evidence, model: str | None, benchmark: str | None) -> list[Measured]:
    return [one for one in evidence.measured if one.model == model and one.benchmark == benchmark]


def _rank(one: Measured) -> tuple[Any, ...]:
    return bool(one.excluded_reason), list(LEVELS).index(one.origin), -one.k, not one.rows, one.source, one.accuracy


def describe(evidence: Evidence, one: Measured) -> str:
    """What was measured, and what else was there and why it was not taken."""
    said = f"{percent(one.accuracy)} measured (n = {one.n}, k = {one.k}{', ' + one.note if one.note else ''})"
    rest = [
        other
        for other in _all(evidence, one.model, one.benchmark)
        if other is not one and not other.excluded_reason and other.origin == one.origin
    ]
    if not rest:
        return said
    why = "fewer samples" if all(other.k < one.k for other in rest) else "other settings; the first by name was taken"
    left = ", ".join(sorted(f"{other.source}: {percent(other.accuracy)}, k = {other.k}" for other in rest))
    return f"{said}; not taken: {left} ({why})"


def excluded(claim: Claim, one: Measured) -> ClaimVerdict:
    """Evidence is there but does not count: say what it shows, and why not."""
    shows = f"{one.source} gives {percent(one.accuracy)} ({one.metric}, n = {one.n}, k = {one.k})"
    printed = None
    if one.origin == "authors' log" and claim.published is not None and claim.kind == "score":
        printed = abs(100 * one.accuracy - claim.published) <= 0.05 + 1e-9
        shows += ", as printed" if printed else f", but {claim.published} is printed"
    numbers = {"accuracy": one.accuracy, "n": one.n, "k": one.k, "as_printed": printed, "inputs": one.inputs}
    return ClaimVerdict(
        "not tested", f"{shows}: {one.excluded_reason}", "evidence that does not count", numbers, (one.source,)
    )


def other_training(evidence: Evidence, one: Measured, rule: str) -> ClaimVerdict:
    """The verdict on released weights of a model trained here."""
    numbers = {"accuracy": one.accuracy, "n": one.n, "k": one.k}
    said = f"{describe(evidence, one)}; {OTHER_TRAINING}"
    return ClaimVerdict("cannot tell", said, rule, numbers, (one.source,), LEVELS[one.origin])


def usable(claim: Claim, evidence: Evidence, rule: str) -> Measured | ClaimVerdict:
    """The evidence on one score that can decide, or the verdict where there is none."""
    one = best(evidence, claim.model, claim.benchmark)
    if one is None:
        return not_tested(claim)
    if one.excluded_reason:
        return excluded(claim, one)
    return other_training(evidence, one, rule) if one.origin == "trained here" else one


def draw_word(corrected: Corrected, found: Sequence[Measured]) -> Word:
    """The verdict on a published draw, or on what is made of draws, beside what was measured."""
    if corrected.p["differs"] < ALPHA:
        return "not reproduced"
    return "compatible" if all(decisive(one) for one in found) else "cannot tell"


def rows_of(one: Measured) -> list[list[int]]:
    """Verdicts by problem; from one sample a problem the count alone gives them, in some order."""
    if one.rows:
        return list(one.rows.values())
    right = round(one.accuracy * one.n)
    return [[1]] * right + [[0]] * (one.n - right) if one.k == 1 else []


def decisive(one: Measured) -> bool:
    """Whether the noise of a draw is known from the samples themselves."""
    return bool(one.rows) and one.k >= ENOUGH


# --- one published draw -----------------------------------------------------------------------------------------------


def score(claim: Claim, evidence: Evidence) -> Prepared:
    """A published single draw against the measured model."""
    one = usable(claim, evidence, DRAW_RULE)
    if isinstance(one, ClaimVerdict):
        return one
    printed = count_of(claim.logged or 0.0, one.n)
    said = describe(evidence, one)
    numbers: dict[str, Any] = {"accuracy": one.accuracy, "n": one.n, "k": one.k}
    numbers |= {"published": claim.logged, "inputs": one.inputs}
    if decisive(one):
        chances = new_draw(rows_of(one))
        every, prediction = p_values(chances), middle_of(chances)
        interval = (prediction.low, prediction.high)
        said += f"; 95 of 100 single draws of it lie in {span(interval)}"
        numbers |= {"prediction": list(interval), "method": prediction.method}
        p_of: Callable[[int], float] = lambda count: float(every[count])  # noqa: E731 - the one law of two
    else:
        numbers["method"] = "Fisher's exact test between two draws, samples taken as independent"
        said += "; two draws compared"
        p_of = _fisher(one)
    p_value = p_of(printed)

    def verdict(corrected: Corrected) -> ClaimVerdict:
        accepted = _accepted(p_of, one, ALPHA / corrected.tests)
        more = {**numbers, "p": p_value, "p_holm": corrected.p["differs"], "accepted": list(accepted)}
        text = (
            f"{said}; {p_said(p_value)}, {p_said(corrected.p['differs'], 'Holm p')};"
            f" only a printed score outside {span(accepted)} could have been excluded; inputs {one.inputs}"
        )
        return ClaimVerdict(draw_word(corrected, [one]), text, DRAW_RULE, more, (one.source,), LEVELS[one.origin])

    return Tests({"differs": p_value}, verdict)


def _fisher(one: Measured) -> Callable[[int], float]:
    """p-value of a printed count of right answers beside the measured one."""
    ours, samples = round(one.accuracy * one.n * one.k), one.n * one.k

    def p_of(count: int) -> float:
        """As scipy's fisher_exact, without its set-up: a report asks for some hundreds."""
        right = count + ours
        tables = np.arange(max(0, right - samples), min(one.n, right) + 1)
        logs = -gammaln([tables + 1, right - tables + 1, one.n - tables + 1, samples - right + tables + 1]).sum(axis=0)
        chances = np.exp(logs - logs.max())
        return float(min(1.0, chances[chances <= chances[count - tables[0]] * (1 + 1e-7)].sum() / chances.sum()))

    return p_of


def _accepted(p_of: Callable[[int], float], one: Measured, level: float) -> tuple[float, float]:
    """The printed scores that would not have been excluded: p falls on both sides of the measured score."""
    middle = min(one.n, round(one.accuracy * one.n))

    def reach(step: int, last: int) -> int:
        inside, outside = 0, abs(last - middle) + 1  # in steps from the middle
        while outside - inside > 1:
            half = (inside + outside) // 2
            inside, outside = (half, outside) if p_of(middle + step * half) >= level else (inside, half)
        return middle + step * inside

    return reach(-1, 0) / one.n, reach(1, one.n) / one.n


# --- averages ---------------------------------------------------------------------------------------------------------


def average(claim: Claim, evidence: Evidence) -> Prepared:
    """The mean of five published draws against the mean of five measured scores."""
    rule = (
        "t test between the means of five benchmarks, only sampling as noise, in one family with the printed scores"
        " that it follows from: not reproduced with p < 0.05 (Holm), else compatible from 4 samples a problem on"
    )
    found = [best(evidence, claim.model, benchmark) for benchmark in reference.TABLE_BENCHMARKS]
    fit = [one for one in found if one is not None and not one.excluded_reason]
    if len(fit) < len(found) or len({one.origin for one in fit}) > 1:
        logs = [one for one in found if one is not None and one.origin == "authors' log"]
        return _logged_average(claim, logs) if len(logs) == len(found) else not_tested(claim)
    mean, sources = sum(one.accuracy for one in fit) / len(fit), tuple(dict.fromkeys(one.source for one in fit))
    numbers: dict[str, Any] = {"accuracy": mean, "published": claim.logged, "k": [one.k for one in fit]}
    said = f"{percent(mean)} measured, {percent(claim.logged)} published"
    level = LEVELS[fit[0].origin]
    if fit[0].origin == "trained here":
        return ClaimVerdict("cannot tell", f"{said}; {OTHER_TRAINING}", rule, numbers, sources, level)
    se, freedom = average_error(fit)
    p_value = differs(mean - (claim.logged or 0.0), se, freedom)

    def verdict(corrected: Corrected) -> ClaimVerdict:
        reach = float(stats.t.isf(ALPHA / corrected.tests / 2, freedom)) * se
        accepted = (max(0.0, mean - reach), min(1.0, mean + reach))
        more = {**numbers, "se": se, "p": p_value, "p_holm": corrected.p["differs"], "accepted": list(accepted)}
        text = (
            f"{said}, standard error of the difference {percent(se)}; {p_said(p_value)},"
            f" {p_said(corrected.p['differs'], 'Holm p')}; only a printed average outside {span(accepted)} could have"
            f" been excluded; follows from {claim.follows_from}"
        )
        return ClaimVerdict(draw_word(corrected, fit), text, rule, more, sources, level)

    return Tests({"differs": p_value}, verdict)


def _logged_average(claim: Claim, logs: list[Measured]) -> ClaimVerdict:
    """The authors' own five logs: the printed average is that of the printed cells, each rounded to a tenth."""
    mean = sum(one.accuracy for one in logs) / len(logs)
    cells = sum(round(one.accuracy, 3) for one in logs) / len(logs)
    printed = abs(100 * cells - (claim.published or 0)) <= 0.05 + 1e-9
    said = f"the authors' own five logs give {100 * mean:.2f}, their rounded cells {100 * cells:.2f}"
    said += f"; {claim.published} is printed: no new measurement"
    return not_tested(claim, said, accuracy=mean, as_printed=printed)


def average_error(five: list[Measured]) -> tuple[float, float]:
    """Standard error between a mean of five single draws and of five measured scores; its degrees of freedom."""
    parts = [new_draw_variance(one) * (1 + 1 / one.k) for one in five]
    known = [_freedom(one) if decisive(one) else math.inf for one in five]
    lost = sum(part**2 / freedom for part, freedom in zip(parts, known, strict=True))
    return math.sqrt(sum(parts)) / len(five), sum(parts) ** 2 / lost if lost else math.inf


def _freedom(one: Measured) -> float:
    right, tries = counts(rows_of(one))
    return sampling_error(right / tries, tries)[1]


def differs(difference: float, se: float, freedom: float = math.inf) -> float:
    """Two-sided p-value by Student's t; without any noise only a rounding error is no difference."""
    return float(2 * stats.t.sf(abs(difference) / se, freedom)) if se else float(abs(difference) <= 0.0005)


def new_draw_variance(one: Measured) -> float:
    """Variance of a new single draw on the same problems: k se_fixed**2, unbiased for sum p_i (1 - p_i) / n**2.

    With fewer than 4 samples, or where verdicts by problem are missing, one rate for all problems bounds it from above.
    """
    if decisive(one):
        return one.k * float(avg_at_k(rows_of(one)).se_fixed or 0.0) ** 2
    return one.accuracy * (1 - one.accuracy) / one.n


# --- a threshold ------------------------------------------------------------------------------------------------------


def above(claim: Claim, evidence: Evidence) -> Prepared:
    rule = (
        "reproduced when the mean on these very problems lies above the threshold with p < 0.05 (Holm with the other"
        " claims against the base), not reproduced when below it so, else the data cannot tell. The threshold is taken"
        " as exact, although it is a measurement too"
    )
    one = usable(claim, evidence, rule)
    if isinstance(one, ClaimVerdict):
        return one
    if not rows_of(one):
        return not_tested(claim, f"{one.source} tells no verdicts by problem")
    found, threshold = avg_at_k(rows_of(one)), (claim.threshold or 0.0) / 100
    interval = (found.fixed.low, found.fixed.high)
    p_value = p_against(np.array(rows_of(one)), threshold)
    numbers = {"accuracy": found.value, "n": one.n, "k": one.k, "interval": list(interval), "threshold": threshold}

    def verdict(corrected: Corrected) -> ClaimVerdict:
        word: Word = "cannot tell"
        if corrected.p["differs"] < ALPHA:
            word = "reproduced" if found.value > threshold else "not reproduced"
        said = f"{describe(evidence, one)}, 95 % interval {span(interval)}, threshold {percent(threshold)}"
        said += f"; {p_said(p_value)}, {p_said(corrected.p['differs'], 'Holm p')}; follows from {claim.follows_from}"
        more = {**numbers, "p": p_value, "p_holm": corrected.p["differs"]}
        return ClaimVerdict(word, said, rule, more, (one.source,), LEVELS[one.origin])

    return Tests({"differs": p_value}, verdict)


# --- an independent re-evaluation -------------------------------------------------------------------------------------


def reevaluated(one: Measured) -> tuple[float, int] | None:
    """Published mean of the re-evaluation that has the same model, benchmark and sampling, and of how many seeds."""
    study = reference.tree()["reevaluations"][0]
    again = reference.reevaluation(one.model, one.benchmark)
    sampled = all(number(one.protocol.get(key)) == study[key] for key in ("temperature", "top_p"))
    return (again[0], again[2]) if again and sampled and one.rows and one.inputs != "differs" else None


def same(claim: Claim, evidence: Evidence) -> Prepared:
    """An evaluation gives what the re-evaluation found: an own claim of a study, with its margin."""
    rule = (
        "TOST against the mean over the re-evaluation's seeds: reproduced when the mean on these very problems lies"
        " within the margin of it with p < 0.05 (Holm with the other claims of the kind), not reproduced when beyond it"
        " so, else the data cannot tell. Sampling is the only noise, here and there"
    )
    own = [one for one in _all(evidence, claim.model, claim.benchmark) if one.origin == "released weights"]
    found = [(one, again) for one in own if one.k > 1 and (again := reevaluated(one)) is not None]
    if not found:
        return not_tested(claim)
    one, (mean, seeds) = min(found, key=lambda pair: _rank(pair[0]))
    test = equivalent_to_published(rows_of(one), mean, seeds, claim.margin or 0.0)

    def verdict(corrected: Corrected) -> ClaimVerdict:
        within, beyond = corrected.p["within"], corrected.p["beyond"]
        word: Word = "reproduced" if within < ALPHA else "not reproduced" if beyond < ALPHA else "cannot tell"
        said = (
            f"{describe(evidence, one)}, {percent(mean)} published: {points(test.difference)} apart, margin"
            f" {claim.margin:g}; {p_said(within, 'Holm p')} within it, {p_said(beyond, 'Holm p')} beyond it"
        )
        numbers = {"accuracy": one.accuracy, "n": one.n, "k": one.k, "published": mean, "seeds": seeds}
        numbers |= {"difference": test.difference, "margin": test.margin, "p_within": within, "p_beyond": beyond}
        return ClaimVerdict(word, said, rule, numbers, (one.source,), LEVELS[one.origin])

    return Tests({"within": test.p_value, "beyond": test.p_beyond}, verdict)
