"""All rules over all claims, family by family."""

from collections.abc import Mapping, Sequence

from openrs.report.verdicts import cost_rules, paired_rules, score_rules, training_rules
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence, claims
from openrs.report.verdicts.family import Rule, decide

RULES: Mapping[str, Rule] = {
    **score_rules.RULES,
    **paired_rules.RULES,
    **training_rules.RULES,
    **cost_rules.RULES,
}

# The questions of the report, and the kinds of claims that answer each: Holm's correction runs within a question.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Are the printed scores what the released models give?": ("score", "average"),
    "Are the released models better than the base and o1-preview?": ("above", "gain", "better"),
    "Do scores rise and fall in training?": ("early_gain", "decay"),
    "How do length and KL go in training?": ("length_falls", "length_rises", "length_level", "kl_late"),
    "What does training take?": ("samples", "outputs", "hours", "dollars", "cheaper"),
}


def judge(evidence: Evidence, every: Sequence[Claim] | None = None) -> list[tuple[Claim, ClaimVerdict]]:
    """A verdict on every claim, in their order. every: other claims than claims(), for a simulated paper.

    Raises ValueError for a kind of claim that stands in no family: no page would show it."""
    every = claims() if every is None else every
    if missing := sorted({claim.kind for claim in every}.difference(*FAMILIES.values())):
        raise ValueError(f"claims of kind {', '.join(missing)} answer no question: add it to FAMILIES in judge.py")
    verdicts: dict[str, ClaimVerdict] = {}
    for kinds in FAMILIES.values():
        family = [claim for claim in every if claim.kind in kinds]
        found = decide([RULES[claim.kind](claim, evidence) for claim in family])
        verdicts |= {claim.id: verdict for claim, verdict in zip(family, found, strict=True)}
    return [(claim, verdicts[claim.id]) for claim in every]
