"""Rules on claims about one model's scores: published single draws, averages of five, a threshold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy import stats

from openrs.evaluation.statistics import avg_at_k, holm, single_run
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured
from openrs.report.evidence.values import p_said, percent, span
from openrs.report.verdicts.claims import ALPHA, Claim, ClaimVerdict, Evidence, Rule, Word, not_tested

DRAW_RULE = (
    "a published single draw is compatible when a new single draw of the measured model would be at most as likely with"
    " p >= 0.05 (Holm over the scores tested); it can't be more than compatible"
)
LEVELS = {"released weights": "L2", "a results file": "L2", "trained here": "L3", "authors' log": None}


# --- finding evidence -------------------------------------------------------------------------------------------------


def best(evidence: Evidence, model: str | None, benchmark: str | None) -> Measured | None:
    """The evidence that counts most: usable before excluded, released weights before others, then most samples a
    problem."""
    found = [one for one in evidence.measured if one.model == model and one.benchmark == benchmark]
    order = {"released weights": 0, "a results file": 1, "trained here": 2, "authors' log": 3}
    return min(found, key=lambda one: (bool(one.excluded_reason), order[one.origin], -one.k), default=None)


def excluded(claim: Claim, one: Measured) -> ClaimVerdict:
    """Evidence is there but does not count: say what it shows, and why not."""
    shows = f"{one.source} gives {percent(one.accuracy)} (n = {one.n}, k = {one.k})"
    printed = None
    if one.origin == "authors' log" and claim.published is not None and claim.kind == "score":
        printed = abs(100 * one.accuracy - claim.published) <= 0.05 + 1e-9
        shows += ", as printed" if printed else f", but {claim.published} is printed"
    numbers = {"accuracy": one.accuracy, "n": one.n, "k": one.k, "as_printed": printed, "inputs": one.inputs}
    return ClaimVerdict(
        "not tested", f"{shows}: {one.excluded_reason}", "evidence that does not count", numbers, (one.source,)
    )


def capped(verdict: ClaimVerdict, one: Measured) -> ClaimVerdict:
    """Evidence from a model trained here is one seed: it says nothing certain about the authors' weights."""
    here = one.origin == "trained here"
    word = "compatible" if here and verdict.word == "reproduced" else verdict.word
    said = f"{verdict.said}; a model trained here, one seed" if here else verdict.said
    return replace(verdict, word=word, said=said, level=LEVELS[one.origin])


def rows_of(one: Measured) -> list[list[int]]:
    """Verdicts by problem; from one sample a problem the count alone gives them, in some order."""
    if one.rows:
        return list(one.rows.values())
    right = round(one.accuracy * one.n)
    return [[1]] * right + [[0]] * (one.n - right) if one.k == 1 else []


def logged(model: str | None, benchmark: str | None) -> float | None:
    """The published score with all its digits, from the authors' log of the released checkpoint."""
    every = reference.logs()
    return next((one.accuracy for one in every if (one.model, one.benchmark) == (model, benchmark)), None)


# --- one published draw -----------------------------------------------------------------------------------------------


