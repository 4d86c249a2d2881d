"""Judging 2,000 long completions: openrs's pool of killable processes against the published reward in one process.

    python benchmarks/grading.py [--rows 2000] [--json FILE]

Reference answers: real ones of DeepScaleR (../shared/data/training, or OPENRS_SHARED_DATA). Completions: 12,000
characters of real problem texts, then the right answer in a box (half), another problem's (a quarter) or none (a
quarter). The published reward is math-verify 0.5.2 with the paper's settings, row after row, as the authors' trainer
had it.
Clean: the rows in chunks, here and there in turn; every verdict must be the same. Pathological: one row in a hundred
gets an answer that costs seconds (slow_latex.jsonl). The serial process may take 4 GiB, for this machine's sake; the
published one had no limit.
"""

import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import common

from openrs.rewards.grading import Item, Judge, Rule
from openrs.rewards.worker import math_verify_rule

LENGTH = 12_000
MEMORY = 4 * 2**30
_rule: Callable[[str, str], Any] | None = None


def published_verdict(gold: str, completion: str) -> str:
    """The published accuracy reward's question (rewards.py of knoveleng/open-rs at 2889c47), here and now."""
    global _rule  # noqa: PLW0603 - the settings are made once, as in the published module
    _rule = _rule or math_verify_rule(boxed="all")
    try:
        return str(_rule(gold, completion)[0])
    except (
        MemoryError,
        RecursionError,
        ValueError,
        OverflowError,
    ) as error:  # it would have ended the authors' training
        return f"raised {type(error).__name__}"


def published(gold: str, completion: str) -> float:
    return 1.0 if published_verdict(gold, completion) in {"correct", "unparseable_gold"} else 0.0


def serial(pipe: Connection) -> None:
    """A process that judges what it is sent, one after the other; answers verdicts, wall and processor seconds."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    published_verdict("$1$", r"$\boxed{1}$")
    while (items := pipe.recv()) is not None:
        began, before = time.perf_counter(), time.process_time()
        verdicts = [published_verdict(gold, text) for gold, text in items]
        pipe.send((verdicts, time.perf_counter() - began, time.process_time() - before))


def make_items(rows: int, data: Path) -> list[tuple[str, str]]:
    """Reference answers and completions, the same ones every time."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "training" / "deepscaler_part1.parquet").to_pylist()
    rng = random.Random(0)
    rng.shuffle(table)
    golds = [f"${row['reward_model']['ground_truth']}$" for row in table[:rows]]
    texts = [row["prompt"][0]["content"].partition(" Let's think step by step")[0] for row in table]
    items = []
    for number, gold in enumerate(golds):
        parts: list[str] = []
        while sum(map(len, parts)) < LENGTH:
            parts.append(texts[rng.randrange(len(texts))])
        answer = gold if number % 4 < 2 else golds[number - 1]
        end = "" if number % 4 == 3 else f"\nThe answer is $\\boxed{{{answer.strip('$')}}}$."
        items.append((gold, "\n\n".join(parts)[:LENGTH] + "\n</think>\n" + end))
    return items


def with_slow(items: list[tuple[str, str]], data: Path) -> list[tuple[str, str]]:
    """Every hundredth completion ends in an answer that costs a judge seconds."""
    slow = [json.loads(line)["text"] for line in (data / "slow_latex.jsonl").read_text().splitlines()]
    return [
        (gold, f"{text[:LENGTH]}\n</think>\n${slow[number // 100 % len(slow)]}$")
        if number % 100 == 50
        else (gold, text)
        for number, (gold, text) in enumerate(items)
    ]


Answer = tuple[list[str], float, float]  # verdicts, wall and processor seconds


class Sides:
    """The pool, and the serial process."""

    def __init__(self, workers: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=serial, args=(there,), daemon=True)
        self._process.start()
        self.judge = Judge(workers)

    def serial(self, items: list[tuple[str, str]]) -> Answer:
        self._pipe.send(items)
        answer: Answer = self._pipe.recv()
        return answer

    def pool(self, items: list[tuple[str, str]]) -> Answer:
        before, began = self._spent(), time.perf_counter()
        grades = self.judge.grade([Item(gold, text, Rule.PAPER) for gold, text in items])
        wall = time.perf_counter() - began
        return [str(grade.verdict) for grade in grades], wall, self._spent() - before

    def _spent(self) -> float:
        """Processor seconds of this process and the pool."""
        return common.tree_seconds(os.getpid()) - common.tree_seconds(self._process.pid or 0)

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(10)
        self.judge.close()


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2000, metavar="N")
    parser.add_argument("--chunk", type=int, default=100, metavar="N", help="rows in a turn (default 100)")
    parser.add_argument("--workers", type=int, metavar="N", help="of the pool (default: the judge's)")
    parser.add_argument("--data", type=Path, default=common.shared_data(), metavar="DIR")
    parser.add_argument("--clean-only", action="store_true", help="leave out the pathological mix (minutes)")
    args = parser.parse_args()
    if not (args.data / "training").is_dir():
        sys.exit(f"grading.py: no training/ in {args.data}: give --data DIR")
    items = make_items(args.rows, args.data)
    sides = Sides(args.workers)
    name = f"pool of {sides.judge.workers}"
    for ask in (sides.pool, sides.serial):
        ask(items[: args.chunk])  # starts everything
    ours: list[Answer] = []
    theirs: list[Answer] = []
    for number, start in enumerate(range(0, len(items), args.chunk)):
        chunk = items[start : start + args.chunk]
        for into, ask in ((ours, sides.pool), (theirs, sides.serial))[:: -1 if number % 2 else 1]:
            into.append(ask(chunk))
    found, expected = ([verdict for one in done for verdict in one[0]] for done in (ours, theirs))
    differ = sum(a != b for a, b in zip(found, expected, strict=True))
    rows: list[list[object]] = [["input", "judge", "rows/s", "CPU ms/row", "longest turn s"]]
    for judge, done in ((name, ours), ("serial", theirs)):
        speed = common.spread([len(verdicts) / wall for verdicts, wall, _ in done])
        cpu = common.spread([1000 * used / len(verdicts) for verdicts, _, used in done])
        rows.append(["clean", judge, str(speed), str(cpu), max(wall for _, wall, _ in done)])
    ratios = {
        "grading/clean/wall": common.paired([one[1] for one in ours], [one[1] for one in theirs]),
        "grading/clean/cpu": common.paired([one[2] for one in ours], [one[2] for one in theirs]),
    }
    print(f"clean: {dict(Counter(found))}; {differ} of {len(items)} verdicts differ")
    more: dict[str, Any] = {"verdicts": dict(Counter(found)), "differ": differ}
    if not args.clean_only:
        bad = with_slow(items, args.data)
        changed = [i for i in range(len(bad)) if bad[i] != items[i]]
        fast, slow = sides.pool(bad), sides.serial(bad)
        ratios["grading/pathological/wall"] = common.spread([slow[1] / fast[1]])
        for judge, one in ((name, fast), ("serial", slow)):
            rows.append(["1 % pathological", judge, len(bad) / one[1], 1000 * one[2] / len(bad), one[1]])
        spoiled = sum(fast[0][i] != found[i] for i in set(range(len(bad))) - set(changed))
        told = {judge: dict(Counter(one[0][i] for i in changed)) for judge, one in (("pool", fast), ("serial", slow))}
        print(f"{len(changed)} pathological: {told}; {spoiled} verdicts of clean rows beside them changed")
        more |= {"pathological": told, "spoiled": spoiled}
    sides.close()
    common.finish("grading", args.json, ratios, rows, **more)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
