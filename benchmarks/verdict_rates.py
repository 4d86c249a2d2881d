"""How often the report's verdicts are wrong, and how often they find what is there.

    python benchmarks/verdict_rates.py --out docs/verdicts.md     all of it: about 20 minutes on two quiet cores
    python benchmarks/verdict_rates.py --small 24                 half a minute

The exit code is 1 when a rate is too high. Nothing of the rules is rebuilt: samples are drawn, put into the objects
that the report reads from files, and judged by openrs.report.verdicts.judge. Problem rates are beta models
(openrs/evaluation/difficulty_model.py) with the published means, and the spread over seeds of arXiv 2504.07086, pooled
over its models.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openrs.evaluation import statistics
from openrs.evaluation.difficulty_model import sample_matrix, shifted
from openrs.report.evidence import reference
from openrs.report.evidence.collect import Metrics, RunData
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.claims import WORDS, Claim, Evidence, claims
from openrs.report.verdicts.cost import Ledger
from openrs.report.verdicts.judge import FAMILIES, judge
from openrs.study.difficulty import rates
from openrs.study.power import evaluated, measured

BASE = str(reference.tree()["base"])
SCENARIOS = {
    "paper": "The paper is exactly right: every model has its printed mean, the printed scores are draws of it",
    "equal": "Released = base: all models are the base (re-evaluated means), the printed scores are draws of it",
    "again": "The re-evaluation is right: every model has its re-evaluated mean, the printed scores are the real ones",
}
TRAININGS = {
    "none": "Training changes nothing: no gain, no decay, length and KL stay, every run takes 30 hours",
    "paper": "Training does what the paper says: AMC23 +8, MATH-500 +1.5, later -4 points, 24 hours",
}
SAMPLES = (1, 4, 10, 64)
SPREADS = (0, 1, 2)  # points between trainings of one recipe
SEEDS = (3, 5)
TRAINING_SAMPLES = 4
SMALL: dict[str, Sequence[int]] = {"samples": (4,), "spreads": (0, 2), "seeds": (3,)}
LIMIT = 0.05


# --- scores of released models ----------------------------------------------------------------------------------------


def truth(scenario: str, model: str, benchmark: str) -> float:
    """The model's true mean on a benchmark, a proportion."""
    if scenario == "paper":
        return float(reference.row(model)[benchmark]) / 100
    again = reference.reevaluation(BASE if scenario == "equal" else model, benchmark)
    return again[0] if again else 0.0


def printed(scenario: str, rng: np.random.Generator) -> list[Claim]:
    """The claims, with printed scores that are single draws of the true rates (but the real ones for `again`)."""
    every = claims()
    if scenario == "again":
        return every
    draws = {
        (model, benchmark): float(sample_matrix(rates(truth(scenario, model, benchmark), benchmark), 1, rng).mean())
        for model in reference.released()
        for benchmark in reference.TABLE_BENCHMARKS
    }

    def drawn(claim: Claim) -> Claim:
        where = (str(claim.model), str(claim.benchmark))
        if claim.kind == "score":
            return replace(claim, logged=draws[where])
        if claim.kind == "average":
            own = [score for (model, _), score in draws.items() if model == claim.model]
            return replace(claim, logged=sum(own) / len(own))
        if claim.kind == "gain":
            return replace(claim, published=100 * draws[where] - reference.row(BASE)[claim.benchmark])
        return claim

    return [drawn(claim) for claim in every]


def evaluated_models(scenario: str, k: int, rng: np.random.Generator) -> list[Measured]:
    found = []
    for model in (BASE, *reference.released()):
        for benchmark in reference.TABLE_BENCHMARKS:
            marks = sample_matrix(rates(truth(scenario, model, benchmark), benchmark), k, rng)
            found.append(measured(model, benchmark, marks))
    return found


def _rows(marks: Any) -> dict[str, list[int]]:
    return {str(i): row for i, row in enumerate(marks.tolist())}


