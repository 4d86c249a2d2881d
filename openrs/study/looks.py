"""Looks at a claim while its samples grow: the report's own rule, given p-values that count the looks made.

A look is of the first k samples of every problem, for both models. It is spent, and written down, before anything of it
is computed or shown; a crash gives none back, and the same look is finished from the same samples. Holm's correction
counts every claim of the question in the study, tested or not, so that no later one takes a verdict back.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from openrs.errors import UserError
from openrs.evaluation.statistics import holm
from openrs.report.evidence import reference
from openrs.report.evidence.pooling import pooled
from openrs.report.evidence.sources import Measured, gather, measured
from openrs.report.evidence.values import point_span
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence
from openrs.report.verdicts.family import Corrected, Tests
from openrs.report.verdicts.judge import FAMILIES, RULES
from openrs.report.verdicts.paired_rules import pair_of, shared
from openrs.study import sequential
from openrs.study.settings import Study, study_claims
from openrs.study.state import State

OPEN = ("cannot tell", "not tested")  # words after which looking goes on


def next_look(study: Study, state: State, name: str) -> int | None:
    """Samples a problem of the next look at a claim; None when a verdict is in, or no look is left."""
    looks, made = study.claims[name].looks, state.looks(name)
    if made and "word" not in made[-1]:  # spent, and then something crashed
        return int(made[-1]["samples"])
    if closed(study, state, name):
        return None
    last = made[-1]["samples"] if made else 0
    return next((look for look in looks if look > last), None)


def closed(study: Study, state: State, name: str) -> bool:
    """Whether a claim has its verdict, or all its looks are made."""
    made = state.looks(name)
    if not made or "word" not in made[-1]:
        return False
    return made[-1]["word"] not in OPEN or made[-1]["samples"] >= study.claims[name].looks[-1]


def ready(study: Study, state: State, name: str) -> bool:
    """Whether every job that the claim needs has the samples of the next look."""
    look = next_look(study, state, name)
    jobs = [state.tree["jobs"].get(job, {}) for job in study.claims[name].needs[0]]
    return look is not None and all(int(job.get("samples", 0)) >= look for job in jobs)


def make(study: Study, state: State, name: str, folder: Path) -> str:
    """Make the next look; returns what it says. folder: the run that keeps the evaluations.

    Raises UserError when the samples of a look that was spent are not those that are there now.
    """
    samples = next_look(study, state, name)
    assert samples is not None
    claim = next(one for one in study_claims(study) if one.id == name)
    evidence = evidence_at(folder, claim, samples)
    digest = digest_of(evidence)
    made = state.looks(name)
    entry = made[-1] if made and "word" not in made[-1] else state.spend(name, samples, digest)
    if entry["sha256"] != digest:
        raise UserError(
            f"the samples of the look at {name} with {samples} a problem have changed since it was spent",
            "a look at other samples would be another look",
            "bring the evaluation's folder back, or start a new --run",
        )
    tests = RULES[claim.kind](claim, evidence)
    times = times_of(study, state, name)
    entry["p"] = repeated(claim, evidence, tests, times, rounds_of(state, name)) if isinstance(tests, Tests) else {}
    verdict = verdict_at(study, state, claim, evidence)
    entry["word"] = verdict.word
    state.write()
    return f"{name}: {verdict.word}. {verdict.said}"


def verdicts(study: Study, state: State, folder: Path) -> dict[str, ClaimVerdict]:
    """The verdicts of all claims that were looked at, at their last finished look, for the report."""
    found = {}
    for claim in study_claims(study):
        made = [look for look in state.looks(claim.id) if "word" in look]
        if made:
            found[claim.id] = verdict_at(study, state, claim, evidence_at(folder, claim, made[-1]["samples"]))
    return found


def verdict_at(study: Study, state: State, claim: Claim, evidence: Evidence) -> ClaimVerdict:
    """The rule's verdict on the samples of the claim's last look, with repeated p-values and Holm over the question."""
    tests = RULES[claim.kind](claim, evidence)
    made = [look for look in state.looks(claim.id) if "p" in look]
    if not isinstance(tests, Tests) or not made or not made[-1]["p"]:
        return tests if isinstance(tests, ClaimVerdict) else tests.verdict(Corrected(dict.fromkeys(tests.p, 1.0), 1))
    own: Mapping[str, float] = made[-1]["p"]
    corrected = {question: corrected_p(study, state, claim, question) for question in own}
    verdict = tests.verdict(Corrected(corrected, len(family(study, claim))))
    said, numbers = described(study, state, claim, evidence)
    return replace(
        verdict,
        said=f"{verdict.said}; {said}",
        rule=f"{verdict.rule}. Looked at more than once: p-values are repeated ones (docs/study.md)",
        numbers={**verdict.numbers, **numbers},
    )


# --- p-values ---------------------------------------------------------------------------------------------------------


def family(study: Study, claim: Claim) -> list[str]:
    """The claims of the study that answer the same question."""
    kinds = next(kinds for kinds in FAMILIES.values() if claim.kind in kinds)
    return [one.id for one in study_claims(study) if one.kind in kinds]


def corrected_p(study: Study, state: State, claim: Claim, question: str) -> float:
    """Holm over the question's claims; one without a look has p 1, and one that is looked at once counts with it."""
    p_values = dict.fromkeys(family(study, claim), 1.0)
    for name in p_values:
        made = [look for look in state.looks(name) if question in look.get("p", {})]
        if made:
            p_values[name] = float(made[-1]["p"][question])
    return holm(p_values)[claim.id]


