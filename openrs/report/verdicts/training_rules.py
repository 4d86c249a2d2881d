"""Rules on claims about training: early gain, late decay, length, KL.

A training is one seed. Three or more seeds of one experiment can reproduce a claim (level L3); fewer can only be
compatible with it or speak against it. Runs that are none of the paper's experiments are no evidence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openrs.evaluation.statistics import equivalent
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Evaluated, comparable
from openrs.report.evidence.values import short
from openrs.report.verdicts.claims import ALPHA, Claim, ClaimVerdict, Evidence, Rule, Word, not_tested
from openrs.report.verdicts.paired_rules import difference_numbers, difference_said, paired, pooled, shared

SEEDS = 3  # seeds that the level L3 takes


@dataclass(frozen=True, slots=True)
class Seen:
    """What one seed shows of a claim: whether it holds there, in words."""

    run: RunData
    holds: bool
    said: str


def of_paper(runs: Sequence[RunData], experiments: Sequence[str] = ()) -> list[RunData]:
    """Runs of the paper's experiments, one a seed: a seed run twice counts once, with the longest run."""
    kept: dict[tuple[str | None, object], RunData] = {}
    for run in runs:
        if run.experiment is None or (experiments and run.experiment not in experiments):
            continue
        key = (run.experiment, run.name if run.seed is None else run.seed)
        if key not in kept or len(run.metrics.steps) > len(kept[key].metrics.steps):
            kept[key] = run
    return list(kept.values())


def fullest(runs: Sequence[RunData]) -> list[RunData]:
    """Of several experiments the one with most seeds: seeds of one experiment belong together."""
    by_experiment: dict[str | None, list[RunData]] = {}
    for run in runs:
        by_experiment.setdefault(run.experiment, []).append(run)
    return max(by_experiment.values(), key=len, default=[])


def by_seeds(claim: Claim, seen: Sequence[Seen], rule: str) -> ClaimVerdict:
    """The verdict of a claim that holds or fails in each seed."""
    holding = sum(one.holds for one in seen)
    if not seen:
        return not_tested(claim)
    word: Word = "compatible"
    if holding == 0:
        word = "not reproduced"
    elif holding == len(seen) >= SEEDS:
        word = "reproduced"
    said = f"holds in {holding} of {len(seen)} seeds: {'; '.join(one.said for one in seen)}"
    numbers = {"seeds": len(seen), "holding": holding}
    rule = f"{rule}; all of {SEEDS} or more seeds: reproduced; none: not reproduced; else compatible"
    return ClaimVerdict(word, said, rule, numbers, tuple(one.run.name for one in seen), "L3")


# --- scores over training ---------------------------------------------------------------------------------------------


def early_gain(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_change(claim, evidence, _first_gain, 1) for claim in family]


def decay(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_change(claim, evidence, _last_decay, -1) for claim in family]


def _first_gain(run: RunData) -> tuple[Evaluated, Evaluated] | None:
    """The base, and the run's first evaluated checkpoint of steps 50 to 100."""
    after = next((one for one in run.later if 50 <= (one.step or 0) <= 100), None)
    return (run.base, after) if run.base is not None and after is not None else None


def _last_decay(run: RunData) -> tuple[Evaluated, Evaluated] | None:
    """The run's first evaluated checkpoint of steps 50 to 150, and its last from step 200 on."""
    early = next((one for one in run.later if 50 <= (one.step or 0) <= 150), None)
    late = next((one for one in reversed(run.later) if (one.step or 0) >= 200), None)
    return (early, late) if early is not None and late is not None else None


def _change(
    claim: Claim, evidence: Evidence, pick: Callable[[RunData], tuple[Evaluated, Evaluated] | None], sign: int
) -> ClaimVerdict:
    """A paired difference pooled over seeds: a problem's samples of all seeds together, problems are the clusters."""
    benchmark, margin = str(claim.benchmark), float(reference.tree()["margins"][claim.benchmark])
    runs = fullest([run for run in of_paper(evidence.runs) if _rows(pick(run), benchmark)])
    pairs = [pair for run in runs if (pair := _rows(pick(run), benchmark)) is not None]
    if not pairs:
        return not_tested(claim)
    tests = [paired(old, new) for old, new in pairs]
    before, after = pooled([old for old, _ in pairs]), pooled([new for _, new in pairs])
    every, together = shared(before, after), paired(before, after)
    equal = len(every) > 1 and equivalent([after[p] for p in every], [before[p] for p in every], margin).equivalent
    agree = all(sign * one.difference > 0 for one in tests)
    word: Word = "compatible"
    if together.p_value < ALPHA and sign * together.difference > 0:
        word = "reproduced" if len(tests) >= SEEDS and agree else "compatible"
    elif equal or (together.p_value < ALPHA and sign * together.difference < 0):
        word = "not reproduced"
    direction = "above" if sign > 0 else "below"
    rule = (
        f"paired by problem, seeds pooled: reproduced when {SEEDS} or more seeds all lie {direction} 0 and p < 0.05;"
        f" not reproduced when p < 0.05 the other way or proven smaller than {margin:g} points (TOST); else compatible"
    )
    said = f"{len(tests)} seed{'s' if len(tests) > 1 else ''}: {difference_said(together)}"
    numbers = {**difference_numbers(together), "seeds": len(tests), "by_seed": [one.difference for one in tests]}
    return ClaimVerdict(word, said, rule, numbers, tuple(run.name for run in runs), "L3")


