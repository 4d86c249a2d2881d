"""Before anything runs: the chance that a claim gets a verdict, by simulating evaluations through the claims' rules.

Claims against the base are simulated by the thousand: their p-values are computed for all trials at once, by the
formulas of the rules (a test compares them with the rules' own), and Holm's correction and the words follow. Claims on
scores in training go through the rules themselves, in fewer trials. Claims on printed scores, which can be no more than
compatible, have no power here, and none on length, KL, hours and dollars: nothing published tells how far trainings lie
apart in them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from openrs.evaluation import statistics
from openrs.evaluation.benchmarks import resolve
from openrs.evaluation.difficulty_model import sample_matrix, shifted
from openrs.evaluation.protocols import samples_of
from openrs.evaluation.statistics import ALIKE, Floats
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Evaluated, Score
from openrs.report.evidence.sources import PAPER_SAMPLING, Measured
from openrs.report.verdicts.claims import ALPHA, UNDECIDED, Claim, Evidence, Word
from openrs.report.verdicts.family import decide
from openrs.report.verdicts.judge import FAMILIES, RULES
from openrs.report.verdicts.score_rules import ENOUGH
from openrs.study.difficulty import EARLY, LATE, WORLDS, World, mean_of, rates, training_change
from openrs.study.jobs import recipe_of
from openrs.study.plan import Power, Powers
from openrs.study.sequential import Ints, boundaries, flip_boundaries, information, sampling_errors
from openrs.study.settings import Study, first_looks, study_claims

BASE = str(reference.tree()["base"])
AGAINST_BASE = FAMILIES["Are the released models better than the base and o1-preview?"]
IN_TRAINING = ("early_gain", "decay")
PLAN_TRIALS = 200  # of claims against the base: a chance is known to about 3.5 points
RULE_TRIALS = 24  # of claims on scores in training, which go through the rules themselves: to about 10 points
SPREAD = 0.01  # standard deviation of true changes of one recipe's trainings, a proportion: assumed, published nowhere
WORLD_ORDER = tuple(WORLDS)  # of the random generators' seeds
PROTOCOL = {**PAPER_SAMPLING, "engine": "vllm", "bos": 2, "seed": 1234}
Bools = NDArray[np.bool_]


Chances = Mapping[Word, float]  # the share of trials that give each word


def decided(chances: Chances) -> float:
    """Chance of a verdict."""
    return sum(share for word, share in chances.items() if word not in UNDECIDED)


# --- a study's claims -------------------------------------------------------------------------------------------------


def powers_of(study: Study, folder: Path) -> Powers:
    """Claim -> chances if the paper is right and if the re-evaluations are, with the study's samples, looks and seeds.

    folder: of the study's file; recipes of your own lie in it.

    Claims without an entry have no power that anything published could tell: length, KL, hours, dollars, your own.
    """
    every = study_claims(study)
    by_world = [_chances(study, every, world, folder) for world in ("paper", "again")]
    return {
        name: Power(decided(chances), decided(by_world[1][name]))
        for name, chances in by_world[0].items()
        if name in by_world[1]
    }


def _chances(study: Study, every: list[Claim], world: World, folder: Path) -> Mapping[str, Chances]:
    looks = {claim.id: at for claim in every if (at := looks_of(study, claim))}
    found = dict(against_base(every, looks, world, trials=PLAN_TRIALS))
    trained = [claim for claim in every if claim.kind in IN_TRAINING and study.claims[claim.id].needs]
    if trained:
        seeds = min(len(study.trainings[need].seeds) for claim in trained for need in study.claims[claim.id].needs[0])
        train = study.trainings[study.claims[trained[0].id].needs[0][0]]
        settings = recipe_of(train, train.seeds[0], folder, elsewhere=True).evaluation
        samples = {one.name: samples_of(settings, one) for one in resolve(settings.benchmarks)}
        found |= in_training(trained, samples, seeds, world, trials=RULE_TRIALS)
    return found


def looks_of(study: Study, claim: Claim) -> list[int]:
    """Samples a problem at each look; a claim without looks is judged once, with the samples of its jobs, or of their
    first look where they grow look by look."""
    settings, benchmark = study.claims[claim.id], str(claim.benchmark)
    if settings.looks or claim.kind not in AGAINST_BASE or not settings.needs:
        return settings.looks
    entries = [need.partition("/")[0] for need in settings.needs[0]]
    grown = first_looks(study)
    return [min(grown.get(f"{name}/{benchmark}", study.evaluations[name].samples[benchmark]) for name in entries)]


# --- claims against the base ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tested:
    """One claim in all trials at all its looks. up: [trials, looks] measured above the base, or above the threshold.

    hits: question -> [tests, trials, looks], entry i whether its repeated p-value is below ALPHA / (i + 1).
    """

    claim: Claim
    looks: tuple[int, ...]
    up: Bools
    hits: Mapping[str, Bools]


def against_base(
    claims: Sequence[Claim], looks: Mapping[str, Sequence[int]], world: World, *, trials: int = 600, seed: int = 0
) -> dict[str, Chances]:
    """Chances of the claims of kinds `better`, `above` and `gain`, corrected as one family.

    looks: claim -> samples a problem at each of its looks, a single number where it is looked at once; claims without
    an entry are left out. The last looks of all claims fall together. What has its verdict is not looked at again.
    """
    words, _ = study_words(claims, looks, world, trials=trials, seed=seed)
    return {name: _shares(own) for name, own in words.items()}


Words = Mapping[str, NDArray[np.object_]]


def study_words(
    claims: Sequence[Claim], looks: Mapping[str, Sequence[int]], world: World, *, trials: int, seed: int = 0
) -> tuple[Words, Mapping[str, Ints]]:
    """Claim -> the word of each trial, and the samples a problem at which it was given: what against_base counts."""
    every = [claim for claim in claims if claim.kind in AGAINST_BASE and claim.id in looks]
    rng = np.random.default_rng([seed, WORLD_ORDER.index(world)])
    draws = _draws(every, looks, world, trials, rng)
    return words_of([_tested(claim, tuple(looks[claim.id]), draws, len(every)) for claim in every], trials)


Draws = Mapping[
    tuple[str, str], Mapping[int, Ints]
]  # (model, benchmark) -> samples a problem -> right ones [trials, n]


def _draws(
    every: Sequence[Claim], looks: Mapping[str, Sequence[int]], world: World, trials: int, rng: np.random.Generator
) -> Draws:
    """Right samples of every model that the claims need, cumulative at every look of any of them."""
    found: dict[tuple[str, str], dict[int, Ints]] = {}
    for benchmark in dict.fromkeys(str(claim.benchmark) for claim in every):
        mine = [claim for claim in every if claim.benchmark == benchmark]
        at = sorted({samples for claim in mine for samples in looks[claim.id]})
        for model in dict.fromkeys(name for claim in mine for name in (BASE, str(claim.model))):
            p = _rates(world, model, benchmark)
            rounds = [rng.binomial(b - a, p, (trials, len(p))) for a, b in zip([0, *at], at, strict=False)]
            found[model, benchmark] = dict(zip(at, np.cumsum(rounds, axis=0), strict=True))
    return found


def _tested(claim: Claim, looks: tuple[int, ...], draws: Draws, tests: int) -> _Tested:
    benchmark = str(claim.benchmark)
    after, before = (draws[model, benchmark] for model in (str(claim.model), BASE))
    times = tuple(information(k, looks[-1]) for k in looks)
    if claim.kind == "above":
        threshold = (claim.threshold or 0.0) / 100
        p_values = np.stack([above_p(after[k], k, threshold) for k in looks], axis=1)
        up = np.stack([after[k].mean(axis=1) / k > threshold for k in looks], axis=1)
        return _Tested(claim, looks, up, {"differs": _below(p_values / 2, times, tests, 2)})
    up = np.stack([after[k].sum(axis=1) > before[k].sum(axis=1) for k in looks], axis=1)
    if claim.kind == "gain":
        published = (claim.published or 0.0) / 100
        p_values = np.stack([gain_p(after[k], before[k], k, published) for k in looks], axis=1)
        return _Tested(claim, looks, up, {"differs": _below(p_values / 2, times, tests, 2)})
    margin = float(reference.tree()["margins"][benchmark]) / 100
    p_values = np.stack([within_p(after[k], before[k], k, margin) for k in looks], axis=1)
    sums = np.stack([after[k] - before[k] for k in looks], axis=1)
    differs = flip_hits(np.diff(sums, axis=1, prepend=0), times, tests)
    return _Tested(claim, looks, up, {"differs": differs, "within": _below(p_values, times, tests, 1)})


def _below(p_values: Floats, times: tuple[float, ...], tests: int, sides: int) -> Bools:
    """[tests, trials, looks]: is the boundary at ALPHA / (i + 1) reached? p_values: one-sided, [trials, looks]."""
    z = stats.norm.isf(p_values)
    levels = [ALPHA / (i + 1) / sides for i in range(tests)]
    bounds = [[boundaries(times[: i + 1], level)[-1] for i in range(len(times))] for level in levels]
    found: Bools = z > np.array(bounds)[:, None, :]
    return found


def flip_hits(differences: Ints, times: Sequence[float], tests: int) -> Bools:
    """[tests, trials, looks]: does the sequential sign flip reject at ALPHA / (i + 1)? differences: of flip_boundaries.

    A trial that a level does not reject at any look is not tried at stricter ones.
    """
    sums = np.abs(differences.sum(axis=2).cumsum(axis=1))
    found = np.zeros((tests, *sums.shape), dtype=bool)
    rows = np.arange(len(sums))
    for i in range(tests):
        bounds, _ = flip_boundaries(differences[rows], times, ALPHA / (i + 1))
        found[i, rows] = sums[rows] >= bounds
        rows = rows[found[i, rows].any(axis=1)]
    return found


def within_p(after: Ints, before: Ints, k: int, margin: float) -> Floats:
    """p-values of statistics.equivalent for many trials: right samples of k, [trials, n]; margin a proportion."""
    difference = (after - before) / k
    n, mean = difference.shape[1], difference.mean(axis=1)
    se = difference.std(axis=1, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values: Floats = stats.t.sf((margin - np.abs(mean)) / se, n - 1)
    return np.where(se > ALIKE, p_values, 1.0)


def above_p(right: Ints, k: int, threshold: float) -> Floats:
    """p-values of statistics.p_against for many trials."""
    n, value = right.shape[1], right.mean(axis=1) / k
    spread = threshold * (1 - threshold)
    if k == 1:
        return np.asarray(2 * stats.norm.sf(np.abs(value - threshold) / np.sqrt(spread / n)))
    se, freedom = sampling_errors(right, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(se > 0, value * (1 - value) / se**2, n * k)
    return np.asarray(2 * stats.t.sf(np.abs(value - threshold) / np.sqrt(spread / effective), freedom))


def gain_p(after: Ints, before: Ints, k: int, published: float) -> Floats:
    """p-values of the rule on a published gain (paired_rules.gain) for many trials."""
    difference = (after - before) / k
    n, value = difference.shape[1], after.mean(axis=1) / k
    draw = k * sampling_errors(after, k)[0] ** 2 if k >= ENOUGH else value * (1 - value) / n
    se = np.sqrt(difference.var(axis=1, ddof=1) / n + draw)
    return np.asarray(2 * stats.norm.sf(np.abs(published - difference.mean(axis=1)) / se))


def words_of(tested: Sequence[_Tested], trials: int) -> tuple[Words, Mapping[str, Ints]]:
    """Look by look: Holm over the family, words, and no further look at what has its verdict."""
    most = max((len(one.looks) for one in tested), default=0)
    words = np.full((len(tested), trials), "cannot tell", dtype=object)
    at = np.full((len(tested), trials), -1)  # the last look made
    for step in range(most):
        for i, one in enumerate(tested):
            at[i, words[i] == "cannot tell"] = max(-1, step - most + len(one.looks))
        differs, within = (_holm(tested, question, at) for question in ("differs", "within"))
        for i, one in enumerate(tested):
            still = (words[i] == "cannot tell") & (at[i] >= 0)
            words[i, still] = _words(one, at[i], differs[i], within[i])[still]
    names = [one.claim.id for one in tested]
    stops = {one.claim.id: np.array(one.looks)[at[i]] for i, one in enumerate(tested)}
    return dict(zip(names, words, strict=True)), stops


def _holm(tested: Sequence[_Tested], question: str, at: Ints) -> Bools:
    """[claims, trials]: what Holm's correction rejects. A claim that was not looked at yet counts among the tests."""
    rejected = np.zeros(at.shape, dtype=bool)
    asked = [i for i, one in enumerate(tested) if question in one.hits]
    trials = np.arange(at.shape[1])
    for _ in asked:
        left = np.maximum(1, len(asked) - rejected.sum(axis=0))
        for i in asked:
            rejected[i] |= tested[i].hits[question][left - 1, trials, at[i]] & (at[i] >= 0)
    return rejected