def score_set(scenario: str, k: int, rng: np.random.Generator) -> dict[str, str]:
    """One whole evaluation of base and released models; claim -> verdict."""
    evidence = Evidence(evaluated_models(scenario, k, rng), [], [])
    every = [claim for claim in printed(scenario, rng) if claim.level == "L2"]
    return {claim.id: verdict.word for claim, verdict in judge(evidence, every)}


def score_truths(scenario: str) -> dict[str, bool | float | None]:
    """What is true of a claim: True, False, None where the scenario does not decide; of `better` the gain in points."""
    found: dict[str, bool | float | None] = {}
    for claim in claims():
        if claim.kind == "better":
            base, model = (truth(scenario, one, str(claim.benchmark)) for one in (BASE, str(claim.model)))
            found[claim.id] = 100 * (model - base)
        elif claim.kind == "above":
            found[claim.id] = 100 * truth(scenario, str(claim.model), str(claim.benchmark)) > (claim.threshold or 0)
        elif claim.kind in ("score", "average"):
            found[claim.id] = None if scenario == "again" else True
        elif claim.kind == "gain":
            found[claim.id] = True if scenario == "paper" else None
    return found


# --- trainings --------------------------------------------------------------------------------------------------------


def training_set(scenario: str, spread: float, seeds: int, rng: np.random.Generator) -> dict[str, str]:
    """Some trainings of exp1 and of exp3, each with its evaluations, lengths, KL and hours; claim -> verdict."""
    effects = {"amc23": 0.08, "math_500": 0.015} if scenario == "paper" else {"amc23": 0.0, "math_500": 0.0}
    starts = {name: rates((reference.reevaluation(BASE, name) or (0.0,))[0], name) for name in effects}
    base = {name: sample_matrix(start, TRAINING_SAMPLES, rng) for name, start in starts.items()}
    runs = []
    for seed in range(seeds):
        early, late = {}, {}
        for name, start in starts.items():
            gain = effects[name] + spread / 100 * rng.normal()
            early[name] = shifted(start, gain)
            fall = -0.04 if scenario == "paper" else 0.0
            late[name] = shifted(early[name], fall + spread / 100 * rng.normal())
        marks = [base, *({n: sample_matrix(r, TRAINING_SAMPLES, rng) for n, r in at.items()} for at in (early, late))]
        runs.append(_run("exp1", seed, _course(scenario, rng), marks))
        runs.append(_run("exp3", seed, _course(scenario, rng), []))
    hours = [(24 if scenario == "paper" else 30) * (1 + 0.02 * rng.normal()) for _ in runs]
    evidence = Evidence([], runs, [_ledger(value) for value in hours])
    every = [claim for claim in claims() if claim.level == "L3"]
    return {claim.id: verdict.word for claim, verdict in judge(evidence, every)}


def _course(scenario: str, rng: np.random.Generator) -> Metrics:
    """Lengths and KL of 500 steps; trainings lie 5 % apart in length, KL by a factor of about two."""
    steps = list(range(1, 501))
    level = 2800 if scenario == "paper" else 3500
    places = [1, 100, 200, 300, 500]
    factors = [1.0, 0.75, 0.75, 0.95, 0.95] if scenario == "paper" else [1.0] * 5
    own = np.exp(0.05 * rng.normal(size=5))
    lengths = np.interp(steps, places, level * np.array(factors) * own) + rng.normal(0, 40, 500)
    late = np.array(steps) > 150
    kl = 0.01 * np.exp(0.3 * rng.normal(size=500)) * np.where(late, math.exp(0.7 * rng.normal()), 1.0)
    kl *= np.where(late & (scenario == "paper"), 100.0, 1.0)
    columns = {"completions/mean_length": lengths.tolist(), "kl": kl.tolist(), "prompts": [12.0] * 500}
    return Metrics(steps, columns)


def _run(experiment: str, seed: int, metrics: Metrics, evaluations: Sequence[Mapping[str, Any]]) -> RunData:
    found = [evaluated(step, marks) for step, marks in zip((0, 100, 250), evaluations, strict=False)]
    run = RunData(f"{experiment}, seed {seed}", Path(), evaluations=found, metrics=metrics)
    run.recipe = {"paper": {"experiment": experiment}, "grpo": {"num_generations": 6}}
    run.manifest = {"seeds": {"training": seed}, "data": {"rows": 7000}}
    return run


