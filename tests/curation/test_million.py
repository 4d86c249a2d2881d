"""A million made-up rows stream through the chain: memory of the whole process tree stays under 4 GB."""

import json
import os
import random
import threading
import time

import pytest
from curation_helpers import openrs, recipe, stages

ROWS = int(os.environ.get("OPENRS_MANY_ROWS", "1000000"))  # a tenth: a few minutes


def write_million(path):
    """Short word problems from a few sentences; every tenth a copy, every fiftieth broken."""
    rng = random.Random(1)
    names = ["Ann", "Bob", "Eve", "Ida", "Joe", "Kim", "Lea", "Max", "Ned", "Pia"]
    things = ["apples", "pears", "coins", "stamps", "cards", "books", "shells", "marbles", "buttons", "pens"]
    last = "", ""
    with path.open("w") as file:
        for number in range(ROWS):
            a, b = rng.randrange(10_000), rng.randrange(10_000)
            if number % 10 == 9:
                problem, answer = last
            else:
                who, what = rng.choice(names), rng.choice(things)
                problem = f"{who} has {a} {what} and buys {b} more from a friend. How many {what} does {who} have then?"
                answer = str((a + b) % 1000)
            last = problem, answer
            file.write(json.dumps({"problem": problem, "answer": "" if number % 50 == 7 else answer}) + "\n")


@pytest.mark.soak
@pytest.mark.limits(processor=1800)
def test_a_million_rows_under_4_gb(tmp_path):
    import psutil

    source = tmp_path / "million.jsonl"
    write_million(source)
    chain = {"verify": {}, "form": {}, "duplicates": {}, "language": {}, "length": {}, "draw": {"rows": 20_000}}
    ran = openrs("curate", recipe(tmp_path / "r.yaml", source, chain), "--out", tmp_path / "out", "--workers", "2")
    peak = 0

    def watch():
        nonlocal peak
        while ran.poll() is None:
            total = 0
            for process in [psutil.Process(ran.pid), *psutil.Process(ran.pid).children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)
            time.sleep(0.5)

    began = time.monotonic()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    said, _ = ran.communicate()
    assert ran.returncode == 0, said
    print(f"{time.monotonic() - began:.0f} s, {peak / 2**30:.2f} GiB at most, all processes together")
    counted = stages(tmp_path / "out")
    assert counted["read"] == (ROWS, ROWS - ROWS // 50)
    assert counted["draw"][1] == 20_000
    assert peak < 4 * 10**9
