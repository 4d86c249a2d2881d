"""Anybody's lighteval results, 0.6 to 0.13, in one table: model, benchmark, score, n, k, stderr, inputs verified?

A score is shown only with n (problems) and k (samples a problem); where a file does not tell them they are worked out,
and how is said. Files come from strangers: a broken one is named and skipped, and nothing in it reaches the terminal
unescaped.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.evaluation.benchmarks import Benchmark, known
from openrs.evaluation.inputs import recorded_digests
from openrs.evaluation.scores import e_notation
from openrs.outside import read_json
from openrs.report.evidence.evaluations import MOST
from openrs.report.evidence.values import number, share, whole
from openrs.report.evidence.values import text as shown

MOST_SCORES = 2000  # read from one file; lighteval's largest suites have some hundred
NOTHING = "ef46db3751d8e999"
"""xxh64 of the empty text: what lighteval 0.13 writes for hash_full_prompts, which it no longer computes."""

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One score of one model on one benchmark.

    score: proportion in [0, 1], None when n or k is unknown (`withheld` says why). n: problems. k: samples a problem.
    n_from: where n is known from. inputs: verified, differs, no hash, unknown benchmark; inputs_detail: which hashes.
    sampling: temperature, top_p, max_tokens, as far as the file tells.
    """

    model: str
    benchmark: str
    metric: str
    score: float | None
    n: int | None
    k: int | None
    stderr: float | None
    n_from: str
    withheld: str
    inputs: str
    inputs_detail: str
    hash_cont_tokens: str | None
    date: str
    files: tuple[str, ...]
    sampling: Mapping[str, float] = field(default_factory=dict)
    strict: Mapping[str, Any] | None = None
    """The second opinion that openrs writes beside lighteval's score."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A path that gave nothing, or a score in it that is none."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    results: tuple[Result, ...]
    broken: tuple[Broken, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read(paths: Sequence[Path]) -> Reading:
    """Read result files, and folders of them (results_*.json, searched through). Raises nothing for a file's contents.

    Results that are equal in model, benchmark, metric, generated tokens (hash_cont_tokens), score and n are one run
    seen twice and are merged; everything else stays apart, also when only one of these differs.
    """
    results: list[Result] = []
    broken: list[Broken] = []
    for file, why_not in _files(paths):
        found, faults = ([], [why_not]) if why_not else _read_file(file)
        results += found
        broken += [Broken(str(file), fault) for fault in faults]
    return Reading(tuple(_merged(results)), tuple(broken))


def lines(reading: Reading) -> Iterator[str]:
    """The table, for people; after it what was merged, what was withheld, what is broken."""
    if reading.results:
        above = os.path.commonpath([str(Path(result.files[0]).absolute().parent) for result in reading.results])
        rows = [_cells(result, Path(above)) for result in reading.results]
        head = ("model", "benchmark", "score", "stderr", "n", "k", "metric", "inputs", "date", "file")
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
        for row in (head, *rows):
            yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        yield f"in percent; n problems, k samples a problem; stderr as in the file; files under {_safe(above)}"
    notes = [f"{_safe(r.model)} {_safe(r.benchmark)}: {note}" for r in reading.results for note in _notes(r)]
    yield from dict.fromkeys(notes)
    for broken in reading.broken:
        yield f"skipped: {_safe(broken.path)}: {_safe(broken.reason)}"


def _notes(result: Result) -> Iterator[str]:
    if result.withheld:
        yield f"score withheld: {result.withheld}"
    elif result.n_from not in ("the file", ""):
        yield f"n = {result.n} from {result.n_from}"
    if result.inputs == "differs":
        yield f"inputs differ from the paper's: {result.inputs_detail}"
    second = result.strict or {}
    if isinstance(second.get("accuracy"), float) and isinstance(second.get("disagree"), int):
        yield f"the strict judge says {100 * second['accuracy']:.1f}, and disagrees on {second['disagree']} samples"
    misread = known()[result.benchmark].misread if result.benchmark in known() else 0
    if misread:
        yield e_notation(misread, result.n or known()[result.benchmark].rows)
    if len(result.files) > 1:
        yield f"the same run in {len(result.files)} files, counted once: {', '.join(map(_safe, result.files))}"


def _cells(result: Result, above: Path) -> tuple[str, ...]:
    return (
        _safe(result.model),
        _safe(result.benchmark),
        "?" if result.score is None else f"{100 * result.score:.1f}",
        "-" if result.stderr is None or result.score is None else f"{100 * result.stderr:.1f}",
        "?" if result.n is None else str(result.n),
        "?" if result.k is None else str(result.k),
        _safe(result.metric),
        result.inputs,
        result.date,
        _safe(str(Path(result.files[0]).absolute().relative_to(above))),
    )


def _safe(text: str) -> str:
    """A stranger's text without control characters, which could rewrite the terminal, and of sane length."""
    return "".join(letter if letter.isprintable() else "?" for letter in shown(text))


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    seen: set[str] = set()
    for path in paths:
        folder = path.is_dir()
        found = sorted(path.rglob("results_*.json")) if folder else [path] if path.is_file() else []
        if not found:
            yield path, "no results_*.json in it" if folder else "no such file or folder"
        for file in found:
            place = os.path.realpath(file)  # which, unlike resolve(), stands a loop of links
            if place not in seen:
                seen.add(place)
                yield file, ""


