"""Looks at a claim while its samples grow: the report's own rule, given p-values that count the looks made.

A look is of the first k samples of every problem, for both models. It is spent, and written down, before anything of it
is computed or shown; a crash gives none back, and the same look is finished from the same samples. Holm's correction
counts every claim of the question in the study, tested or not, so that no later one takes a verdict back.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from openrs.errors import UserError
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured, gather, measured, pooled
from openrs.report.evidence.values import point_span
from openrs.report.verdicts.claims import UNDECIDED, Claim, ClaimVerdict, Evidence, not_tested
from openrs.report.verdicts.family import Corrected, Prepared, Tests
from openrs.report.verdicts.judge import FAMILIES, RULES, judge
from openrs.report.verdicts.paired_rules import pair_of, shared
from openrs.study import sequential
from openrs.study.settings import SEQUENTIAL, Study, study_claims
from openrs.study.state import State


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
    return made[-1]["word"] not in UNDECIDED or made[-1]["samples"] >= study.claims[name].looks[-1]


def ready(study: Study, state: State, name: str) -> bool:
    """Whether every job that the claim needs has the samples of the next look."""
    look = next_look(study, state, name)
    return look is not None and all(state.samples(job) >= look for job in study.claims[name].needs[0])


def look_at(study: Study, state: State, name: str, found: Sequence[Measured]) -> str:
    """Make the next look at these evaluations; returns what it says. What it rejects may decide other claims, too.

    Raises UserError when the samples of a look that was spent are not those that are there now.
    """
    samples = next_look(study, state, name)
    assert samples is not None
    every = study_claims(study)
    claim = next(one for one in every if one.id == name)
    evidence = evidence_at(found, claim, samples)
    if missing := models_of(claim) - {one.model for one in evidence.measured if one.k >= samples}:
        raise UserError(
            f"{claim.benchmark} of {', '.join(sorted(map(str, missing)))} is not there with {samples} samples",
            f"the look at {name} would be spent on nothing",
            "bring the folder of evaluations back; or name the models in the study as paper:open-rs3 ... and give a new"
            " --run",
        )
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
    rounds = rounds_of(state, name)
    times = times_of(study, claim, rounds)
    p_values = repeated(claim, evidence, tests, times, rounds) if isinstance(tests, Tests) else {}
    entry |= {"p": p_values, "word": "cannot tell"}
    known = prepared(study, state, found)
    judged = {one.id: verdict for one, verdict in judge(Evidence([], [], []), family(study), known=known)}
    for one, verdict in judged.items():
        last = state.looks(one)[-1:]
        if last and last[0].get("word") in UNDECIDED:  # what is decided stays decided
            last[0]["word"] = verdict.word
    state.write()
    return f"{name}: {judged[name].word}. {judged[name].said}"


# --- what the report's rules are given --------------------------------------------------------------------------------


def family(study: Study, asked: Sequence[str] = SEQUENTIAL) -> list[Claim]:
    """The claims of the study that answer a question with claims of these kinds, by default all that may have looks."""
    kinds = {kind for kinds in FAMILIES.values() if set(asked) & set(kinds) for kind in kinds}
    return [claim for claim in study_claims(study) if claim.kind in kinds]


def prepared(study: Study, state: State, found: Sequence[Measured]) -> dict[str, Tests]:
    """What Holm's correction is given of each claim of the question: p-values that count the looks made.

    Every claim counts, tested or not, so that none that comes later takes a verdict back; one of which nothing is known
    yet has p 1. Empty for a study without looks: then the report's rules need no help.
    """
    every = family(study)
    if not any(study.claims[claim.id].looks or state.looks(claim.id) for claim in every):
        return {}
    fixed = Evidence(pooled(cut(study, found)), [], [])
    tests: dict[str, Tests] = {}
    for claim in every:
        looked = study.claims[claim.id].looks or state.looks(claim.id)
        own = _looked_at(study, state, claim, found) if looked else RULES[claim.kind](claim, fixed)
        tests[claim.id] = own if isinstance(own, Tests) else _counted(claim, own)
    return tests


def _counted(claim: Claim, verdict: ClaimVerdict) -> Tests:
    """A claim that was not tested, with p 1 for what its kind asks."""
    questions = {"better": ("differs", "within"), "same": ("within", "beyond")}.get(claim.kind, ("differs",))
    return Tests(dict.fromkeys(questions, 1.0), lambda _: verdict)


def _looked_at(study: Study, state: State, claim: Claim, found: Sequence[Measured]) -> Prepared:
    """The claim at its last finished look. A look that a crash left unfinished shows nothing."""
    made = [look for look in state.looks(claim.id) if "word" in look]
    if not made:
        return not_tested(claim, "no look was made yet")
    rounds = [int(look["samples"]) for look in made]
    evidence = evidence_at(found, claim, rounds[-1])
    if digest_of(evidence) != made[-1]["sha256"]:
        return not_tested(claim, f"the samples of its look with {rounds[-1]} a problem are not those of then")
    tests = RULES[claim.kind](claim, evidence)
    if not isinstance(tests, Tests):
        return tests

    planned = planned_looks(study, claim.id, rounds)
    _, last = sequential.last_boundary(times_of(study, claim, planned))

    def verdict(corrected: Corrected) -> ClaimVerdict:
        plain = tests.verdict(corrected)
        said, numbers = described(study, claim, evidence, rounds, ended=plain.word not in UNDECIDED)
        return replace(
            plain,
            said=f"{plain.said}; {said}",
            rule=f"{plain.rule}. Looked at more than once: p-values are repeated ones; the last of {len(planned)} looks"
            f" asks for p < {last:.4f} instead of {sequential.ALPHA:g} (docs/study.md)",
            numbers={**plain.numbers, **numbers},
        )

    own = made[-1].get("p") or {}
    return Tests({question: float(own.get(question, 1.0)) for question in tests.p}, verdict)


def cut(study: Study, found: Sequence[Measured]) -> list[Measured]:
    """Evaluations that grow look by look, each with the samples of its first look.

    For claims that are judged once: how many samples they count must not depend on what was seen in between.
    """
    least: dict[tuple[str | None, str | None], int] = {}
    for claim in study_claims(study):
        if looks := study.claims[claim.id].looks:
            for model in models_of(claim):
                at = (model, claim.benchmark)
                least[at] = min(looks[0], least.get(at, looks[0]))
    return [
        first(one, least[one.model, one.benchmark])
        if one.origin == "released weights" and (one.model, one.benchmark) in least
        else one
        for one in found
    ]


# --- p-values ---------------------------------------------------------------------------------------------------------


def repeated(
    claim: Claim, evidence: Evidence, tests: Tests, times: Sequence[float], rounds: list[int]
) -> dict[str, float]:
    """The rule's p-values with the looks made counted. With a single look at all samples they are the rule's own."""
    if list(times) == [1.0]:
        return dict(tests.p)
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


def planned_looks(study: Study, name: str, rounds: Sequence[int]) -> list[int]:
    """A look made before an accepted change of the plan counts as planned."""
    return sorted({*study.claims[name].looks, *rounds})


def times_of(study: Study, claim: Claim, rounds: Sequence[int]) -> tuple[float, ...]:
    """Information fractions of the looks made; the noise of a published mean compared with does not shrink."""
    again = reference.reevaluation(claim.model, str(claim.benchmark)) if claim.kind == "same" else None
    last = planned_looks(study, claim.id, rounds)[-1]
    return tuple(sequential.information(k, last, again[2] if again else None) for k in rounds)


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


def evaluations(folder: Path) -> list[Measured]:
    """The scores that the run of a study's evaluations holds, none where it is not there yet."""
    return measured(gather([f"{folder}/"])) if folder.is_dir() else []


