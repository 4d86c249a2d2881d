"""An evaluation cut into n parts for a cluster, by (benchmark, sample), and put together again: no gap, no overlap.

A part lives in shards/2-of-4/ of the evaluation's folder, with its own settings.json and samples.jsonl, and with
done.json when it is finished; the folders may come from different machines. Merging needs no model: every sample of the
whole is there once, or it is refused; what was asked stands in settings.json, the problems are read again and compared.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation import benchmarks as bench
from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.plan import RECORD, EvalPlan, differences, problems_digest, read_record
from openrs.evaluation.sampling import Key, read_samples, write_samples
from openrs.evaluation.scores import build_scores, write_scores
from openrs.outside import check_shape, read_shape
from openrs.run.confined import refuse_links_out
from openrs.run.directory import run_at
from openrs.run.files import write_json

DONE = "done.json"
MOST_SHARDS = 9999
SHARD_SHAPE = {"called": str, "shard": {"number": int, "of": int, "tokens": {"*": int}}}
DONE_SHAPE = {"drawn": int, "seconds": {"*": int | float}}


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `of`."""

    number: int
    of: int

    def folder(self, evaluation: Path) -> Path:
        return evaluation / "shards" / f"{self.number}-of-{self.of}"


def shard_from(text: str) -> Shard:
    """From `2/4`. Raises UserError."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.number <= shard.of:
        raise UserError(f"there is no shard {text}", fix="--shard 1/4, 2/4, 3/4 and 4/4 are the four quarters")
    return shard


def assigned(weights: Mapping[tuple[str, int], int], of: int) -> dict[tuple[str, int], int]:
    """Which shard (from 1) draws which (benchmark, sample): the heaviest first, each to the shard with least to do."""
    loads = [0] * of
    found = {}
    for pair, weight in sorted(weights.items(), key=lambda item: (-item[1], item[0])):
        number = loads.index(min(loads))
        loads[number] += weight
        found[pair] = number + 1
    return found


def pairs_of(record: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """Every (benchmark, sample) of an evaluation, with its weight: problems times their usual tokens."""
    return {
        (name, sample): facts["n"] * tokens[name]
        for name, facts in record["benchmarks"].items()
        for sample in range(facts["k"])
    }


def requests_of_shard(plan: EvalPlan, shard: Shard) -> EvalPlan:
    """The plan with this shard's requests only. Raises UserError when there are more shards than parts to give away."""
    tokens = {benchmark.name: benchmark.tokens for benchmark in plan.benchmarks}
    pairs = pairs_of(plan.record, tokens)
    if shard.of > len(pairs):
        raise UserError(
            f"{shard.of} shards for {len(pairs)} parts",
            "an evaluation is cut by benchmark and sample",
            f"take at most {len(pairs)} shards, or more samples",
        )
    mine = {pair for pair, number in assigned(pairs, shard.of).items() if number == shard.number}
    record = {**plan.record, "shard": {"number": shard.number, "of": shard.of, "tokens": tokens}}
    return replace(
        plan,
        requests=[request for request in plan.requests if (request.benchmark, request.sample) in mine],
        record=record,
    )


def finish_shard(folder: Path, plan: EvalPlan, seconds: Mapping[str, float], drawn: int) -> None:
    """Mark a shard as finished; the merge takes no other."""
    if drawn or not (folder / DONE).is_file():
        write_json(folder / DONE, {"samples": len(plan.requests), "drawn": drawn, "seconds": dict(seconds)})


# --- put together ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A finished shard on disk."""

    path: Path
    shard: Shard
    record: dict[str, Any]
    done: dict[str, Any]


