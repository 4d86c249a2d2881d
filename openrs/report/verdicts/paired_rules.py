"""Rules on `better than the base`: paired tests on the same problems, with equal sampling; and what pairs they take."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from openrs.evaluation.statistics import PairedDifference, equivalent, paired_difference
from openrs.report.evidence import reference
from openrs.report.evidence.evaluations import comparable
from openrs.report.evidence.sources import Measured
from openrs.report.evidence.values import p_said, point_span, points
from openrs.report.verdicts.claims import ALPHA, Claim, ClaimVerdict, Evidence, Word, not_tested
from openrs.report.verdicts.family import Corrected, Prepared, Tests
from openrs.report.verdicts.score_rules import LEVELS, differs, draw_word, new_draw_variance, other_training


def pair_of(evidence: Evidence, model: str | None, benchmark: str | None) -> tuple[Measured, Measured] | None:
    """Base and model, both with verdicts by problem, on shared problems (two or more) and with equal sampling.

    Released weights first, then most samples; the order in which files were named decides nothing.
    """
    usable = [one for one in evidence.measured if one.rows and not one.excluded_reason and one.benchmark == benchmark]
    bases = [one for one in usable if one.model == reference.tree()["base"]]
    pairs = [
        (base, one)
        for one in usable
        for base in bases
        if one.model == model
        and comparable(base.protocol, one.protocol) == "same"
        and len(shared(base.rows, one.rows)) == one.n > 1
    ]
    return min(pairs, key=_rank, default=None)


def _rank(pair: tuple[Measured, Measured]) -> tuple[Any, ...]:
    base, model = pair
    return model.origin != "released weights", -base.k - model.k, base.source, model.source


def shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [problem for problem in a if problem in b]


def paired(before: Mapping[str, list[int]], after: Mapping[str, list[int]]) -> PairedDifference:
    """after - before on the problems that both have."""
    both = shared(before, after)
    return paired_difference([after[problem] for problem in both], [before[problem] for problem in both])


def one_sided(test: PairedDifference) -> tuple[float, float]:
    """p-values of no rise and of no fall."""
    rise = test.p_value / 2 if test.difference > 0 else 1 - test.p_value / 2
    fall = test.p_value / 2 if test.difference < 0 else 1 - test.p_value / 2
    return rise, fall


def pooled(seeds: Sequence[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """A problem's samples of all seeds together. Equal ones (the same base, the same evaluation seed) count once."""
    pool: dict[str, list[int]] = {}
    for i, rows in enumerate(seeds):
        if not any(rows == earlier for earlier in seeds[:i]):
            for problem, marks in rows.items():
                pool[problem] = pool.get(problem, []) + marks
    return pool


def released_pair(claim: Claim, evidence: Evidence, rule: str) -> tuple[Measured, Measured] | ClaimVerdict:
    """The pair that can decide, or the verdict where none can."""
    pair = pair_of(evidence, claim.model, claim.benchmark)
    if pair is None:
        return not_tested(claim)
    if pair[1].origin == "trained here":
        return other_training(evidence, pair[1], rule)
    return pair


def better(claim: Claim, evidence: Evidence) -> Prepared:
    """`Better than the base`: a paired test on the same problems, and one of equivalence."""
    margin = float(reference.tree()["margins"][claim.benchmark])
    rule = (
        "paired by problem: reproduced when the difference is above 0 with p < 0.05 (Holm with the other claims against"
        f" the base), not reproduced when below 0 so; smaller than the margin when a gain of {margin:g} points is"
        " excluded (TOST, Holm); else the data cannot tell"
    )
    pair = released_pair(claim, evidence, rule)
    if isinstance(pair, ClaimVerdict):
        return pair
    base, model = pair
    both = shared(base.rows, model.rows)
    before, after = ([one.rows[problem] for problem in both] for one in (base, model))
    test = paired_difference(after, before)
    within = equivalent(after, before, margin).p_value

    def verdict(corrected: Corrected) -> ClaimVerdict:
        word: Word = "cannot tell"
        said = f"{difference_said(test)}, {p_said(corrected.p['differs'], 'Holm p')}"
        if corrected.p["within"] < ALPHA:
            word = "smaller than the margin"
            said += f"; no gain of the margin's size, {margin:g} points ({p_said(corrected.p['within'], 'Holm p')})"
        if corrected.p["differs"] < ALPHA:
            word = "reproduced" if test.difference > 0 else "not reproduced"
        numbers = {**difference_numbers(test), "p_holm": corrected.p["differs"], "p_within": corrected.p["within"]}
        numbers |= {"margin": margin / 100}
        return ClaimVerdict(word, said, rule, numbers, (base.source, model.source), LEVELS[model.origin])

    return Tests({"differs": test.p_value, "within": within}, verdict)


def gain(claim: Claim, evidence: Evidence) -> Prepared:
    """The published gain, one draw against another report's number, beside the measured one."""
    rule = (
        "paired by problem: not reproduced when the published gain differs from the measured one with p < 0.05 (Holm"
        " with the other claims against the base; noise of the measured difference over problems and of one published"
        " draw); else compatible from 4 samples a problem on"
    )
    pair = released_pair(claim, evidence, rule)
    if isinstance(pair, ClaimVerdict):
        return pair
    base, model = pair
    test, published = paired(base.rows, model.rows), (claim.published or 0.0) / 100
    se = math.hypot(test.se, math.sqrt(new_draw_variance(model)))
    p_value = differs(published - test.difference, se)

    def verdict(corrected: Corrected) -> ClaimVerdict:
        reach = float(stats.norm.isf(ALPHA / corrected.tests / 2)) * se
        accepted = (test.difference - reach, test.difference + reach)
        said = f"{difference_said(test)}; {points(published)} published, differs with {p_said(p_value)},"
        said += f" {p_said(corrected.p['differs'], 'Holm p')}; only a published gain outside"
        said += f" {point_span(accepted)} could have been excluded"
        more = {**difference_numbers(test), "published": published, "se": se, "p_published": p_value}
        more |= {"p_holm": corrected.p["differs"], "accepted": list(accepted)}
        word = draw_word(corrected, pair)
        return ClaimVerdict(word, said, rule, more, (base.source, model.source), LEVELS[model.origin])

    return Tests({"differs": p_value}, verdict)


def difference_said(test: PairedDifference) -> str:
    interval = (test.interval.low, test.interval.high)
    k = " and ".join(map(str, dict.fromkeys(test.k)))
    return (
        f"{points(test.difference)} points (n = {test.n}, k = {k}), 95 % interval {point_span(interval)},"
        f" {p_said(test.p_value)}"
    )


def difference_numbers(test: PairedDifference) -> dict[str, Any]:
    return {
        "difference": test.difference,
        "interval": [test.interval.low, test.interval.high],
        "p": test.p_value,
        "n": test.n,
        "k": list(test.k),
    }
