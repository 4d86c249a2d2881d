"""How long the report of a large run takes and how much memory: 10,000 steps, 50,000 samples. Wanted: 60 s, 2 GB, 6 MB.

    python benchmarks/report_large.py [FOLDER]

The run is made up (tests/report/made_run.py) in FOLDER or a temporary folder; only the report is timed, in a process of
its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
from made_run import made_run

STEPS, SAMPLES_EACH = 10_000, 50_000
MEASURE = """
import resource, sys, time
began = time.perf_counter()
from pathlib import Path
from openrs.report.pages.page import write_report
from openrs.run.directory import Run
page = write_report(Run(Path(sys.argv[1])))
seconds, spent = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
print(f"{seconds:.1f} s, {spent.ru_utime + spent.ru_stime:.1f} s of CPU, {spent.ru_maxrss / 2**20:.2f} GiB")
print(*(f"{p.name} {p.stat().st_size / 1e6:.2f} MB" for p in sorted(page.parent.glob("report.*"))), sep=", ")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary) / "large"
        if not folder.is_dir():
            began = time.perf_counter()
            # 620 problems x 16 samples, five evaluations: 49,600, each a text of 8,000 characters
            benchmarks = (("aime24", 155, 0.3), ("math_500", 465, 0.8))
            made_run(
                folder, steps=STEPS, checkpoints=(0, 2500, 5000, 7500, 10000), benchmarks=benchmarks, samples=16,
                text_length=8000,
            )  # fmt: skip
            print(f"made in {time.perf_counter() - began:.0f} s")
        samples = sum(sum(1 for _ in path.open("rb")) for path in folder.glob("eval/*/samples.jsonl"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        print(f"{STEPS:,} steps, {samples:,} samples, {size:,.0f} MB")
        subprocess.run([sys.executable, "-c", MEASURE, str(folder)], check=True)
        tree = json.loads((folder / "report.json").read_text())
        print(f"evaluations {len(tree['runs'][0]['evaluations'])}, claims {len(tree['claims'])}")


if __name__ == "__main__":
    main()
