"""A study file: which jobs can be run, and which of them each claim needs. Typed, frozen, refused with file and line.

Never imports torch.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from openrs.config.faults import did_you_mean, refuse_secrets, setting_faults
from openrs.config.load import RECIPES
from openrs.config.schema import Evaluation, Settings
from openrs.config.yaml_lines import Lines, override, place_of, read_yaml
from openrs.errors import UserError
from openrs.hub import pins
from openrs.outside import is_file
from openrs.report.evidence import reference
from openrs.report.verdicts.claims import Claim, claims

STUDIES = RECIPES / "studies"
NAME = r"^[a-z0-9][a-z0-9.-]{0,59}$"
SCORED = ("score", "average", "above", "gain", "better")  # kinds of claims on evaluations; others are on trainings
SEQUENTIAL = ("better", "above", "same")  # kinds of claims that may be looked at more than once (docs/study.md)
FEW = 40  # problems up to which a look before 0.4 of all samples is spent on nothing (docs/study-design.md)


class Evaluate(Settings):
    """One model on some benchmarks: a job for each benchmark."""

    model: str = Field(description="paper:base, paper:open-rs3, paper:exp3@50 ..., a hub repository or a folder")
    sizes: str | None = Field(None, description="the hub name whose sizes it has, where the planner cannot know")
    samples: dict[str, int] = Field(min_length=1, description="benchmark -> completions per problem")
    tokens: dict[str, float] = Field(
        default_factory=dict, description="benchmark -> mean completion, where it is not the benchmark's usual one"
    )
    window: int | None = Field(None, ge=8, description="tokens that fit into the model's window, below the protocol's")


class Train(Settings):
    """One recipe with several seeds, each a job and a run: base evaluation, training to a step, evaluation, report."""

    recipe: str = Field(description="a recipe's name, or a YAML file beside the study")
    until: int | Literal["released", "whole"] = "whole"
    seeds: list[int] = Field(min_length=1)
    after: str | None = Field(None, description="the training whose runs this one continues, seed by seed")
    overrides: list[str] = Field(default_factory=list, alias="set", description="as --set: grpo.learning_rate=2e-6")


class ClaimSettings(Settings):
    """needs: sets of jobs, any one of which is enough. Everything else only for a claim of your own."""

    newer = frozenset({"kind"})

    needs: list[list[str]] = Field(default_factory=list, description="entries, or ENTRY/BENCHMARK")
    looks: list[int] = Field(
        default_factory=list, description="samples a problem at which it is looked at; none: once, at the end"
    )
    text: str | None = Field(None, description="of a claim of your own: my recipe is better than its base on ...")
    kind: Literal["same"] | None = Field(
        None, description="same: an evaluation gives what the re-evaluation found; none: a recipe beats its base"
    )
    benchmark: str | None = None
    margin: float | None = Field(None, gt=0, description="points; a smaller gain is none (fixed before the first look)")

    @model_validator(mode="after")
    def _looks_grow(self) -> "ClaimSettings":
        if self.looks != sorted(set(self.looks)) or any(look < 1 for look in self.looks):
            raise ValueError("looks must be numbers of samples that grow, such as [16, 24, 32, 40]")
        return self


class Study(Settings):
    """One study, whole."""

    title: str
    gpu: str = Field("A40", description="of the plan, where --gpu names no other")
    gpus: int = Field(1, ge=0)
    price: float | None = Field(None, ge=0, description="dollars per GPU-hour; the planner's where absent")
    evaluation: Evaluation = Evaluation()
    evaluations: dict[str, Evaluate] = Field(default_factory=dict)
    trainings: dict[str, Train] = Field(default_factory=dict)
    claims: dict[str, ClaimSettings] = Field(min_length=1)

    @property
    def hash(self) -> str:
        """SHA-256 of the whole tree: equal exactly when every setting is."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def packaged() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def study_file(name: str) -> Path | None:
    """The file of the study called `name`, or at that path; None when `name` is something else, a recipe for one."""
    if name in packaged():
        return STUDIES / f"{name}.yaml"
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"} or not is_file(path):
        return None
    return path if "claims" in read_yaml(path)[0] else None


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study. Raises UserError with file and line for an unknown key, a job that is needed and not there, a claim
    that is neither the paper's nor described."""
    tree, lines = read_yaml(path)
    for change in overrides:
        override(change, tree, lines, example="gpus=1")
    refuse_secrets(tree, lines)
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(setting_faults(error, Study, lines)), fix=f"see {STUDIES / 'paper.yaml'}") from None
    refuse_faults(study, lines, "see docs/study.md")
    return study


