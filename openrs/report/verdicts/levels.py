"""The four levels of reproduction, and how far each was tried: printed at the head of every report."""

from collections.abc import Sequence
from typing import Any, Literal

from openrs.evaluation.statistics import equivalent_to_published
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured, other_sampling
from openrs.report.evidence.values import percent
from openrs.report.verdicts.claims import SEEDS, Claim, ClaimVerdict, Evidence
from openrs.report.verdicts.judge import FAMILIES
from openrs.report.verdicts.score_rules import reevaluated, rows_of
from openrs.report.verdicts.training_rules import fullest, of_paper

Tone = Literal["good", "warn", "bad", "none"]
TRAINING_QUESTIONS = ("Do scores rise and fall in training?", "How do length and KL go in training?")
TITLES = {
    "L0": "the same inputs",
    "L1": "re-executed bit for bit",
    "L2": "evaluation reproduced",
    "L3": "training reproduced",
}


def levels(evidence: Evidence, judged: Sequence[tuple[Claim, ClaimVerdict]]) -> list[dict[str, Any]]:
    """One entry a level: state in a word or two, tone for its badge, said in a sentence. Untried ones say so."""
    found = (
        inputs(evidence.measured),
        bit_for_bit(evidence.measured),
        evaluation(evidence),
        training(evidence, judged),
    )
    return [
        {"level": level, "title": title, "state": state, "tone": tone, "said": said}
        for (level, title), (state, tone, said) in zip(TITLES.items(), found, strict=True)
    ]


def inputs(measured: Sequence[Measured]) -> tuple[str, Tone, str]:
    """L0: input hashes equal to those in the authors' logs, model by model; other people's models prove nothing."""
    compared = [
        one
        for one in measured
        if one.benchmark in reference.tree()["problems"] and one.inputs in ("verified", "differs")
    ]
    own = [one for one in compared if _of_the_paper(one)]
    equal = [one for one in own if one.inputs == "verified"]
    differing = [one for one in own if one.inputs == "differs"]
    others = [one for one in compared if not _of_the_paper(one)]
    more = f"; not counted, for they are other models: {_pairs(others)}" if others else ""
    names = ", ".join(dict.fromkeys(reference.name(one.benchmark) for one in equal))
    same = f"input hashes equal the authors' logs on {names}"
    if equal and differing:
        return "proven in part", "warn", f"{same}; they differ on {_pairs(differing)}{more}"
    if differing:
        return "differs", "bad", f"input hashes differ from the authors' logs on {_pairs(differing)}{more}"
    if equal:
        return "proven", "good", f"{same}{more}"
    return "not tried", "none", f"no evaluation here has input hashes to compare with the authors' logs{more}"


def _of_the_paper(one: Measured) -> bool:
    """The base, Open-RS1 ... 3, a checkpoint of the authors, or a training of the paper's experiments here."""
    return one.model is not None or one.experiment is not None


def bit_for_bit(measured: Sequence[Measured]) -> tuple[str, Tone, str]:
    """L1: an evaluation of ours generated exactly the tokens of the authors' log."""
    own = [
        one for one in measured if one.origin == "released weights" and one.tokens and not other_sampling(one.protocol)
    ]
    equal = [one for one in own if (log := reference.log_of(one.tokens)) and log.model == one.model]
    logged = {(log.model, log.benchmark) for log in reference.logs()}
    tried = [one for one in own if (one.model, one.benchmark) in logged]
    if equal:
        return "proven", "good", f"the same tokens as in the authors' logs on {_pairs(equal)}"
    if tried:
        return "other tokens", "warn", f"one sample a problem on {_pairs(tried)}: not the tokens of the authors' logs"
    if any(one.origin == "authors' log" for one in measured):
        return "not tried", "none", "the result files here are the authors' own logs, not a new execution"
    return "not tried", "none", "needs released weights, the paper's packages and an A40, one sample a problem"


def evaluation(evidence: Evidence) -> tuple[str, Tone, str]:
    """L2: released weights, many samples, equivalent to the independent re-evaluation at its sampling."""
    study = reference.tree()["reevaluations"][0]
    own = [one for one in evidence.measured if one.origin == "released weights" and one.model and one.k >= 2]
    equal, told = 0, []
    for one in own:
        if (again := reevaluated(one)) is not None:
            mean, seeds = again
            margin = float(reference.tree()["margins"][one.benchmark])
            equal += equivalent_to_published(rows_of(one), mean, seeds, margin).equivalent
            scores = f"{percent(one.accuracy)} against {percent(mean)} +- {margin:g}"
            told.append(f"{one.model} on {reference.name(one.benchmark)} {scores}")
    if told:
        said = f"TOST against {study['source']}: {'; '.join(told)}"
        if equal == len(told):
            return "equivalent", "good", said
        return f"{equal} of {len(told)} equivalent", "warn", said
    if own:
        said = f"evaluated with k >= 2: {_pairs(own)}; no equivalence test was possible at this sampling"
        return "tried", "warn", said
    return "not tried", "none", "needs released weights evaluated with many samples a problem"


def training(evidence: Evidence, judged: Sequence[tuple[Claim, ClaimVerdict]]) -> tuple[str, Tone, str]:
    """L3: three or more seeds of one of the paper's experiments, the checkpoint rule fixed before training."""
    seeds = fullest(of_paper(evidence.runs))
    if not seeds:
        return "not tried", "none", "needs three seeds of one of the paper's experiments"
    name, count = seeds[0].experiment, f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    if len(seeds) < SEEDS:
        return count, "warn", f"{count} of {name}; {SEEDS} are needed for a verdict"
    kinds = [kind for question in TRAINING_QUESTIONS for kind in FAMILIES[question]]
    told = [verdict for claim, verdict in judged if claim.kind in kinds and verdict.word != "not tested"]
    good = sum(verdict.word == "reproduced" for verdict in told)
    tone: Tone = "good" if told and good == len(told) else "warn"
    return count, tone, f"{count} of {name}: {good} of {len(told)} claims tested are reproduced"


def _pairs(measured: Sequence[Measured]) -> str:
    return ", ".join(dict.fromkeys(f"{reference.name(one.benchmark)} ({one.model or one.name})" for one in measured))