def _words(one: _Tested, at: Ints, differs: Bools, within: Bools) -> NDArray[np.object_]:
    """The word of each trial, as the rules of paired_rules and score_rules.above give it."""
    if one.claim.kind == "gain":
        rest: Word = "compatible" if one.looks[-1] >= ENOUGH else "cannot tell"
        return np.where(differs, "not reproduced", rest).astype(object)
    up = one.up[np.arange(len(at)), at]
    words = np.where(within, "smaller than the margin", "cannot tell").astype(object)
    return np.where(differs, np.where(up, "reproduced", "not reproduced"), words).astype(object)


def _shares(words: Any) -> Chances:
    counted = Counter(words)
    return {word: count / len(words) for word, count in counted.items()}


# --- evaluations as the rules take them -------------------------------------------------------------------------------


def _rates(world: World, model: str, benchmark: str) -> Floats:
    return rates(mean_of(world, model, benchmark) or 0.0, benchmark)


def measured(model: str, benchmark: str, marks: NDArray[np.int64]) -> Measured:
    """Verdicts [n, k] as the report reads them from an evaluation of released weights with the paper's sampling."""
    n, k = marks.shape
    return Measured(
        source=model,
        origin="released weights",
        name=model,
        model=model,
        benchmark=benchmark,
        metric=f"avg@{k}",
        n=n,
        k=k,
        accuracy=float(marks.mean()),
        protocol=PROTOCOL,
        inputs="verified",
        rows=_rows(marks),
    )