def refuse_faults(study: Study, lines: Lines, fix: str) -> None:
    """Raises UserError for what no single key shows: jobs that are not there, claims that need others."""
    if faults := [*_job_faults(study, lines), *_claim_faults(study, lines)]:
        raise UserError("\n".join(faults), fix=fix)


def _job_faults(study: Study, lines: Lines) -> list[str]:
    found = [
        f"{place_of((section, name), lines)}: {name!r} is not a name: a-z, 0-9, - and ."
        for section in ("evaluations", "trainings", "claims")
        for name in getattr(study, section)
        if not re.fullmatch(NAME, name)
    ]
    found += [
        f"{place_of(('trainings', name), lines)}: {name} is the name of an evaluation, too"
        for name in study.trainings
        if name in study.evaluations
    ]
    for name, one in study.evaluations.items():
        if any(samples < 1 for samples in one.samples.values()):
            found.append(f"{place_of(('evaluations', name, 'samples'), lines)}: a benchmark has less than one sample")
    for name, train in study.trainings.items():
        before = study.trainings.get(train.after or "")
        if train.after is None:
            continue
        where = place_of(("trainings", name, "after"), lines)
        if before is None or _circular(study, name):
            found.append(f"{where}: {name} cannot continue {train.after}; trainings: {', '.join(study.trainings)}")
        elif (before.recipe, before.overrides) != (train.recipe, train.overrides) or not set(train.seeds) <= set(
            before.seeds
        ):
            found.append(f"{where}: {train.after} has another recipe, other settings or not all seeds of {name}")
    return found


def _circular(study: Study, name: str) -> bool:
    """Whether a training continues, by whatever others, itself."""
    seen: set[str | None] = set()
    entry: str | None = name
    while entry in study.trainings and entry not in seen:
        seen.add(entry)
        entry = study.trainings[entry].after
    return entry in seen


def _claim_faults(study: Study, lines: Lines) -> list[str]:
    known, found = {claim.id: claim for claim in claims()}, []
    jobs = [*study.evaluations, *study.trainings]
    parts = {f"{name}/{benchmark}" for name, one in study.evaluations.items() for benchmark in one.samples}
    for name, claim in study.claims.items():
        where = place_of(("claims", name), lines)
        own = claim.text is not None
        if name not in known and not own:
            hint = did_you_mean(name, known)
            found.append(f"{where}: {name} is no claim of the paper, and has no text{'; ' + hint if hint else ''}")
        if name in known and (own or claim.kind or claim.benchmark or claim.margin):
            found.append(f"{where}: {name} is the paper's claim: its text, kind, benchmark and margin are fixed")
        if own and (claim.benchmark is None or claim.margin is None):
            found.append(f"{where}: a claim of your own needs benchmark and margin")
        if own and claim.kind is None and any(need not in study.trainings for needs in claim.needs for need in needs):
            there = ", ".join(study.trainings) or "there are none"
            found.append(f"{where}: a claim of your own needs trainings: {there}")
        found += [
            f"{where}: there is no job {need}; {did_you_mean(need, [*jobs, *parts]) or ', '.join(jobs)}"
            for needs in claim.needs
            for need in needs
            if need not in jobs and need not in parts
        ]
        found += [f"{where}: {fault}" for fault in _needs_faults(study, known.get(name), claim)]
        if claim.kind == "same" and (fault := _same_fault(study, claim)):
            found.append(f"{where}: {fault}")
        if claim.looks and (known[name].kind if name in known else claim.kind) not in SEQUENTIAL:
            found.append(f"{where}: {name} is looked at once: looks suit claims of kind {', '.join(SEQUENTIAL)}")
        found += _looks_faults(study, claim, where)
    return found


def _needs_faults(study: Study, paper: Claim | None, claim: ClaimSettings) -> list[str]:
    """A claim of the paper needs evaluations on its benchmark, or trainings, by its kind; no set of jobs is empty."""
    needs = [need for needs in claim.needs for need in needs]
    if not all(claim.needs):
        return ["needs has an empty set of jobs"]
    if paper is None:
        return []
    if paper.kind not in SCORED:
        return [
            f"a claim of kind {paper.kind} needs trainings, and {need} is none"
            for need in needs
            if need not in study.trainings
        ]
    faults = []
    for entry, _, benchmark in (need.partition("/") for need in needs):
        there = study.evaluations[entry].samples if entry in study.evaluations else {}
        wanted = paper.benchmark or benchmark
        if entry not in study.evaluations or (wanted and (wanted not in there or benchmark not in ("", wanted))):
            faults.append(f"it needs evaluations on {wanted or 'its benchmarks'}, and {entry} is none")
    return faults


