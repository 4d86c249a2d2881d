"""Claims that answer one question are one family: all its tests together err in at most 5 of 100 such reports.

Holm's correction runs over the family, for each kind of error apart (`differs`; `up`, `down`; `within` a margin): a
true claim is called `not reproduced`, or a false one `reproduced`, anywhere in the family in at most 5 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openrs.evaluation.statistics import holm
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence


@dataclass(frozen=True, slots=True)
class Corrected:
    """p: p-values of one claim after Holm, by question. tests: how many claims of the family are tested."""

    p: Mapping[str, float]
    tests: int


@dataclass(frozen=True, slots=True)
class Tests:
    """What the data say on one claim. p: p-values by the question asked of them. verdict: from the corrected ones."""

    p: Mapping[str, float]
    verdict: Callable[[Corrected], ClaimVerdict]


Prepared = ClaimVerdict | Tests
Rule = Callable[[Claim, Evidence], Prepared]


def decide(prepared: Sequence[Prepared]) -> list[ClaimVerdict]:
    """Verdicts of one family, in its order."""
    tested = {str(i): entry for i, entry in enumerate(prepared) if isinstance(entry, Tests)}
    asked = dict.fromkeys(question for entry in tested.values() for question in entry.p)
    corrected = {
        question: holm({i: entry.p[question] for i, entry in tested.items() if question in entry.p})
        for question in asked
    }
    return [
        entry
        if isinstance(entry, ClaimVerdict)
        else entry.verdict(Corrected({question: corrected[question][str(i)] for question in entry.p}, len(tested)))
        for i, entry in enumerate(prepared)
    ]