def _rows(marks: NDArray[np.int64]) -> dict[str, list[int]]:
    return {str(i): row for i, row in enumerate(marks.tolist())}


# --- scores in training -----------------------------------------------------------------------------------------------


def in_training(
    claims: Sequence[Claim], samples: Mapping[str, int], seeds: int, world: World, *, trials: int
) -> dict[str, Chances]:
    """Chances of the claims of kinds `early_gain` and `decay`, by the rules themselves, with seeds of one recipe.

    samples: benchmark -> samples a problem.
    """
    every = [claim for claim in claims if claim.kind in IN_TRAINING and claim.benchmark in samples]
    found: dict[str, list[Word]] = {claim.id: [] for claim in every}
    rng = np.random.default_rng([0, WORLD_ORDER.index(world), seeds, 2])
    for _ in range(trials if every else 0):
        evidence = Evidence([], _trainings(samples, seeds, world, rng), [])
        with _no_bootstrap():
            verdicts = decide([RULES[claim.kind](claim, evidence) for claim in every])
        for claim, verdict in zip(every, verdicts, strict=True):
            found[claim.id].append(verdict.word)
    return {name: _shares(words) for name, words in found.items()}


@contextmanager
def _no_bootstrap() -> Iterator[None]:
    """No rule reads the bootstrap interval, and it is most of the time."""
    was = statistics.RESAMPLES
    statistics.RESAMPLES = 2
    try:
        yield
    finally:
        statistics.RESAMPLES = was


