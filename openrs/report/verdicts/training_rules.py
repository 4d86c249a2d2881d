"""Rules on claims about training: early gain, late decay, length, KL.

The unit is the training, which is one seed. Below three seeds of one experiment nothing is said of training, for or
against: what these trainings show stands in the sentence. Runs of other experiments than the paper's are no evidence,
but on `improves`: a study's claim on a recipe of one's own.
"""

from collections.abc import Callable, Sequence
from functools import partial

from openrs.evaluation.seeds import over_seeds
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Evaluated, comparable
from openrs.report.evidence.values import p_said, point_span, points, short
from openrs.report.verdicts.claims import ALPHA, SEEDS, Claim, ClaimVerdict, Evidence, Word, not_tested
from openrs.report.verdicts.family import Corrected, Prepared, Rule, Tests
from openrs.report.verdicts.paired_rules import difference_numbers, difference_said, one_sided, paired, pooled, shared

LENGTH = "completions/mean_length"
Span = tuple[int, int]  # first and last step
Pair = tuple[Evaluated | None, Evaluated | None]  # before and after, as far as they were evaluated
Seen = tuple[RunData, bool, str]  # what one seed shows of a claim: whether it holds there, in words


def of_paper(runs: Sequence[RunData], experiments: Sequence[str] = ()) -> list[RunData]:
    """Runs of the paper's experiments, one a seed: a seed run twice counts once, with the longest run.

    Give it only runs that hold what is asked for, else a longer run without it hides a shorter one that has it.
    """
    kept: dict[tuple[str | None, object], RunData] = {}
    for run in runs:
        if run.experiment is not None and run.experiment in (experiments or (run.experiment,)):
            key = (run.experiment, run.name if run.seed is None else run.seed)
            kept[key] = max(kept.get(key, run), run, key=_length)
    return list(kept.values())


def _length(run: RunData) -> tuple[int, str]:
    return len(run.metrics.steps), run.name


def fullest(runs: Sequence[RunData]) -> list[RunData]:
    """Of several experiments the one with most seeds: seeds of one experiment belong together."""
    by_experiment: dict[str | None, list[RunData]] = {}
    for run in runs:
        by_experiment.setdefault(run.experiment, []).append(run)
    return max(by_experiment.values(), key=len, default=[])


def by_seeds(claim: Claim, seen: Sequence[Seen], rule: str) -> ClaimVerdict:
    """The verdict of a claim that holds or fails in each seed."""
    if not seen:
        return not_tested(claim)
    holding, word = in_all([holds for _, holds, _ in seen])
    said = f"holds in {holding} of {seeds_said(len(seen))}: {'; '.join(said for *_, said in seen)}"
    numbers = {"seeds": len(seen), "holding": holding}
    rule = (
        f"{rule}; in all of {SEEDS} or more trainings: reproduced; in none of them: not reproduced; else, and with"
        " fewer trainings, the data cannot tell"
    )
    return ClaimVerdict(word, said, rule, numbers, tuple(run.name for run, *_ in seen), "L3")


def in_all(holds: Sequence[bool]) -> tuple[int, Word]:
    """In how many trainings a claim holds; the word for all of three or more, none of them, or else."""
    holding = sum(holds)
    if len(holds) < SEEDS or 0 < holding < len(holds):
        return holding, "cannot tell"
    return holding, "reproduced" if holding else "not reproduced"


def seeds_said(count: int) -> str:
    """How many trainings there are, and that fewer than three decide nothing."""
    return f"{count} training{'s' * (count > 1)}" + f" ({SEEDS} are needed)" * (count < SEEDS)


# --- scores over training ---------------------------------------------------------------------------------------------


def improves(claim: Claim, evidence: Evidence) -> Prepared:
    """A recipe of one's own: its final checkpoint against its base. The evidence's runs are those of that recipe."""
    runs = {run.name if run.seed is None else run.seed: run for run in sorted(evidence.runs, key=_length)}
    return _change(claim, evidence, lambda run: (run.base, run.final), "up", list(runs.values()))


def _first_gain(run: RunData) -> Pair:
    """The base, and the run's first evaluated checkpoint of steps 50 to 100."""
    return run.base, next((one for one in run.later if 50 <= (one.step or 0) <= 100), None)


def _last_decay(run: RunData) -> Pair:
    """The run's first evaluated checkpoint of steps 50 to 150, and its last from step 200 on."""
    early = next((one for one in run.later if 50 <= (one.step or 0) <= 150), None)
    return early, next((one for one in reversed(run.later) if (one.step or 0) >= 200), None)


