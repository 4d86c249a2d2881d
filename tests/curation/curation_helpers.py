"""What the curation's tests share: a recipe on small raw data, and reading what it left."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import forked
import pyarrow.parquet as pq

from openrs.curation.rows import Row

SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."
FIVE = ["aime24", "amc23", "math_500", "minerva", "olympiadbench"]


def row(problem: str, answer: str = "1", number: int = 0, solution: str | None = None, **more: object) -> Row:
    return Row(number, f"test/{number}", "test", f"test.jsonl:{number + 1}", problem, solution, answer, **more)


def jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def recipe(path: Path, source: str | Path, stages: dict, **more: object) -> Path:
    """A recipe file; JSON is YAML."""
    tree = {"title": "test", "seed": 42, "sources": {"raw": {"path": str(source), **more}}, "stages": stages}
    path.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    return path


def removed(out: Path) -> list[dict]:
    return pq.read_table(out / "removed" / "removed.parquet").to_pylist()


def kept(out: Path) -> list[dict]:
    return pq.read_table(out / "train.parquet").to_pylist()


def stages(out: Path) -> dict[str, tuple[int, int]]:
    return {
        one["name"]: (one["rows"], one["kept"]) for one in json.loads((out / "manifest.json").read_text())["stages"]
    }


def bytes_of(out: Path) -> dict[str, bytes]:
    """Everything that the chain left for people, by name; work/ is its own affair."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and "work" not in p.parts and p.name != ".lock"]
    found = {str(path.relative_to(out)): path.read_bytes() for path in files}
    manifest = json.loads(found["manifest.json"])
    manifest.pop("openrs")  # the code's commit: others commit while the tests run
    return found | {"manifest.json": json.dumps(manifest).encode()}


def openrs(*words: object, **environment: str) -> subprocess.Popen:
    return forked.Popen(
        [sys.executable, "-m", "openrs.cli", *map(str, words)], env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def problems(shared: Path) -> list[tuple[str, str]]:
    """DeepScaleR's 40,315 problems with their answers."""
    found = []
    for part in (1, 2):
        table = pq.read_table(
            shared / "training" / f"deepscaler_part{part}.parquet", columns=["prompt", "reward_model"]
        )
        found += [(r["prompt"][0]["content"], r["reward_model"]["ground_truth"]) for r in table.to_pylist()]
    return [(problem.removesuffix(SUFFIX), answer) for problem, answer in found]


def near_copy(problem: str, rng: random.Random) -> str:
    """The same question as somebody else would type it: other LaTeX, other spaces, capitals, a polite word before."""
    text = problem.replace("\\frac", "\\dfrac").replace("\\le ", "\\leq ")
    text = re.sub(r"(?<!\d),|,(?!\d)", " ,", re.sub(r"(?<!\$)\$(?!\$)", " $ ", text))
    text = re.sub(r"\s+", lambda m: rng.choice([" ", "  ", "\n"]), text.strip())
    return rng.choice(["", "Solve the following problem. ", "Question: "]) + text[0].lower() + text[1:]


def other_numbers(problem: str, rng: random.Random) -> str | None:
    """The same sentence with one number changed, not one in code that draws or an equation's label; None without."""
    asleep = [m.span() for m in re.finditer(r"\[asy\].*?(?:\[/asy\]|\Z)|\\tag\s*\{.*?\}", problem, re.DOTALL)]
    found = [
        m for m in re.finditer(r"(?<![\w.])\d+(?![\w.])", problem) if not any(a <= m.start() < b for a, b in asleep)
    ]
    if not found:
        return None
    one = rng.choice(found)
    return problem[: one.start()] + str(int(one[0]) + rng.choice([1, 2, 5, 10])) + problem[one.end() :]