def scores(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    """Published single draws against measured models; Holm over those that can be tested."""
    found: list[ClaimVerdict | tuple[Measured, float, str, dict[str, Any]]] = []
    for claim in family:
        one = best(evidence, claim.model, claim.benchmark)
        if one is None:
            found.append(not_tested(claim))
        elif one.excluded_reason:
            found.append(excluded(claim, one))
        else:
            found.append((one, *_draw(one, logged(claim.model, claim.benchmark) or 0.0)))
    tested = {str(i): entry[1] for i, entry in enumerate(found) if not isinstance(entry, ClaimVerdict)}
    corrected = holm(tested)
    return [
        entry if isinstance(entry, ClaimVerdict) else _draw_verdict(*entry, corrected[str(i)])
        for i, entry in enumerate(found)
    ]


def _draw(one: Measured, published: float) -> tuple[float, str, dict[str, Any]]:
    """p-value of the published draw, what was measured in words, and the numbers."""
    measured = f"{percent(one.accuracy)} measured (n = {one.n}, k = {one.k})"
    numbers: dict[str, Any] = {"accuracy": one.accuracy, "n": one.n, "k": one.k, "published": published}
    if one.k >= 2 and one.rows:
        prediction = single_run(rows_of(one), published)
        interval = (prediction.interval.low, prediction.interval.high)
        said = f"{measured}; a single draw of it lies in {span(interval)} (95 %)"
        numbers |= {"prediction": list(interval), "method": prediction.interval.method}
        return float(prediction.p_value or 0.0), said, numbers
    right, ours = round(published * one.n), round(one.accuracy * one.n * one.k)
    table = [[right, one.n - right], [ours, one.n * one.k - ours]]
    numbers["method"] = "Fisher's exact test between two draws, samples taken as independent"
    return float(stats.fisher_exact(table).pvalue), f"{measured}; two draws compared", numbers


def _draw_verdict(
    one: Measured, p_value: float, said: str, numbers: Mapping[str, Any], corrected: float
) -> ClaimVerdict:
    word: Word = "compatible" if corrected >= ALPHA else "not reproduced"
    said = f"{said}; {p_said(p_value)}, {p_said(corrected, 'Holm p')}; inputs {one.inputs}"
    more = {**numbers, "p": p_value, "p_holm": corrected, "inputs": one.inputs}
    return ClaimVerdict(word, said, DRAW_RULE, more, (one.source,), LEVELS[one.origin])


def averages(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_average(claim, evidence) for claim in family]


def _average(claim: Claim, evidence: Evidence) -> ClaimVerdict:
    """The mean of five published draws against the mean of five measured scores."""
    rule = "z test between the means of five benchmarks, only sampling as noise: compatible when p >= 0.05"
    found = [best(evidence, claim.model, benchmark) for benchmark in reference.TABLE_BENCHMARKS]
    fit = [one for one in found if one is not None and not one.excluded_reason]
    if len(fit) < len(found) or len({one.origin for one in fit}) > 1:
        logs = [one for one in found if one is not None and one.origin == "authors' log"]
        if len(logs) == len(found):
            mean = sum(one.accuracy for one in logs) / len(logs)
            printed = abs(100 * mean - (claim.published or 0)) <= 0.05 + 1e-9
            told = "as printed" if printed else f"but {claim.published} is printed"
            said = f"the authors' own five logs give {percent(mean)}, {told}: no new measurement"
            return not_tested(claim, said, accuracy=mean, as_printed=printed)
        return not_tested(claim)
    mean = sum(one.accuracy for one in fit) / len(fit)
    published = sum(logged(claim.model, benchmark) or 0.0 for benchmark in reference.TABLE_BENCHMARKS) / len(fit)
    se = math.sqrt(sum(_draw_variance(one) for one in fit)) / len(fit)
    p_value = float(2 * stats.norm.sf(abs(published - mean) / se)) if se else float(published == mean)
    word: Word = "compatible" if p_value >= ALPHA else "not reproduced"
    said = f"{percent(mean)} measured, {percent(published)} published, standard error of the difference {percent(se)}"
    numbers = {"accuracy": mean, "published": published, "se": se, "p": p_value, "k": [one.k for one in fit]}
    sources = tuple(dict.fromkeys(one.source for one in fit))
    return ClaimVerdict(word, f"{said}; {p_said(p_value)}", rule, numbers, sources, LEVELS[fit[0].origin])


def _draw_variance(one: Measured) -> float:
    """Variance of a new single draw minus the measured mean, problems fixed."""
    return new_draw_variance(one) * (1 + 1 / one.k)


def new_draw_variance(one: Measured) -> float:
    """Variance of a new single draw on the same problems: k se_fixed**2, unbiased for sum p_i (1 - p_i) / n**2.

    Where the verdicts by problem don't tell, one rate for all problems bounds it from above.
    """
    if one.k >= 2 and one.rows:
        return one.k * float(avg_at_k(rows_of(one)).se_fixed or 0.0) ** 2
    return one.accuracy * (1 - one.accuracy) / one.n


def above(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_above(claim, evidence) for claim in family]


def _above(claim: Claim, evidence: Evidence) -> ClaimVerdict:
    rule = (
        "the 95 % interval of the mean on these very problems lies above the threshold: reproduced; below: not"
        " reproduced; else compatible. The threshold is taken as exact, although it is a measurement too"
    )
    one = best(evidence, claim.model, claim.benchmark)
    if one is None:
        return not_tested(claim)
    if one.excluded_reason or not rows_of(one):
        return (
            excluded(claim, one)
            if one.excluded_reason
            else not_tested(claim, f"{one.source} tells no verdicts by problem")
        )
    score, threshold = avg_at_k(rows_of(one)), (claim.threshold or 0.0) / 100
    interval = (score.fixed.low, score.fixed.high)
    word: Word = "compatible"
    if interval[0] > threshold:
        word = "reproduced"
    elif interval[1] < threshold:
        word = "not reproduced"
    said = f"{percent(score.value)} measured (n = {one.n}, k = {one.k}), 95 % interval {span(interval)}"
    numbers = {"accuracy": score.value, "n": one.n, "k": one.k, "interval": list(interval), "threshold": threshold}
    return capped(ClaimVerdict(word, f"{said}, threshold {percent(threshold)}", rule, numbers, (one.source,)), one)


RULES: Mapping[str, Rule] = {"score": scores, "average": averages, "above": above}