def _change(
    claim: Claim, evidence: Evidence, pick: Callable[[RunData], Pair], claimed: str, own: list[RunData] | None = None
) -> Prepared:
    """A difference for each training, Student's t over trainings; and paired by problem with all samples together.

    own: the runs of one recipe, one a seed, instead of those of the paper's experiments."""
    benchmark = str(claim.benchmark)
    margin = claim.margin if claim.margin is not None else float(reference.tree()["margins"][benchmark])
    having = [run for run in (evidence.runs if own is None else own) if _rows(pick(run), benchmark)]
    runs = fullest(of_paper(having)) if own is None else having
    pairs = [pair for run in runs if (pair := _rows(pick(run), benchmark)) is not None]
    if not pairs:
        return not_tested(claim)
    names = tuple(run.name for run in runs)
    rule = (
        f"the unit is the training: with {SEEDS} or more, reproduced when their differences go {claimed} with one-sided"
        " p < 0.05 by t over trainings and by the paired test with all samples together (the larger p; Holm over the"
        " claims on scores in training), not reproduced when they go the other way so; smaller than the margin when a"
        f" change of {margin:g} points is excluded (TOST over trainings); else the data cannot tell"
    )
    together = paired(pooled([old for old, _ in pairs]), pooled([new for _, new in pairs]))
    numbers = {**difference_numbers(together), "seeds": len(pairs)}
    if len(pairs) < SEEDS:
        numbers["by_seed"] = [paired(old, new).difference for old, new in pairs]
        said = f"{seeds_said(len(pairs))}: {difference_said(together)}"
        return ClaimVerdict("cannot tell", said, rule, numbers, names, "L3")
    problems = [problem for problem in pairs[0][0] if all(problem in old for old, _ in pairs)]
    effect = over_seeds(*([[pair[side][p] for p in problems] for pair in pairs] for side in (0, 1)))
    interval = (effect.interval.low, effect.interval.high)
    rise, fall = one_sided(together)
    tests = {"up": max(effect.p_up, rise), "down": max(effect.p_down, fall), "within": effect.p_within(margin)}
    numbers |= {"difference": effect.difference, "interval": list(interval), "by_seed": list(effect.by_seed)}

    def verdict(corrected: Corrected) -> ClaimVerdict:
        word: Word = "cannot tell"
        each = ", ".join(points(one) for one in effect.by_seed)
        said = f"{points(effect.difference)} points over {seeds_said(len(pairs))} ({each}), 95 % interval over"
        said += f" trainings {point_span(interval)}; a rise has {p_said(corrected.p['up'], 'Holm p')},"
        said += f" a fall {p_said(corrected.p['down'], 'Holm p')}"
        if corrected.p["within"] < ALPHA:
            word, said = "smaller than the margin", f"{said}; no change of the margin's size ({margin:g} points)"
        way = next((way for way in ("up", "down") if corrected.p[way] < ALPHA), None)
        if way is not None:
            word = "reproduced" if way == claimed else "not reproduced"
        more = {f"p_{question}": p_value for question, p_value in corrected.p.items()}
        return ClaimVerdict(word, said, rule, {**numbers, **more}, names, "L3")

    return Tests(tests, verdict)


early_gain: Rule = partial(_change, pick=_first_gain, claimed="up")
decay: Rule = partial(_change, pick=_last_decay, claimed="down")


def _rows(pair: Pair, benchmark: str) -> tuple[dict[str, list[int]], dict[str, list[int]]] | None:
    """Verdicts of two evaluations on their shared problems, when both are there and were made with equal sampling."""
    there = [one for one in pair if one is not None and benchmark in one.scores]
    if len(there) < 2 or comparable(*(one.protocol for one in there)) != "same":
        return None
    old, new = (one.scores[benchmark].per_problem for one in there)
    both = shared(old, new)
    return ({p: old[p] for p in both}, {p: new[p] for p in both}) if both else None


# --- length and KL ----------------------------------------------------------------------------------------------------


def length_falls(claim: Claim, evidence: Evidence) -> Prepared:
    rule = "mean length of the last 10 of the first 100 steps at least a tenth below that of the first 10"
    return by_seeds(claim, _lengths(claim, evidence, (1, 10), (91, 100), lambda a, b: b <= 0.9 * a), rule)


def length_rises(claim: Claim, evidence: Evidence) -> Prepared:
    rule = "mean length of steps 291 to 300 at least a twentieth above that of steps 191 to 200"
    return by_seeds(claim, _lengths(claim, evidence, (191, 200), (291, 300), lambda a, b: b >= 1.05 * a), rule)


def _mean_lengths(claim: Claim, evidence: Evidence, *spans: Span) -> list[tuple[RunData, list[float]]]:
    """Mean lengths over stretches of steps, of each training that has values in all of them."""
    runs = [run for run in evidence.runs if all(run.metrics.between(LENGTH, *steps) for steps in spans)]
    found = []
    for run in fullest(of_paper(runs, claim.experiments)):
        stretches = [run.metrics.between(LENGTH, *steps) for steps in spans]
        found.append((run, [sum(values) / len(values) for values in stretches]))
    return found


def _lengths(
    claim: Claim, evidence: Evidence, early: Span, late: Span, holds: Callable[[float, float], bool]
) -> list[Seen]:
    """Whether lengths went as claimed between two stretches of steps, seed by seed."""
    return [
        (run, holds(a, b), f"{run.name}: {short(a)} to {short(b)} tokens")
        for run, (a, b) in _mean_lengths(claim, evidence, early, late)
    ]


def length_level(claim: Claim, evidence: Evidence) -> Prepared:
    rule = "mean length of the first 10 steps within 15 % of the published one"
    seen = [
        (run, abs(mean / (claim.published or 1) - 1) <= 0.15, f"{run.name}: {short(mean)} tokens")
        for run, (mean,) in _mean_lengths(claim, evidence, (claim.steps[0], claim.steps[1]))
    ]
    return by_seeds(claim, seen, rule)


def kl_late(claim: Claim, evidence: Evidence) -> Prepared:
    rule = "the largest mean KL of a step after step 150 more than ten times the largest before"
    seen, (middle, end) = [], claim.steps
    whole = [run for run in evidence.runs if run.metrics.steps and run.metrics.steps[-1] >= end]
    for run in fullest(of_paper(whole, claim.experiments)):
        early, late = run.metrics.between("kl", 1, middle), run.metrics.between("kl", middle + 1)
        if early and late:
            said = f"{run.name}: largest mean KL of a step {short(max(early))} before, {short(max(late))} after"
            seen.append((run, max(late) > 10 * max(early), said))
    return by_seeds(claim, seen, rule)
