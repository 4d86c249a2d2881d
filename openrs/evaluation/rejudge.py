"""`openrs evaluate --rejudge`: today's judge on stored samples. No model, no GPU, nothing sampled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation import benchmarks as bench
from openrs.evaluation.benchmarks import Benchmark
from openrs.evaluation.plan import RECORD, read_record
from openrs.evaluation.sampling import Samples
from openrs.evaluation.scores import build_scores, print_scores, read_scores, write_scores
from openrs.evaluation.scoring import Referee, text_of, thinks
from openrs.evaluation.shards import read_again
from openrs.rewards.grading import Judge
from openrs.run.directory import Lock, Run, run_at
from openrs.run.files import write_json
from openrs.run.progress import Progress


def rejudge(run: str, data: str | None, judge: Judge, progress: Progress) -> None:
    """Judge every finished evaluation of a run anew, or the one whose folder is given: the journal's verdicts, both of
    them, scores.json and a new results file. Says how many verdicts are others than before; with the same lighteval, 0
    of its own.

    Raises UserError where there is none, where samples are missing, and where other problems were asked.
    """
    found = folders(run)
    if not found:
        raise UserError(
            f"{run} holds no evaluation", fix="give a run (its eval/ is looked through), or an evaluation's folder"
        )
    for folder in found:
        _one(folder, data, judge, progress)


def folders(run: str) -> list[Path]:
    if (Path(run) / RECORD).is_file():
        return [Path(run)]
    return sorted(path.parent for path in (run_at(run).path / "eval").glob(f"*/{RECORD}"))


def _one(folder: Path, data: str | None, judge: Judge, progress: Progress) -> None:
    record = read_record(folder)
    assert record is not None
    settings = Evaluation.model_validate(record["evaluation"])
    chosen = benchmarks_of(record, settings.benchmarks)
    problems = read_again(chosen, record, data or settings.data)
    with Lock(Run(folder)), Samples(folder / "samples.jsonl") as samples:
        wanted = [
            (one.name, problem.id, sample)
            for one in chosen
            for problem in problems[one.name]
            for sample in range(record["benchmarks"][one.name]["k"])
        ]
        missing = [key for key in wanted if key not in samples.rows]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(wanted)} samples are missing",
                "a score over a part of the samples is no score of the benchmark",
                "finish it first: openrs evaluate draws only what is missing",
            )
        old = [samples.rows[key] for key in wanted]
        progress.say(f"{folder}: judging {len(old)} samples anew")
        record = {**record, "thinking": thinks(record, old)}
        verdicts = Referee(judge, chosen, problems, record["thinking"]).judge([text_of(row) for row in old])
        new = [{**row, **verdict} for row, verdict in zip(old, verdicts, strict=True)]
        samples.set_verdicts(new)
        write_json(folder / RECORD, record)
        known = read_scores(folder)
        seconds = known["seconds"] if known else dict.fromkeys(("load", "generate", "score"), 0.0)
        document = build_scores(record, problems, samples.rows, seconds, known["drawn"] if known else len(old))
        scores = write_scores(folder, chosen, record, document=document, rows=samples.rows, known=known)
    changed, strict_changed = (
        sum(a.get(key) != b[key] for a, b in zip(old, new, strict=True)) for key in ("verdict", "strict")
    )
    print_scores(progress, scores["model"]["name"], scores, folder)
    progress.say(
        f"of {len(old)} verdicts, {changed} of lighteval's and {strict_changed} of the strict judge's are others than"
        " before"
    )


def benchmarks_of(record: dict[str, Any], named: Sequence[str]) -> list[Benchmark]:
    """The evaluation's benchmarks: of its last visit, and of earlier ones where they come with openrs."""
    chosen = {one.name: one for one in bench.resolve(list(named)) if one.name in record["benchmarks"]}
    known = bench.known()
    return list(chosen.values()) + [
        known[name] for name in record["benchmarks"] if name not in chosen and name in known
    ]