def _ledger(hours: float) -> Ledger:
    return Ledger((), {}, 3600 * hours, "NVIDIA A40", 4, 0.4375, "the recipe", 500, None)


def training_truths(scenario: str) -> dict[str, bool | float | None]:
    """As score_truths. Whole hours decide hours, dollars and price; two claims are by construction."""
    found: dict[str, bool | float | None] = {}
    for claim in claims():
        if claim.kind == "early_gain":
            found[claim.id] = {"amc23": 8.0, "math_500": 1.5}[str(claim.benchmark)] if scenario == "paper" else 0.0
        elif claim.kind == "decay":
            found[claim.id] = 4.0 if scenario == "paper" else 0.0
        elif claim.kind == "cheaper":
            found[claim.id] = True  # $42 and $52.50 are both less than a tenth of $1,088
        elif claim.level == "L3" and claim.at_most == "reproduced":
            found[claim.id] = scenario == "paper"
    return found


# --- counting ---------------------------------------------------------------------------------------------------------


def wrong(claim: Claim, word: str, true: bool | float | None) -> str:
    """The error in a verdict, or "". A number is the true effect in the claimed direction, in points.

    Without any effect the claim is false; a significant effect the other way is wrong as well, since none is there.
    """
    if true is None:
        return ""
    if isinstance(true, bool):
        if word == "reproduced" and not true:
            return "false reproduced"
        return "false not reproduced" if word == "not reproduced" and true else ""
    margin = float(reference.tree()["margins"][claim.benchmark])
    if word == "reproduced":
        return "false reproduced" if true <= 0 else ""
    if word == "not reproduced":
        return "false not reproduced" if true >= 0 else ""
    return "false smaller" if word == "smaller than the margin" and abs(true) >= margin else ""


Sets = list[dict[str, str]]
ERRORS = ("false reproduced", "false not reproduced", "false smaller")


def families(sets: Sets, truths: Mapping[str, bool | float | None]) -> dict[str, dict[str, float]]:
    """For each family, and for all claims together: the share of sets with any error of a kind."""
    known = {claim.id: claim for claim in claims()}
    groups = {question: set(kinds) for question, kinds in FAMILIES.items()}
    groups["any claim"] = {kind for kinds in FAMILIES.values() for kind in kinds}
    found: dict[str, dict[str, float]] = {}
    for question, kinds in groups.items():
        mine = [id_ for id_ in truths if known[id_].kind in kinds]
        if mine:
            errors = [{wrong(known[id_], one[id_], truths[id_]) for id_ in mine} for one in sets]
            found[question] = {name: sum(name in one for one in errors) / len(sets) for name in ERRORS}
    return found


def words(sets: Sets, ids: Sequence[str]) -> dict[str, float]:
    """How often each word is given, as a share of these claims and sets."""
    counted = Counter(one[id_] for one in sets for id_ in ids)
    return {word: counted[word] / len(sets) / len(ids) for word in WORDS if counted[word]}


# --- running ----------------------------------------------------------------------------------------------------------


def _no_bootstrap() -> None:
    """In the worker processes: no rule reads the bootstrap interval, and it is most of the time."""
    statistics.RESAMPLES = 2


def _task(task: tuple[str, str, float, int, int, int]) -> dict[str, str]:
    """One set: what, scenario, k or spread, seeds, number of the set, seed of all."""
    what, scenario, value, seeds, number, seed = task
    order = (SCENARIOS if what == "scores" else TRAININGS).keys()
    rng = np.random.default_rng([seed, what == "scores", list(order).index(scenario), int(value), seeds, number])
    if what == "scores":
        return score_set(scenario, int(value), rng)
    return training_set(scenario, value, seeds, rng)