def _trainings(samples: Mapping[str, int], seeds: int, world: World, rng: np.random.Generator) -> list[RunData]:
    starts = {name: _rates(world, BASE, name) for name in samples}
    base = {name: sample_matrix(start, samples[name], rng) for name, start in starts.items()}
    runs = []
    for seed in range(seeds):
        early, late = (
            {name: training_change(world, name, late=late) + SPREAD * rng.normal() for name in starts}
            for late in (False, True)
        )
        first = {name: shifted(p, early[name]) for name, p in starts.items()}
        last = {name: shifted(p, late[name]) for name, p in first.items()}
        marks = [base, *({n: sample_matrix(p, samples[n], rng) for n, p in at.items()} for at in (first, last))]
        found = [evaluated(step, one) for step, one in zip((0, EARLY[1], 2 * LATE), marks, strict=True)]
        run = RunData(f"seed {seed}", Path(), evaluations=found)
        run.recipe, run.manifest = {"paper": {"experiment": "exp1"}}, {"seeds": {"training": seed}}
        runs.append(run)
    return runs


def evaluated(step: int, marks: Mapping[str, NDArray[np.int64]]) -> Evaluated:
    """A checkpoint of a run, with verdicts [n, k] of each benchmark."""
    scores = {
        name: Score(name, len(own), own.shape[1], float(own.mean()), per_problem=_rows(own))
        for name, own in marks.items()
    }
    return Evaluated(f"step-{step}", "", None, step, PROTOCOL, scores)