def _same_fault(study: Study, claim: ClaimSettings) -> str:
    """Why no independent evaluation can be compared with, or ""."""
    again = reference.tree()["reevaluations"][0]
    (entry, _, benchmark), *more = (need.partition("/") for needs in claim.needs or [[""]] for need in needs or [""])
    if more or entry not in study.evaluations or benchmark != claim.benchmark:
        return "a claim of kind same needs one evaluation, [[ENTRY/BENCHMARK]], on its benchmark"
    if reference.reevaluation(_model_of(study, entry), benchmark) is None:
        return f"{again['source']} has no {benchmark} of {study.evaluations[entry].model}"
    if any(getattr(study.evaluation, key) != again[key] for key in ("temperature", "top_p")):
        return (
            f"{again['source']} sampled with temperature {again['temperature']}, top_p {again['top_p']}: set evaluation"
        )
    return ""


def _model_of(study: Study, entry: str) -> str | None:
    """The reference's name of an evaluation's model."""
    name = study.evaluations[entry].model
    known = pins.target(name)
    return reference.model_named(known[0].repo, known[0].revision) if known else reference.model_named(name)


def _looks_faults(study: Study, claim: ClaimSettings, where: str) -> list[str]:
    """The last look is at all samples of the jobs that the claim needs, and they are all of one benchmark; the first is
    not too early for its problems."""
    if not claim.looks:
        return []
    if len(claim.needs) != 1 or any("/" not in need for need in claim.needs[0]):
        return [f"{where}: looks need one set of jobs ENTRY/BENCHMARK"]
    parts = [need.partition("/")[::2] for need in claim.needs[0] if need.partition("/")[0] in study.evaluations]
    samples = {study.evaluations[entry].samples.get(benchmark) for entry, benchmark in parts}
    if len({benchmark for _, benchmark in parts}) != 1 or samples != {claim.looks[-1]}:
        return [f"{where}: the last look must be at the samples of its jobs, on one benchmark"]
    problems, first, last = reference.tree()["problems"].get(parts[0][1], FEW + 1), claim.looks[0], claim.looks[-1]
    if problems <= FEW and 5 * first < 2 * last:
        early = f"the first look, at {first} of {last} samples, is too early for {problems} problems"
        why = "so little may be spent there that hardly any result is a verdict"
        return [f"{where}: {early}: {why}; look from {math.ceil(2 * last / 5)} on"]
    return []


def study_claims(study: Study) -> list[Claim]:
    """The claims that the study asks about, as the report's rules take them: the paper's first, then its own."""
    paper = [claim for claim in claims() if claim.id in study.claims]
    own = [
        Claim(
            id=name,
            text=str(claim.text),
            where="a claim of this study",
            kind=claim.kind or "improves",
            level="L2" if claim.kind else "L3",
            needs=("" if claim.kind else "three seeds or more of ")
            + " or ".join(need for needs in claim.needs for need in needs),
            model=_model_of(study, claim.needs[0][0].partition("/")[0]) if claim.kind else None,
            benchmark=claim.benchmark,
            margin=claim.margin,
        )
        for name, claim in study.claims.items()
        if claim.text is not None
    ]
    return [*paper, *own]


def first_looks(study: Study) -> dict[str, int]:
    """ENTRY/BENCHMARK -> samples a problem of the first look that needs it: what claims count that are judged once."""
    found: dict[str, int] = {}
    for claim in study.claims.values():
        for need in claim.needs[0] if claim.looks else ():
            found[need] = min(claim.looks[0], found.get(need, claim.looks[0]))
    return found


def looking(study: Study, need: str) -> list[str]:
    """Claims that are looked at more than once, and need this job."""
    return [name for name, claim in study.claims.items() if claim.looks and need in claim.needs[0]]


def place_of_run(study: Study, entry: str, seed: int) -> str:
    """The run directory of a training in the study's folder: that of the entry whose runs it continues."""
    while (after := study.trainings[entry].after) is not None:
        entry = after
    return f"{entry}-seed{seed}"