def models_of(claim: Claim) -> set[str | None]:
    return {claim.model, str(reference.tree()["base"])} if claim.kind == "better" else {claim.model}


def evidence_at(found: Sequence[Measured], claim: Claim, samples: int) -> Evidence:
    """What is known of the claim's benchmark from the first `samples` samples of every problem."""
    models = models_of(claim)
    wanted = [one for one in pooled(found) if one.benchmark == claim.benchmark and one.model in models]
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
    return hashlib.sha256(json.dumps(sorted(rows, key=str), sort_keys=True).encode()).hexdigest()


def described(
    study: Study, claim: Claim, evidence: Evidence, made: list[int], *, ended: bool
) -> tuple[str, dict[str, object]]:
    """Which look it was; of two models also the repeated interval, the median-unbiased estimate, and as long as looks
    are left what going on promises. made: samples at the looks up to this one."""
    planned = planned_looks(study, claim.id, made)
    said = f"look {len(made)} of {len(planned)}, with {made[-1]} of {planned[-1]} samples a problem"
    numbers: dict[str, object] = {"looks": made, "planned": planned}
    pair = pair_of(evidence, claim.model, claim.benchmark) if claim.kind == "better" else None
    if pair is not None:
        base, model = pair
        both = shared(base.rows, model.rows)
        after, before = (np.array([sum(one.rows[problem]) for problem in both]) for one in (model, base))
        times = times_of(study, claim, made)
        low, high = sequential.difference_bounds(after, before, made[-1], sequential.last_boundary(times)[1] / 2)
        value = float((after.mean() - before.mean()) / made[-1])
        se = 0.0  # of one sample a problem nothing tells its noise
        if made[-1] > 1:
            se = math.hypot(*(float(sequential.sampling_errors(side, made[-1])[0]) for side in (after, before)))
        estimate = sequential.unbiased_estimate(value, se, times)
        span = (float(low), float(high))
        said += f"; repeated 95 % interval {point_span(span)}, median-unbiased estimate {100 * estimate:+.1f} points"
        numbers |= {"repeated_interval": list(span), "unbiased_estimate": estimate}
        left = [look / planned[-1] for look in planned if look > made[-1]]
        if left and se and not ended:
            margin = float(reference.tree()["margins"][claim.benchmark])
            chance = sequential.conditional_power(value / se, times, left, margin / 100, se)
            said += (
                f"; going on finds a gain of {margin:g} points with a chance of {100 * chance:.0f} %, if there is one"
            )
            if chance < sequential.FUTILE:
                said += ": hardly worth it, and ending here errs no more often"
            numbers["conditional_power"] = chance
    return said, numbers
