"""Rules on `better than the base`: paired tests on the same problems, with equal sampling; and what pairs they take."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from openrs.evaluation.statistics import PairedDifference, equivalent, holm, paired_difference
from openrs.report.evidence import reference
from openrs.report.evidence.evaluations import comparable
from openrs.report.evidence.sources import Measured
from openrs.report.evidence.values import p_said, point_span, points
from openrs.report.verdicts.claims import ALPHA, Claim, ClaimVerdict, Evidence, Rule, Word, not_tested
from openrs.report.verdicts.score_rules import LEVELS, capped, new_draw_variance


def pair_of(evidence: Evidence, model: str | None, benchmark: str | None) -> tuple[Measured, Measured] | None:
    """Base and model, both with verdicts by problem, on shared problems and with equal sampling; most samples first."""
    usable = [one for one in evidence.measured if one.rows and not one.excluded_reason and one.benchmark == benchmark]
    bases = [one for one in usable if one.model == reference.tree()["base"]]
    pairs = [
        (base, one)
        for one in usable
        for base in bases
        if one.model == model
        and comparable(base.protocol, one.protocol) == "same"
        and len(shared(base.rows, one.rows)) == one.n
    ]
    return max(pairs, key=lambda pair: (pair[1].origin == "released weights", pair[0].k + pair[1].k), default=None)


def shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [problem for problem in a if problem in b]


def paired(before: Mapping[str, list[int]], after: Mapping[str, list[int]]) -> PairedDifference:
    """after - before on the problems that both have."""
    both = shared(before, after)
    return paired_difference([after[problem] for problem in both], [before[problem] for problem in both])


def pooled(seeds: Sequence[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """A problem's samples of all seeds together. Equal ones (the same base, the same evaluation seed) count once."""
    pool: dict[str, list[int]] = {}
    for i, rows in enumerate(seeds):
        if not any(rows == earlier for earlier in seeds[:i]):
            for problem, marks in rows.items():
                pool[problem] = pool.get(problem, []) + marks
    return pool


def better(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    """`Better than the base`: a paired test on the same problems; Holm over these claims."""
    pairs = [pair_of(evidence, claim.model, claim.benchmark) for claim in family]
    tests = [paired(pair[0].rows, pair[1].rows) if pair else None for pair in pairs]
    corrected = holm({str(i): test.p_value for i, test in enumerate(tests) if test})
    return [
        not_tested(claim) if pair is None or test is None else _better(claim, pair, test, corrected[str(i)])
        for i, (claim, pair, test) in enumerate(zip(family, pairs, tests, strict=True))
    ]


def _better(claim: Claim, pair: tuple[Measured, Measured], test: PairedDifference, corrected: float) -> ClaimVerdict:
    margin = float(reference.tree()["margins"][claim.benchmark])
    rule = (
        "paired by problem: reproduced when the difference is above 0 with Holm-corrected p < 0.05; not reproduced when"
        f" it is below 0 so, or proven smaller than {margin:g} points (TOST); else compatible"
    )
    rows = [[one.rows[p] for p in shared(pair[0].rows, pair[1].rows)] for one in (pair[1], pair[0])]
    equal = test.n > 1 and equivalent(rows[0], rows[1], margin).equivalent
    word: Word = "compatible"
    if corrected < ALPHA:
        word = "reproduced" if test.difference > 0 else "not reproduced"
    elif equal:
        word = "not reproduced"
    numbers = {**difference_numbers(test), "p_holm": corrected, "equivalent": equal}
    said = f"{difference_said(test)}, {p_said(corrected, 'Holm p')}"
    said += f"; equal within {margin:g} points (TOST)" if equal else ""
    return capped(ClaimVerdict(word, said, rule, numbers, (pair[0].source, pair[1].source)), pair[1])


def gains(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_gain(claim, evidence) for claim in family]


def _gain(claim: Claim, evidence: Evidence) -> ClaimVerdict:
    rule = (
        "paired by problem: compatible when the published gain differs from the measured one with p >= 0.05 (normal;"
        " noise of the measured difference over problems and of one published draw); it can't be more than compatible"
    )
    pair = pair_of(evidence, claim.model, claim.benchmark)
    if pair is None:
        return not_tested(claim)
    test, published = paired(pair[0].rows, pair[1].rows), (claim.published or 0.0) / 100
    se = math.hypot(test.se if test.n > 1 else 1.0, math.sqrt(new_draw_variance(pair[1])))
    p_value = float(2 * stats.norm.sf(abs(published - test.difference) / se)) if se else float(published == 0)
    word: Word = "compatible" if p_value >= ALPHA else "not reproduced"
    said = f"{difference_said(test)}; {points(published)} published, differs with {p_said(p_value)}"
    numbers = {**difference_numbers(test), "published": published, "se": se, "p_published": p_value}
    return ClaimVerdict(word, said, rule, numbers, (pair[0].source, pair[1].source), LEVELS[pair[1].origin])


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


RULES: Mapping[str, Rule] = {"better": better, "gain": gains}