def _rows(
    pair: tuple[Evaluated, Evaluated] | None, benchmark: str
) -> tuple[dict[str, list[int]], dict[str, list[int]]] | None:
    """Verdicts of two evaluations on their shared problems, when both were made with equal sampling."""
    if pair is None or any(benchmark not in one.scores for one in pair):
        return None
    if comparable(pair[0].protocol, pair[1].protocol) != "same":
        return None
    old, new = (one.scores[benchmark].per_problem for one in pair)
    both = shared(old, new)
    return ({p: old[p] for p in both}, {p: new[p] for p in both}) if both else None


# --- length and KL ----------------------------------------------------------------------------------------------------


def length_falls(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    rule = "mean length of the last 10 of the first 100 steps at least a tenth below that of the first 10"
    seen = [_lengths(claim, evidence, (1, 10), (91, 100), lambda a, b: b <= 0.9 * a) for claim in family]
    return [by_seeds(claim, found, rule) for claim, found in zip(family, seen, strict=True)]


def length_rises(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    rule = "mean length of steps 291 to 300 at least a twentieth above that of steps 191 to 200"
    seen = [_lengths(claim, evidence, (191, 200), (291, 300), lambda a, b: b >= 1.05 * a) for claim in family]
    return [by_seeds(claim, found, rule) for claim, found in zip(family, seen, strict=True)]


def _lengths(
    claim: Claim,
    evidence: Evidence,
    early: tuple[int, int],
    late: tuple[int, int],
    holds: Callable[[float, float], bool],
) -> list[Seen]:
    """Mean lengths over two stretches of steps, seed by seed."""
    seen = []
    for run in fullest(of_paper(evidence.runs, claim.experiments)):
        first, last = (run.metrics.between("completions/mean_length", *steps) for steps in (early, late))
        if first and last:
            a, b = sum(first) / len(first), sum(last) / len(last)
            seen.append(Seen(run, holds(a, b), f"{run.name}: {short(a)} to {short(b)} tokens"))
    return seen


def length_level(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    seen: list[list[Seen]] = []
    for claim in family:
        seen.append([])
        for run in fullest(of_paper(evidence.runs, claim.experiments)):
            known = run.metrics.between("completions/mean_length", claim.steps[0], claim.steps[1])
            if known and claim.published:
                mean = sum(known) / len(known)
                holds = abs(mean / claim.published - 1) <= 0.15
                seen[-1].append(Seen(run, holds, f"{run.name}: {short(mean)} tokens"))
    rule = "mean length of the first 10 steps within 15 % of the published one"
    return [by_seeds(claim, found, rule) for claim, found in zip(family, seen, strict=True)]


def kl_late(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    seen: list[list[Seen]] = []
    for claim in family:
        seen.append([])
        for run in fullest(of_paper(evidence.runs, claim.experiments)):
            last = run.metrics.steps[-1] if run.metrics.steps else 0
            early = run.metrics.between("kl", 1, claim.steps[0])
            late = run.metrics.between("kl", claim.steps[0] + 1, last)
            if early and late and last >= claim.steps[1]:
                said = f"{run.name}: largest mean KL of a step {short(max(early))} before, {short(max(late))} after"
                seen[-1].append(Seen(run, max(late) > 10 * max(early), said))
    rule = "the largest mean KL of a step after step 150 more than ten times the largest before"
    return [by_seeds(claim, found, rule) for claim, found in zip(family, seen, strict=True)]


RULES: Mapping[str, Rule] = {
    "early_gain": early_gain,
    "decay": decay,
    "length_falls": length_falls,
    "length_rises": length_rises,
    "length_level": length_level,
    "kl_late": kl_late,
}
