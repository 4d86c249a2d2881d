"""From finished samples to scores.json: every number with its n, its k and how sure it is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.lighteval_results import write_results
from openrs.evaluation.sampling import Rows
from openrs.outside import read_shape
from openrs.rewards.references import reference_kinds
from openrs.run.files import now, write_json
from openrs.run.progress import Progress

SURE = ("correct", "incorrect", "no_answer")  # the other verdicts count as wrong, and are said


def score(problems: Sequence[EvalProblem], benchmark: str, samples: int, rows: Rows) -> dict[str, Any]:
    """Scores of one benchmark from its samples; `rows` holds all n x k of them.

    Returns the benchmark's part of scores.json: accuracy is avg@k, the interval takes the problems as a sample,
    interval_fixed these very problems. Every verdict but `correct` counts as wrong.
    """
    from openrs.evaluation import statistics  # here: scipy takes half a second

    grid = [[rows[benchmark, problem.id, sample] for sample in range(samples)] for problem in problems]
    correct = [[int(row["verdict"] == "correct") for row in line] for line in grid]
    answers = [[vote(row["answer"]) for row in line] for line in grid]
    average = statistics.avg_at_k(correct)
    flat = [row for line in grid for row in line]
    return {
        "n": len(problems),
        "k": samples,
        **_over_problems(average),
        "stderr_fixed": average.se_fixed,
        "interval_fixed": [average.fixed.low, average.fixed.high],
        "pass_at_k": {str(k): statistics.pass_at_k(correct, k) for k in powers_of_two(samples)},
        "majority": statistics.majority(answers, correct) if samples > 1 else None,
        "truncated": sum(row["finish"] == "length" for row in flat),
        "mean_tokens": sum(row["tokens"] for row in flat) / len(flat),
        "verdicts": dict(Counter(str(row["verdict"]) for row in flat).most_common()),
        "strict": strict(problems, grid),
        "references": dict(Counter(kind for problem in problems for kind in reference_kinds(problem.gold))),
        "per_problem": {problem.id: line for problem, line in zip(problems, correct, strict=True)},
    }


def strict(problems: Sequence[EvalProblem], grid: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The second opinion: the corrected judge's accuracy, and every sample on which it and lighteval disagree.

    Never the score: that is lighteval's, so that it can be compared with others'. Lines of a journal that no strict
    judge has seen make it empty.
    """
    from openrs.evaluation import statistics

    if any("strict" not in row for line in grid for row in line):
        return {}
    average = statistics.avg_at_k([[int(row["strict"] == "correct") for row in line] for line in grid])
    rows = [
        {"problem": problem.id, "sample": sample, "verdict": str(row["verdict"]), "strict": str(row["strict"])}
        for problem, line in zip(problems, grid, strict=True)
        for sample, row in enumerate(line)
        if (row["verdict"] == "correct") != (row["strict"] == "correct")
    ]
    return {
        **_over_problems(average),
        "verdicts": dict(Counter(str(row["strict"]) for line in grid for row in line).most_common()),
        "disagree": len(rows),
        "only_lighteval": sum(row["verdict"] == "correct" for row in rows),
        "only_strict": sum(row["strict"] == "correct" for row in rows),
        "rows": rows,
    }


def _over_problems(average: Any) -> dict[str, Any]:
    interval = [average.problems.low, average.problems.high]
    return {"accuracy": average.value, "stderr": average.se_problems, "interval": interval}


def vote(answer: str) -> str | None:
    """What an answer votes for in majority@k: the value that was read (`\\frac{1}{2} -> 1/2` votes for 1/2)."""
    return answer.rpartition(" -> ")[2] or None


def e_notation(count: int, n: int) -> str:
    """The limit of a score whose references lighteval cannot read (58 of Minerva's 272)."""
    return f"{count} of {n} references are in e-notation, which lighteval misreads"


def powers_of_two(k: int) -> list[int]:
    """1, 2, 4 ... up to k, and k itself."""
    steps = [1]
    while steps[-1] * 2 <= k:
        steps.append(steps[-1] * 2)
    return steps if steps[-1] == k else [*steps, k]


