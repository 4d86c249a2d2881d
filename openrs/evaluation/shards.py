"""An evaluation cut into n parts for a cluster, by (benchmark, sample), and put together again: no gap, no overlap.

A part lives in shards/2-of-4/ of the evaluation's folder, with its own settings.json and samples.jsonl, and with
done.json when it is finished; the folders may come from different machines. merge.py puts them together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.evaluation.plan import EvalPlan
from openrs.run.files import write_json

DONE = "done.json"
MOST_SHARDS = 9999


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
    """Mark a shard as finished; the merge (merge.py) takes no other."""
    if drawn or not (folder / DONE).is_file():
        write_json(folder / DONE, {"samples": len(plan.requests), "drawn": drawn, "seconds": dict(seconds)})
