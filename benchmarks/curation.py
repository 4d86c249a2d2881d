"""The curation chain on DeepScaleR's 40,315 rows against a plain script on `datasets` with the same stages.

    python benchmarks/curation.py --data DIR [--rows N] [--processes 2] [--json FILE] [--only ours|plain]

DIR is the folder with training/deepscaler_part*.parquet and benchmarks/NAME.jsonl. Both sides: read, the gold
verified by the judge, form, exact and near copies (MinHash by datasketch), benchmark questions by 5-grams, language,
length, draw, parquet.
The plain script is what one writes with `datasets`: map and filter with num_proc, MinHashLSH in memory, no journal, no
reasons, no resume; it calls the same checks, so that only the machinery differs. Prints seconds, CPU seconds, rows per
second and the peak memory of all processes together; each side runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."
FIVE = ["aime24", "amc23", "math_500", "minerva", "olympiadbench"]
DRAWN = 7000


def recipe(data: Path, rows: int | None) -> dict:
    paths = [str(data / "training" / f"deepscaler_part{n}.parquet") for n in (1, 2)]
    return {
        "title": "benchmark", "sources": {"raw": {"path": paths, "strip_suffix": SUFFIX, "limit": rows}},
        "stages": {
            "verify": {}, "form": {}, "duplicates": {},
            "decontaminate": {"benchmarks": FIVE, "data": str(data / "benchmarks")}, "language": {}, "length": {},
            "draw": {"rows": DRAWN, "short": "take_all"},
        },
    }  # fmt: skip


def plain(data: Path, rows: int | None, processes: int, out: Path) -> int:
    """What a careful afternoon's script does. Returns the rows that are left."""
    from datasets import Dataset, disable_progress_bars, load_dataset
    from datasketch import MinHash, MinHashLSH

    from openrs.curation import decontaminate, stages
    from openrs.curation.references import ReferenceJudge
    from openrs.curation.rows import Row
    from openrs.curation.settings import Decontaminate, Form, Language, Length, Verify
    from openrs.curation.text import shingles, tokens

    disable_progress_bars()
    files = [str(data / "training" / f"deepscaler_part{n}.parquet") for n in (1, 2)]
    table = load_dataset("parquet", data_files=files, split="train", cache_dir=str(out / "cache"))
    table = table.select(range(rows)) if rows else table
    table = table.map(
        lambda r: {
            "problem": r["prompt"][0]["content"].removesuffix(SUFFIX), "answer": r["reward_model"]["ground_truth"],
        },
        remove_columns=table.column_names, num_proc=processes,
    )  # fmt: skip
    table = table.filter(lambda r: bool(r["answer"].strip()) and "\x0c" not in r["problem"], num_proc=processes)

    def as_row(r: dict, n: int = 0) -> Row:
        return Row(n, str(n), "raw", "", r["problem"], None, r["answer"].strip())

    with ReferenceJudge(Verify(), processes) as judge:
        judged = judge.check([as_row(r, n) for n, r in enumerate(table)])
    good = [n for n, one in enumerate(judged) if isinstance(one, Row)]
    table = table.select(good)
    form = stages.check_of(Form())
    table = table.filter(lambda r: isinstance(form(as_row(r)), Row), num_proc=processes)
    seen: set[str] = set()
    table = table.select([n for n, r in enumerate(table) if not (r["problem"] in seen or seen.add(r["problem"]))])

    def sketch(r: dict) -> dict:
        made = MinHash(num_perm=128)
        made.update_batch([gram.encode() for gram in shingles(tokens(r["problem"]), 3)])
        return {"sketch": made.hashvalues.tolist()}

    table = table.map(sketch, num_proc=processes)
    lsh, keep = MinHashLSH(threshold=0.8, num_perm=128), []
    for number, values in enumerate(table["sketch"]):
        made = MinHash(hashvalues=values, scheme="affine32")
        if not lsh.query(made):
            lsh.insert(number, made)
            keep.append(number)
    table = table.select(keep).remove_columns("sketch")
    settings = Decontaminate(benchmarks=FIVE, data=str(data / "benchmarks"))
    asked = decontaminate.gather(settings, out)
    for check in (
        decontaminate.decontaminate(settings, asked), stages.check_of(Language()), stages.check_of(Length()),
    ):  # fmt: skip
        table = table.filter(lambda r, c=check: isinstance(c(as_row(r)), Row), num_proc=processes)
    drawn: Dataset = table.shuffle(seed=42).select(range(min(DRAWN, len(table))))
    drawn.to_parquet(str(out / "train.parquet"))
    return len(drawn)


def measured(words: list[str]) -> dict[str, float]:
    """Wall clock, CPU seconds and peak memory of a command and all that it starts."""
    began = time.monotonic()
    process = psutil.Popen(
        words, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL
    )
    peak, cpu = 0, {}
    while process.poll() is None:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_info().rss
                cpu[one.pid] = sum(one.cpu_times()[:2])
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return {"seconds": time.monotonic() - began, "cpu": sum(cpu.values()), "peak_gib": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["ours", "plain"])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        plain(args.data, args.rows, args.processes, args.inside)
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(json.dumps(recipe(args.data.resolve(), args.rows)))
        ours = [sys.executable, "-m", "openrs.cli", "curate", str(file), "--out", f"{scratch}/ours"]
        ours += ["--workers", str(args.processes)]
        theirs = [sys.executable, __file__, "--data", str(args.data.resolve()), "--inside", scratch]
        theirs += ["--processes", str(args.processes), *(["--rows", str(args.rows)] if args.rows else [])]
        for name, words in (("openrs curate", ours), ("plain datasets", theirs)):
            if args.only is None or args.only in name.replace("openrs curate", "ours"):
                results[name] = measured(words)
    rows = args.rows or 40_315
    print(f"{rows:,} rows, {args.processes} processes; load of the machine {os.getloadavg()[1]:.1f}")
    print(f"{'':16}{'seconds':>9}{'CPU s':>8}{'rows/s':>9}{'rows/CPU s':>12}{'peak GiB':>10}")
    for name, one in results.items():
        one |= {"rows": rows, "rows_per_second": rows / one["seconds"], "rows_per_cpu_second": rows / one["cpu"]}
        print(
            f"{name:16}{one['seconds']:>9.0f}{one['cpu']:>8.0f}{one['rows_per_second']:>9.0f}"
            f"{one['rows_per_cpu_second']:>12.0f}{one['peak_gib']:>10.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps({"load": os.getloadavg()[1], "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
