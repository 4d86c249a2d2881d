"""All rules over all claims."""

from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence, Rule, claims


def judge(evidence: Evidence) -> list[tuple[Claim, ClaimVerdict]]:
    """A verdict on every claim, in the order of claims(). Claims of one kind are judged together (Holm)."""
    from openrs.report.verdicts import cost_rules, paired_rules, score_rules, training_rules

    rooms = (score_rules, paired_rules, training_rules, cost_rules)
    rules: dict[str, Rule] = {kind: rule for room in rooms for kind, rule in room.RULES.items()}
    every = claims()
    verdicts: dict[str, ClaimVerdict] = {}
    for kind in dict.fromkeys(claim.kind for claim in every):
        family = [claim for claim in every if claim.kind == kind]
        for claim, verdict in zip(family, rules[kind](family, evidence), strict=True):
            verdicts[claim.id] = verdict
    return [(claim, verdicts[claim.id]) for claim in every]
