"""The chances of a verdict for every claim of a study, by simulation (power.py). Never imports torch."""

from collections.abc import Mapping
from pathlib import Path

from openrs.evaluation.benchmarks import resolve
from openrs.evaluation.protocols import samples_of
from openrs.report.verdicts.claims import Claim
from openrs.study import power
from openrs.study.difficulty import World
from openrs.study.jobs import recipe_of
from openrs.study.plan import Power, Powers
from openrs.study.settings import Study, first_looks, study_claims

TRIALS = 200  # of claims against the base: a chance is known to about 3.5 points
RULE_TRIALS = 24  # of claims on scores in training, which go through the rules themselves: to about 10 points


def powers_of(study: Study, folder: Path) -> Powers:
    """Claim -> chances if the paper is right and if the re-evaluations are, with the study's samples, looks and seeds.

    folder: of the study's file; recipes of your own lie in it.

    Claims without an entry have no power that anything published could tell: length, KL, hours, dollars, your own.
    """
    every = study_claims(study)
    by_world = [_chances(study, every, world, folder) for world in ("paper", "again")]
    return {
        name: Power(chance.decided, by_world[1][name].decided)
        for name, chance in by_world[0].items()
        if name in by_world[1]
    }


def _chances(study: Study, every: list[Claim], world: World, folder: Path) -> Mapping[str, power.Chances]:
    looks = {claim.id: samples for claim in every if (samples := looks_of(study, claim))}
    found = dict(power.against_base(every, looks, world, trials=TRIALS))
    in_training = [claim for claim in every if claim.kind in power.IN_TRAINING and study.claims[claim.id].needs]
    if in_training:
        seeds = min(
            len(study.trainings[need].seeds) for claim in in_training for need in study.claims[claim.id].needs[0]
        )
        drawn = training_samples(study, in_training, folder)
        found |= power.in_training(in_training, drawn, seeds, world, trials=RULE_TRIALS)
    return found


def looks_of(study: Study, claim: Claim) -> list[int]:
    """Samples a problem at each look; a claim without looks is judged once, with the samples of its jobs, or of their
    first look where they grow look by look."""
    settings = study.claims[claim.id]
    if settings.looks or claim.kind not in power.AGAINST_BASE or not settings.needs:
        return settings.looks
    parts = [need.partition("/")[::2] for need in settings.needs[0]]
    grown = first_looks(study)
    return [
        min(
            grown.get(f"{entry}/{claim.benchmark}", study.evaluations[entry].samples[str(claim.benchmark)])
            for entry, _ in parts
        )
    ]


def training_samples(study: Study, claims: list[Claim], folder: Path) -> dict[str, int]:
    """Benchmark -> samples a problem in the evaluations of the study's trainings."""
    train = study.trainings[study.claims[claims[0].id].needs[0][0]]
    settings = recipe_of(train, train.seeds[0], folder, elsewhere=True).evaluation
    return {one.name: samples_of(settings, one) for one in resolve(settings.benchmarks)}
