"""All rules over all claims, family by family."""

from collections.abc import Collection, Mapping, Sequence

from openrs.report.verdicts import cost_rules, paired_rules, score_rules, training_rules
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence, claims
from openrs.report.verdicts.family import Rule, Tests, decide

RULES: Mapping[str, Rule] = {
    "score": score_rules.score,
    "average": score_rules.average,
    "above": score_rules.above,
    "same": score_rules.same,
    "better": paired_rules.better,
    "gain": paired_rules.gain,
    "early_gain": training_rules.early_gain,
    "decay": training_rules.decay,
    "improves": training_rules.improves,
    "length_falls": training_rules.length_falls,
    "length_rises": training_rules.length_rises,
    "length_level": training_rules.length_level,
    "kl_late": training_rules.kl_late,
    "samples": cost_rules.samples,
    "outputs": cost_rules.outputs,
    "hours": cost_rules.hours,
    "dollars": cost_rules.money,
    "cheaper": cost_rules.cheaper,
}

# The questions of the report, and the kinds of claims that answer each: Holm's correction runs within a question.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Are the printed scores what the released models give?": ("score", "average"),
    "Are the released models better than the base and o1-preview?": ("above", "gain", "better"),
    "Do scores rise and fall in training?": ("early_gain", "decay"),
    "How do length and KL go in training?": ("length_falls", "length_rises", "length_level", "kl_late"),
    "Is a recipe of one's own better than its base?": ("improves",),
    "Does an evaluation give what an independent one found?": ("same",),
    "What does training take?": ("samples", "outputs", "hours", "dollars", "cheaper"),
}


def judge(
    evidence: Evidence,
    every: Sequence[Claim] | None = None,
    own: Mapping[str, Collection[str]] | None = None,
    known: Mapping[str, Tests] | None = None,
) -> list[tuple[Claim, ClaimVerdict]]:
    """A verdict on every claim, in their order. every: other claims than claims(), of a simulated paper or of a study.
    own: the names of the runs that a claim is about, where not all are evidence on it.
    known: tests of claims that a study looked at before the end; they go into Holm's correction as they are.

    Raises ValueError for a kind of claim that stands in no family: no page would show it."""
    every = claims() if every is None else every
    if missing := sorted({claim.kind for claim in every}.difference(*FAMILIES.values())):
        raise ValueError(f"claims of kind {', '.join(missing)} answer no question: add it to FAMILIES in judge.py")
    verdicts: dict[str, ClaimVerdict] = {}
    for kinds in FAMILIES.values():
        family = [claim for claim in every if claim.kind in kinds]
        found = decide(
            [
                known[claim.id] if known and claim.id in known
                else RULES[claim.kind](claim, _about(claim, evidence, own or {}))
                for claim in family
            ]
        )  # fmt: skip
        verdicts |= {claim.id: verdict for claim, verdict in zip(family, found, strict=True)}
    return [(claim, verdicts[claim.id]) for claim in every]


def _about(claim: Claim, evidence: Evidence, own: Mapping[str, Collection[str]]) -> Evidence:
    if claim.id not in own:
        return evidence
    pairs = [
        (run, book) for run, book in zip(evidence.runs, evidence.ledgers, strict=True) if run.name in own[claim.id]
    ]
    return Evidence(evidence.measured, [run for run, _ in pairs], [book for _, book in pairs])
