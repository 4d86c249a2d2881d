"""All rules over all claims."""

from openrs.report.verdicts import cost_rules, paired_rules, score_rules, training_rules
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence, Rule, claims

RULES: dict[str, Rule] = {
    kind: rule
    for module in (score_rules, paired_rules, training_rules, cost_rules)
    for kind, rule in module.RULES.items()
}
"""Kind of a claim -> the rule that decides it."""


def judge(evidence: Evidence) -> list[tuple[Claim, ClaimVerdict]]:
    """A verdict on every claim, in the order of claims(). Claims of one kind are judged together (Holm)."""
    every = claims()
    verdicts: dict[str, ClaimVerdict] = {}
    for kind in dict.fromkeys(claim.kind for claim in every):
        family = [claim for claim in every if claim.kind == kind]
        for claim, verdict in zip(family, RULES[kind](family, evidence), strict=True):
            verdicts[claim.id] = verdict
    return [(claim, verdicts[claim.id]) for claim in every]