def repeated(
    claim: Claim, evidence: Evidence, tests: Tests, times: Sequence[float], rounds: list[int]
) -> dict[str, float]:
    """The rule's p-values with the looks made counted. With a single look at all samples they are the rule's own."""
    found = {}
    for question, p_value in tests.p.items():
        if question == "within":  # one-sided, the larger of two
            found[question] = sequential.normal_p(p_value, times)
        elif claim.kind == "better":
            found[question] = sequential.flip_p(differences_of(claim, evidence, rounds), times)
        else:
            found[question] = min(1.0, 2 * sequential.normal_p(p_value / 2, times))
    return found


def rounds_of(state: State, name: str) -> list[int]:
    """Samples at which the looks so far were made."""
    return [int(look["samples"]) for look in state.looks(name)]


def times_of(study: Study, state: State, name: str) -> tuple[float, ...]:
    """Information fractions of the looks made. A look made before an accepted change of the plan counts as planned."""
    made = rounds_of(state, name)
    return sequential.Looks(tuple(sorted({*study.claims[name].looks, *made})), tuple(made)).times


def differences_of(claim: Claim, evidence: Evidence, rounds: list[int]) -> sequential.Ints:
    """[looks, n]: right samples of the model less those of the base, in each round and problem."""
    pair = pair_of(evidence, claim.model, claim.benchmark)
    assert pair is not None
    base, model = pair
    both = shared(base.rows, model.rows)
    after, before = (np.array([one.rows[problem] for problem in both]) for one in (model, base))
    edges = [0, *rounds]
    return np.array([(after - before)[:, low:high].sum(axis=1) for low, high in pairwise(edges)])


# --- evidence and words -----------------------------------------------------------------------------------------------


def evidence_at(folder: Path, claim: Claim, samples: int) -> Evidence:
    """What is known of the claim's benchmark from the first `samples` samples of every problem."""
    every = pooled(measured(gather([f"{folder}/"])))
    models = {claim.model, str(reference.tree()["base"]) if claim.kind == "better" else claim.model}
    wanted = [one for one in every if one.benchmark == claim.benchmark and one.model in models]
    return Evidence([first(one, samples) for one in wanted], [], [])


def first(one: Measured, samples: int) -> Measured:
    rows = {problem: marks[:samples] for problem, marks in one.rows.items()}
    if not rows or min(map(len, rows.values())) < samples:
        return one
    mean = sum(map(sum, rows.values())) / len(rows) / samples
    return replace(one, rows=rows, k=samples, accuracy=mean, stderr=None, metric=f"avg@{samples}")


def digest_of(evidence: Evidence) -> str:
    """SHA-256 of every verdict that a look rests on."""
    rows = [[one.name, one.benchmark, one.rows] for one in evidence.measured]
    return hashlib.sha256(json.dumps(sorted(rows, key=str)).encode()).hexdigest()


def described(study: Study, state: State, claim: Claim, evidence: Evidence) -> tuple[str, dict[str, object]]:
    """Which look it was; of two models also the repeated interval and the median-unbiased estimate."""
    made, planned = rounds_of(state, claim.id), study.claims[claim.id].looks
    said = f"look {len(made)} of {len(planned)}, with {made[-1]} of {planned[-1]} samples a problem"
    numbers: dict[str, object] = {"looks": made, "planned": planned}
    pair = pair_of(evidence, claim.model, claim.benchmark) if claim.kind == "better" else None
    if pair is not None:
        base, model = pair
        both = shared(base.rows, model.rows)
        after, before = (np.array([sum(one.rows[problem]) for problem in both]) for one in (model, base))
        times = times_of(study, state, claim.id)
        low, high = sequential.difference_bounds(after, before, made[-1], sequential.interval_tail(times))
        value = float((after.mean() - before.mean()) / made[-1])
        se = 0.0  # of one sample a problem nothing tells its noise
        if made[-1] > 1:
            se = math.hypot(*(float(sequential.sampling_errors(side, made[-1])[0]) for side in (after, before)))
        estimate = sequential.unbiased_estimate(value, se, times)
        span = (float(low), float(high))
        said += f"; repeated 95 % interval {point_span(span)}, median-unbiased estimate {100 * estimate:+.1f} points"
        numbers |= {"repeated_interval": list(span), "unbiased_estimate": estimate}
    return said, numbers