def merge(paths: Sequence[Path], run: str | None, data: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Merge each evaluation among `paths`; yields its folder and its scores.

    paths: evaluations' folders (with shards/ in them), runs (with eval/ in them), or shards' own folders from anywhere,
    which then are one evaluation and go into `run`.
    Raises UserError for a gap, an overlap, shards of different evaluations, and problems that are not those asked.
    """
    for path in paths:
        refuse_links_out(path)
    alone = [path for path in paths if (path / RECORD).is_file() and not (path / "shards").is_dir()]
    if alone and len(alone) < len(paths):
        raise UserError("shards and whole evaluations together", fix="give the shards of one evaluation only")
    if alone:
        parts = [part_at(path) for path in alone]
        parents = {path.resolve().parent for path in alone}
        if run is not None:
            refuse_links_out(run_at(run).path)
            into = run_at(run).evaluation(parts[0].record["called"])
        elif len(parents) == 1 and next(iter(parents)).name == "shards":
            into = next(iter(parents)).parent
        else:
            raise UserError("the shards come from several folders", fix="--run NAME says where the whole goes")
        yield into, merged(parts, into, data)
        return
    found = [folder for path in paths for folder in evaluations_in(path)]
    for folder in found:
        yield folder, merged([part_at(path) for path in sorted((folder / "shards").iterdir())], folder, data)


def evaluations_in(path: Path) -> list[Path]:
    """Folders with shards: `path` itself, or those in its eval/. Raises UserError when there is none."""
    found = [path] if (path / "shards").is_dir() else sorted(p.parent for p in path.glob("eval/*/shards") if p.is_dir())
    if not found:
        what = "has no shards" if path.is_dir() else "is not a folder"
        raise UserError(f"{path} {what}", fix="give an evaluation's folder (runs/NAME/eval/MODEL), or a run")
    return found


def part_at(path: Path) -> Part:
    record = read_record(path)
    cut = record.get("shard") if record is not None else None
    if record is None or not isinstance(cut, dict):
        raise UserError(f"{path} is not a shard of an evaluation", fix="take it away, or give the shards' folders")
    anew = "evaluate the shard anew in an empty folder"
    check_shape(record, SHARD_SHAPE, str(path / RECORD), anew)
    shard = Shard(cut["number"], cut["of"])
    if not 1 <= shard.number <= shard.of <= MOST_SHARDS:
        raise UserError(f"{path / RECORD}: there is no shard {shard.number} of {shard.of}", fix=anew)
    if not (path / DONE).is_file():
        raise UserError(
            f"shard {shard.number} of {shard.of} is not finished: {path}",
            fix=f"give its command again (--shard {shard.number}/{shard.of}); it draws what is missing",
        )
    return Part(path, shard, record, read_shape(path / DONE, DONE_SHAPE, anew))


def merged(parts: Sequence[Part], into: Path, data: str | None) -> dict[str, Any]:
    first = parts[0]
    refuse_mixture(parts)
    record = {key: value for key, value in first.record.items() if key != "shard"}
    settings = Evaluation.model_validate(record["evaluation"])
    benchmarks = bench.resolve(settings.benchmarks)
    problems = read_again(benchmarks, record, data or settings.data)
    shards = assigned(pairs_of(first.record, first.record["shard"]["tokens"]), first.shard.of)
    shares = {  # every sample of the whole, and the shard (from 1) that draws it
        (name, problem.id, sample): number for (name, sample), number in shards.items() for problem in problems[name]
    }
    rows: dict[Key, dict[str, Any]] = {}
    for part in parts:
        rows |= rows_of(part, shares)
    samples = into / "samples.jsonl"
    there = read_samples(samples)
    if there and there.keys() != rows.keys():
        raise UserError(
            f"{samples} holds {len(there)} samples of another evaluation",
            "they would be lost, or counted together",
            "move the file away, or give another --run",
        )
    write_samples(samples, rows)
    write_json(into / RECORD, record)
    seconds = {name: sum(part.done["seconds"].get(name, 0.0) for part in parts) for name in first.done["seconds"]}
    document = build_scores(record, problems, rows, seconds, sum(part.done["drawn"] for part in parts))
    return write_scores(into, benchmarks, record, document=document, rows=rows)


def refuse_mixture(parts: Sequence[Part]) -> None:
    """All shards are of one evaluation, cut once; none is missing, none is there twice."""
    first = parts[0]
    for part in parts[1:]:
        changed = differences(first.record, part.record)
        if part.shard.of != first.shard.of:
            changed.append(f"cut into {part.shard.of} and into {first.shard.of}")
        one, other = ((record["benchmarks"], record["shard"]["tokens"]) for record in (first.record, part.record))
        if not changed and one != other:
            changed.append("other benchmarks or samples")
        if changed:
            raise UserError(f"{first.path} and {part.path} are not of one evaluation: {'; '.join(changed)}")
    places: dict[int, Path] = {}
    for part in parts:
        if (twin := places.get(part.shard.number)) is not None:
            raise UserError(
                f"shard {part.shard.number} of {part.shard.of} is there twice: {part.path} and {twin}",
                "its samples would be counted twice",
                "give each shard once",
            )
        places[part.shard.number] = part.path
    lacking = [str(number) for number in range(1, first.shard.of + 1) if number not in places]
    if lacking:
        raise UserError(
            f"shard {', '.join(lacking)} of {first.shard.of} missing",
            "scores would be of a part of the samples",
            "evaluate them first (--shard), or give their folders too",
        )


def read_again(
    benchmarks: Sequence[Benchmark], record: Mapping[str, Any], data: str | None
) -> dict[str, Sequence[EvalProblem]]:
    folder = Path(data).expanduser() if data is not None else None
    problems: dict[str, Sequence[EvalProblem]] = {}
    for name, rows in ((benchmark.name, bench.load_problems(benchmark, folder)) for benchmark in benchmarks):
        problems[name] = rows
        if problems_digest(rows) != record["benchmarks"][name]["problems"]:
            raise UserError(f"the problems of {name} here are not those that the shards answered", fix="give --data")
    return problems


def rows_of(part: Part, shares: Mapping[Key, int]) -> dict[Key, dict[str, Any]]:
    path = part.path / "samples.jsonl"
    rows = read_samples(path)
    foreign = [key for key in rows if shares.get(key) != part.shard.number]
    if foreign:
        where = shares.get(foreign[0])
        owner = f"shard {where}" if where else "no shard"
        raise UserError(
            f"{path}: {len(foreign)} samples overlap with other shards, or belong to none; the first, sample"
            f" {foreign[0][2]} of {foreign[0][1]}, belongs to {owner}",
            "a sample counts once",
            "evaluate the shard anew in an empty folder",
        )
    lacking = [key for key, number in shares.items() if number == part.shard.number and key not in rows]
    if lacking:
        raise UserError(
            f"{path}: {len(lacking)} samples are missing, the first is sample {lacking[0][2]} of {lacking[0][1]}",
            fix=f"give the shard's command again (--shard {part.shard.number}/{part.shard.of}); it draws them",
        )
    return rows