def _read_file(file: Path) -> tuple[list[Result], list[str]]:
    """The scores in a file, and what in it is none."""
    try:
        tree = read_json(file)
    except UserError as error:
        reason = re.sub(r"^:(\d+):", r"line \1:", error.what.removeprefix(str(file)))
        return [], [reason.lstrip(": ")]
    if tree is None:
        return [], ["the file is empty"]
    scores = _below(tree, "results")
    if not scores:
        return [], ["no lighteval results: it has no `results`"]
    found: list[Result] = []
    faults: list[str] = []
    for task, metrics in scores.items():
        if len(found) + len(faults) >= MOST_SCORES:
            faults.append(f"it has more than {MOST_SCORES:,} scores ({len(scores):,} tasks); the others are left out")
            break
        if task == "all" or ":_average" in task:
            continue
        if not isinstance(metrics, dict):
            faults.append(f"{task}: no metrics in it")
            continue
        for metric, value in list(metrics.items())[: 2 * MOST_SCORES]:
            if metric.endswith("_stderr"):
                continue
            score = share(value)
            if score is None:
                faults.append(f"{task} {metric}: {shown(repr(value), 40)} is no proportion between 0 and 1")
                continue
            stderr = metrics.get(f"{metric}_stderr")
            found.append(_result(tree, task, metric, score, stderr=stderr, file=file))
    return found, faults if found or faults else ["no scores in it"]


def _result(tree: Tree, task: str, metric: str, score: float, *, stderr: Any, file: Path) -> Result:
    name = _task_name(task)
    hashes = {key: str(value) for key, value in _below(tree, "summary_tasks", task, "hashes").items() if value}
    hashes = {key: value for key, value in hashes.items() if value != NOTHING}
    benchmark = _benchmark(name, hashes)
    inputs, detail = _verify(benchmark, hashes)
    asked = benchmark if benchmark and _asks(benchmark, hashes) else None
    error = number(stderr)
    error = error if error is not None and error >= 0 else None
    k = samples_of(metric, _below(tree, "config_tasks", task))
    n, n_from = _problems(tree, task, asked, k)
    if n is None and (n := _detailed(file, task)):
        n_from = "the details beside it"
    if n is None and k == 1 and error and (n := _implied(score, error)):
        n_from = "score and stderr, which fit no other n"
    unknown = [what for what, value in (("the number of problems", n), ("samples a problem", k)) if value is None]
    return Result(
        model=_model(tree),
        benchmark=benchmark.name if benchmark else name,
        metric=metric,
        score=None if unknown else score,
        n=n,
        k=k,
        stderr=error,
        n_from=n_from,
        withheld=f"the file does not tell {' and '.join(unknown)}" if unknown else "",
        inputs=inputs,
        inputs_detail=detail,
        hash_cont_tokens=hashes.get("hash_cont_tokens"),
        date=_date(file),
        files=(str(file),),
        sampling=_sampling(tree),
        strict=_below(tree, "config_general", "openrs", "strict", name) or None,
    )


def _sampling(tree: Tree) -> dict[str, float]:
    """How lighteval drew, from 0.8 on: config_general.model_config.generation_parameters."""
    config = _below(tree, "config_general", "model_config")
    found = config.get("generation_parameters", _below(tree, "config_general").get("generation_parameters"))
    names = {"temperature": "temperature", "top_p": "top_p", "max_new_tokens": "max_tokens"}
    given = found if isinstance(found, dict) else {}
    return {ours: value for theirs, ours in names.items() if (value := number(given.get(theirs))) is not None}


def _below(tree: Any, *keys: str) -> dict[str, Any]:
    """The mapping under these keys, or an empty one. A task may lack its few-shot number (config_tasks of 0.6)."""
    for key in keys:
        tree = tree if isinstance(tree, dict) else {}
        tree = tree.get(key, tree.get(key.rpartition("|")[0] or key))
    return tree if isinstance(tree, dict) else {}


def _model(tree: Tree) -> str:
    general = _below(tree, "config_general")
    config = _below(general, "model_config")
    name = general.get("model_name") or config.get("model_name") or "(no model name)"
    revision = general.get("model_sha") or config.get("revision")
    return f"{name}@{str(revision)[:12]}" if revision and revision != "main" else str(name)