def build_scores(
    record: Mapping[str, Any],
    problems: Mapping[str, Sequence[EvalProblem]],
    rows: Rows,
    seconds: Mapping[str, float],
    drawn: int,
) -> dict[str, Any]:
    """scores.json. `drawn`: how many samples the seconds belong to; a resumed evaluation has drawn others before."""
    return {
        "schema": 1,
        "model": record["model"],
        "protocol": record["protocol"],
        "inputs": record["inputs"],
        "benchmarks": {
            name: score(some, name, record["benchmarks"][name]["k"], rows) for name, some in problems.items()
        },
        "seconds": dict(seconds),
        "drawn": drawn,
        "finished": now(),
    }


def merge_scores(before: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """`new`, with the benchmarks that were scored in this folder before and were not asked for this time."""
    kept = {name: one for name, one in (before or {}).get("benchmarks", {}).items() if name not in new["benchmarks"]}
    if before is None or not kept:
        return new
    inputs = dict(new["inputs"])
    for part in ("checks", "changes"):
        inputs[part] = [one for one in before["inputs"][part] if one["benchmark"] in kept] + inputs[part]
    inputs["unproven"] = [name for name in before["inputs"]["unproven"] if name in kept] + inputs["unproven"]
    equal = sum(one["state"] == "equal" for one in inputs["checks"])
    proven = bool(inputs["checks"]) and equal == len(inputs["checks"]) and not inputs["changes"]
    inputs |= {"equal": equal, "of": len(inputs["checks"]), "proven": proven}
    return {**new, "inputs": inputs, "benchmarks": {**kept, **new["benchmarks"]}}


def write_scores(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    record: Mapping[str, Any],
    *,
    document: dict[str, Any],
    rows: Rows,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write lighteval's results file, and scores.json with what was `known` of other benchmarks in it; returns that."""
    write_results(folder, benchmarks, document, record, rows)
    whole = merge_scores(known, document)
    write_json(folder / "scores.json", whole)
    return whole


SCORES_SHAPE: dict[str, Any] = {  # what merge_scores and format_score read of it
    "model": {"name": str},
    "inputs": {"checks": [{"benchmark": str, "state": str}], "changes": [{"benchmark": str}], "unproven": [str]},
    "benchmarks": {
        "*": {
            "n": int, "k": int, "accuracy": int | float, "interval": [int | float], "truncated": int,
            "verdicts": {"*": int}, "strict?": {"accuracy": int | float, "disagree": int}, "references?": {"*": int},
        }
    },
}  # fmt: skip


def read_scores(folder: Path) -> dict[str, Any] | None:
    path = folder / "scores.json"
    try:
        return read_shape(path, SCORES_SHAPE)
    except UserError:
        return None


def format_score(score: Mapping[str, Any]) -> str:
    """An accuracy in words, never without n, k and its interval; what was cut off or not judged is counted."""
    low, high = score["interval"]
    asides = [f"{score['truncated']} cut off"] if score["truncated"] else []
    asides += [f"{count} {verdict}" for verdict, count in score["verdicts"].items() if verdict not in SURE]
    if second := score.get("strict"):
        asides.append(f"strict judge {100 * second['accuracy']:.1f} %, {second['disagree']} disagree")
    if (misread := score.get("references", {}).get("e-notation")) is not None:
        asides.append(e_notation(misread, score["n"]))
    return (
        f"{100 * score['accuracy']:.1f} % right (avg@{score['k']}, {score['n']} problems,"
        f" 95 % interval {100 * low:.1f} to {100 * high:.1f}{''.join(f', {aside}' for aside in asides)})"
    )


def print_scores(progress: Progress, name: str, scores: Mapping[str, Any], folder: Path) -> None:
    for benchmark, score in scores["benchmarks"].items():
        progress.say(f"{name}, {benchmark}: {format_score(score)}")
    answers = [change for change in scores["inputs"]["changes"] if change["what"] == "answer"]
    if answers:
        text = f"{len(answers)} answers are not the recorded ones, e.g. of {answers[0]['id']}"
        progress.say(f"{text}: the questions are the paper's, the score may not be")
    progress.say(f"samples and scores: {folder}")