def simulate(
    sets: int,
    processes: int = 1,
    *,
    samples: Sequence[int] = SAMPLES,
    spreads: Sequence[int] = SPREADS,
    seeds: Sequence[int] = SEEDS,
    seed: int = 0,
) -> dict[str, Any]:
    """All conditions; every set has a random generator of its own, so processes change nothing."""
    conditions = [("scores", scenario, float(k), 0) for scenario in SCENARIOS for k in samples]
    conditions += [
        ("training", scenario, float(s), count) for scenario in TRAININGS for s in spreads for count in seeds
    ]
    found = []
    with multiprocessing.get_context("fork").Pool(processes, _no_bootstrap) as pool:
        for what, scenario, value, count in conditions:
            began = time.monotonic()
            tasks = [(what, scenario, value, count, number, seed) for number in range(sets)]
            done = pool.map(_task, tasks, chunksize=max(1, sets // (4 * processes)))
            truths = score_truths(scenario) if what == "scores" else training_truths(scenario)
            found.append(
                {
                    "what": what,
                    "scenario": scenario,
                    "value": int(value),
                    "seeds": count,
                    "sets": sets,
                    "families": families(done, truths),
                    "words": {title: words(done, ids) for title, ids in rows(done[0]).items()},
                }
            )
            took = f"{time.monotonic() - began:.0f} s"
            rates = {question[:20]: list(errors.values()) for question, errors in found[-1]["families"].items()}
            print(f"{what} {scenario} {value:g} {count}, {took}: {rates}", file=sys.stderr, flush=True)
    return {"sets": sets, "seed": seed, "conditions": found}


def rows(one: Mapping[str, str]) -> dict[str, list[str]]:
    """Rows of the tables: claims of one kind on one benchmark share one; a row's figures are means over its claims."""
    found: dict[str, list[str]] = {}
    for claim in claims():
        if claim.id not in one or claim.at_most == "by construction":
            continue
        name = reference.name(claim.benchmark) if claim.benchmark else ""
        title = {"score": f"printed score, {name} (3)", "average": "printed average (3)"}.get(claim.kind, claim.text)
        found.setdefault(title, []).append(claim.id)
    return found


def too_high(found: Mapping[str, Any]) -> list[str]:
    """Families whose error is above 5 % by more than three Monte-Carlo errors, at the documented conditions."""
    said = []
    for one in found["conditions"]:
        for question, errors in one["families"].items():
            if question == "any claim":
                continue
            allowed = LIMIT + 3 * math.sqrt(LIMIT * (1 - LIMIT) / one["sets"])
            said += [
                f"{one['what']}, {one['scenario']}, {one['value']}: {question} {name} {100 * rate:.1f} %"
                for name, rate in errors.items()
                if rate > allowed
            ]
    return said


# --- docs/verdicts.md -------------------------------------------------------------------------------------------------


HEAD = """# How often the verdicts are wrong

Made by `python benchmarks/verdict_rates.py --out docs/verdicts.md`: {sets} evidence sets a condition, seed {seed}.
Whole evidence sets are drawn and judged by the report's own rules. A rate near 5 % is known to {error:.1f} points (two
Monte-Carlo errors). What the words mean: [report.md](report.md).

The promise: over all claims that answer one question, a false claim is called `reproduced` in at most 5 of 100 reports,
a true one `not reproduced` in at most 5, and an effect of the margin's size `smaller than the margin` in at most 5. It
holds under these conditions:

- Problems are fixed, samples are independent, base and model are sampled alike, and what is printed as one sample a
  problem is one.
- Scores: any number of samples a problem. Below 4 the data may still exclude a printed score; else they cannot tell.
- Training: three or more seeds of one recipe, whose true effects are normally distributed. Below three nothing is said.
- Length and KL: trainings of one recipe lie about 5 % apart in length and a factor of two in KL. Where they lie farther
  apart, the verdict speaks of these trainings only.

Where the re-evaluation is right and the printed scores are the real ones, nothing decides whether a printed score is a
draw of the model, and no error is counted for it. Without any effect, a significant change either way is an error.

Nineteen of the 35 claims (fifteen scores, three averages, one gain) can never be more than compatible: what is printed
is one draw. Two more (7,000 samples, 42,000 outputs) are fixed by the recipe before anything runs.
"""


def page(found: Mapping[str, Any]) -> Iterator[str]:
    sets = found["sets"]
    yield HEAD.format(sets=sets, seed=found["seed"], error=200 * math.sqrt(LIMIT * (1 - LIMIT) / sets))
    yield from _together(found)
    yield from _errors(found, "scores", SCENARIOS, "k")
    yield from _errors(found, "training", TRAININGS, "points apart")
    for scenario, title in SCENARIOS.items():
        yield from _words(found, "scores", scenario, f"Scores. {title}", "k")
    for scenario, title in TRAININGS.items():
        yield from _words(found, "training", scenario, f"Training. {title}", "points apart")


def _together(found: Mapping[str, Any]) -> Iterator[str]:
    """Each family's rates over all conditions: known better than that of one condition."""
    yield "## Over all conditions together"
    yield ""
    yield "| question | reports | false reproduced | false not reproduced | false smaller |"
    yield "|---|---:|---:|---:|---:|"
    questions = dict.fromkeys(question for one in found["conditions"] for question in one["families"])
    for question in questions:
        mine = [one["families"][question] for one in found["conditions"] if question in one["families"]]
        rates = (f"{100 * sum(one[name] for one in mine) / len(mine):.1f} %" for name in ERRORS)
        yield f"| {question} | {found['sets'] * len(mine):,} | {' | '.join(rates)} |"
    yield ""


def _errors(found: Mapping[str, Any], what: str, scenarios: Mapping[str, str], name: str) -> Iterator[str]:
    yield f"## Errors, {what}: false reproduced / false not reproduced / false smaller, in % of reports"
    yield ""
    for scenario, title in scenarios.items():
        mine = [one for one in found["conditions"] if (one["what"], one["scenario"]) == (what, scenario)]
        yield f"{title}."
        yield ""
        yield "| question | " + " | ".join(_condition(one, name) for one in mine) + " |"
        yield "|---|" + "---:|" * len(mine)
        for question in mine[0]["families"]:
            cells = (" / ".join(f"{100 * one['families'][question][e]:.1f}" for e in ERRORS) for one in mine)
            yield f"| {question} | " + " | ".join(cells) + " |"
        yield ""


def _condition(one: Mapping[str, Any], name: str) -> str:
    return f"{one['seeds']} seeds, {one['value']} {name}" if one["what"] == "training" else f"{name} = {one['value']}"


def _words(found: Mapping[str, Any], what: str, scenario: str, title: str, name: str) -> Iterator[str]:
    mine = [one for one in found["conditions"] if (one["what"], one["scenario"]) == (what, scenario)]
    yield f"## {title}"
    yield ""
    yield "Which verdict, in %: R reproduced, C compatible, ? cannot tell, S smaller than the margin, N not reproduced."
    yield ""
    yield "| claim | " + " | ".join(_condition(one, name) for one in mine) + " |"
    yield "|---|" + "---|" * len(mine)
    short = dict(zip(WORDS, ("R", "C", "?", "S", "N", "", ""), strict=True))
    for row in mine[0]["words"]:
        cells = []
        for one in mine:
            shares = one["words"][row]
            cells.append(
                ", ".join(f"{short[word]} {100 * share:.0f}" for word, share in shares.items() if share >= 0.005)
            )
        yield f"| {row} | " + " | ".join(cells) + " |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400, help="evidence sets a condition")
    parser.add_argument("--small", type=int, metavar="SETS", help="only k = 4, and three seeds 0 and 2 points apart")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--json", metavar="FILE", help="write the rates")
    given = parser.parse_args()
    conditions = SMALL if given.small else {}
    found = simulate(given.small or given.sets, given.processes, **conditions)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    if given.out:
        Path(given.out).write_text("\n".join(page(found)).rstrip() + "\n")
    for line in (bad := too_high(found)):
        print(f"too high: {line}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