def _task_name(task: str) -> str:
    """`custom|aime24|0` (0.6 ... 0.11) and `aime24|0` (0.12, 0.13) both name aime24."""
    parts = task.split("|")
    return parts[1] if len(parts) > 2 else parts[0]


def _benchmark(name: str, hashes: Mapping[str, str]) -> Benchmark | None:
    every = known().values()
    named = next((benchmark for benchmark in every if name in (benchmark.name, *benchmark.aliases)), None)
    return named or next((benchmark for benchmark in every if _asks(benchmark, hashes)), None)


def _asks(benchmark: Benchmark, hashes: Mapping[str, str]) -> bool:
    """Whether these are the benchmark's proven questions in the paper's prompt: then n is known as well."""
    return benchmark.hashes is not None and hashes.get("hash_examples") == benchmark.hashes.hash_examples


def _verify(benchmark: Benchmark | None, hashes: Mapping[str, str]) -> tuple[str, str]:
    if benchmark is None:
        return "unknown benchmark", ""
    if benchmark.hashes is None:
        return "no hash", "the authors published none for this benchmark"
    expected = benchmark.hashes.model_dump()
    written = [key for key in expected if key in hashes]
    if not written:
        return "no hash", "the file has none"
    bos = recorded_digests()[benchmark.name]["input_tokens"].get(hashes.get("hash_input_tokens"))
    wrong = [key for key in written if hashes[key] != expected[key] and not (key == "hash_input_tokens" and bos)]
    said = ", ".join(wrong or written) + (f" ({bos})" if bos else "")
    return ("differs" if wrong else "verified"), said


def samples_of(metric: str, config: Tree) -> int | None:
    """Samples a problem behind a metric's name; None where it does not tell.

    0.13: `avg@n:n=4`, `pass@k:k=1&n=4`, `pass@k:k=1` (n = k); 0.11: `avg@k:k=4`; 0.7 ... 0.10: `math_pass@1:4_samples`,
    `math_avg@64`, `maj@8`. A metric without @ (extractive_match) scores one sample.
    """
    for pattern in (r"[:&]n=(\d+)", r":(\d+)_samples$", r":k=(\d+)$", r"(?:avg|maj)@(\d+)$"):
        match = re.search(pattern, metric)
        if match:
            return (int(match[1]) or None) if len(match[1]) < 8 else None
    asked = config.get("num_samples")
    if isinstance(asked, list) and len(asked) == 1 and (count := _count(asked[0])):
        return count
    return None if "@" in metric else 1


def _problems(tree: Tree, task: str, asked: Benchmark | None, k: int | None) -> tuple[int | None, str]:
    docs = _count(_below(tree, "config_tasks", task).get("effective_num_docs"))
    if docs:
        return docs, "the file"
    if asked:
        return asked.rows, "the verified input hashes"
    summary = _below(tree, "summary_tasks", task)
    prompts = _count(summary.get("non_truncated")) + _count(summary.get("truncated"))
    return (prompts, "the file") if prompts and k == 1 else (None, "")


def _detailed(file: Path, task: str) -> int | None:
    """Rows of the details that lighteval wrote with this file, one a problem.

    results/MODEL/results_DATE.json belongs to details/MODEL/DATE/details_TASK_DATE.parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    date = file.stem.removeprefix("results_")
    name = f"details_{task}_{date}.parquet".replace("/", "_")
    parts = file.absolute().parent.parts
    folders = [Path(*parts[:i], "details", *parts[i + 1 :], date) for i, part in enumerate(parts) if part == "results"]
    for place in (file.parent, *reversed(folders)):
        if (place / name).is_file():
            try:
                return int(pq.read_metadata(place / name).num_rows) or None
            except (pa.ArrowException, OSError):
                return None
    return None


def _count(value: Any) -> int:
    return count if (count := whole(value)) and count > 0 else 0


def _implied(score: float, stderr: float) -> int | None:
    """n from score and stderr: lighteval's stderr of a mean of 0/1 scores is sqrt(p (1 - p) / (n - 1))."""
    if not score * (1 - score) < MOST * stderr**2:  # more problems than there are
        return None
    exact = score * (1 - score) / stderr**2 + 1
    n = round(exact)
    fits = n > 1 and abs(exact - n) < 1e-3 and abs(score * n - round(score * n)) < 1e-6 * n
    return n if fits else None


def _date(file: Path) -> str:
    match = re.match(r"results_(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)", file.name)
    return f"{match[1]} {match[2]}:{match[3]}" if match else "-"


def _merged(results: Sequence[Result]) -> list[Result]:
    kept: dict[Any, Result] = {}
    for place, result in enumerate(results):
        run = result.hash_cont_tokens
        key = (result.model, result.benchmark, result.metric, run, result.score, result.n) if run else place
        kept[key] = replace(kept[key], files=kept[key].files + result.files) if key in kept else result
    return list(kept.values())
