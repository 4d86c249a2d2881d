"""`openrs data show`: what one wants to see of a dataset before training on it. Nothing is changed and nothing removed.

Every row is looked at for lengths, levels, copies and benchmark questions; reference answers are judged on a sample,
because that takes milliseconds each.
"""

import heapq
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.curation import decontaminate, duplicates, sources
from openrs.curation.draw import place
from openrs.curation.pool import Pool
from openrs.curation.references import ReferenceJudge, reference_answer
from openrs.curation.rows import PART_ROWS, Out, Row, read_rows, write_rows
from openrs.curation.settings import Curation, Decontaminate, Duplicates, Source, Verify, open_benchmarks
from openrs.errors import UserError
from openrs.rewards.kinds import KINDS, reference_kinds
from openrs.run.progress import Progress

SHOWN_ROWS, SHOWN_TEXT = 5, 1200
EACH = 3  # examples of a kind of finding


@dataclass(slots=True)
class Finding:
    """So many rows of a kind, and some of them: (place, problem, detail)."""

    count: int = 0
    examples: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, place_: str, problem: str, detail: str) -> None:
        self.count += 1
        if len(self.examples) < EACH:
            self.examples.append((place_, problem, detail))


@dataclass(slots=True)
class Shown:
    """Everything that is said of a dataset. Histograms are (label, rows); findings are by kind and reason."""

    path: str
    read_as: str = ""
    rows: int = 0
    readable: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of reference answers that judges misread (openrs.rewards.kinds)."""
    lengths: list[tuple[str, int]] = field(default_factory=list)
    length_quantiles: dict[str, int] = field(default_factory=dict)
    rates: list[tuple[str, int]] = field(default_factory=list)
    unique: int = 0
    facts: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, Finding] = field(default_factory=dict)
    copies: dict[str, Finding] = field(default_factory=dict)
    references: dict[str, Finding] = field(default_factory=dict)
    judged: int = 0
    overlap: dict[str, Finding] = field(default_factory=dict)
    benchmarks: list[str] = field(default_factory=list)
    unchecked: str = ""
    examples: list[Row] = field(default_factory=list)


def look(
    source: Source,
    *,
    benchmarks: Sequence[str] | None,
    data: str | None,
    references: int,
    workers: int,
    progress: Progress,
) -> Shown:
    """Look through a dataset. references: how many different rows the judge is asked about, chosen by digest.

    Raises UserError for a dataset that cannot be read at all. Benchmarks that cannot be loaded are said in `unchecked`.
    """
    shown = Shown(str(source.path))
    with tempfile.TemporaryDirectory(prefix="openrs-show-") as scratch, Pool(workers) as pool:
        folder = Path(scratch)
        parts = _read(source, folder, shown)
        progress.say(f"{shown.rows:,} rows read, looking for copies")
        if shown.readable:
            _copies(parts, folder, shown, pool)
            settings = Decontaminate(benchmarks=list(benchmarks or open_benchmarks()), data=data)
            _overlap(parts, folder, shown, settings, pool=pool, progress=progress)
            _references(parts, shown, references, workers, progress)
    return shown


def _read(source: Source, folder: Path, shown: Shown) -> list[Path]:
    reader = sources.Reader(Curation(title="show", sources={"data": source}))
    parts: list[Path] = []
    rows: list[Row] = []
    characters: list[int] = []
    drawn: list[tuple[int, Row]] = []

    def put() -> None:
        parts.append(folder / f"part-{len(parts):05d}.parquet")
        write_rows(parts[-1], rows)
        rows.clear()

    for read in reader.rows():
        shown.rows += 1
        row = read.row
        if read.reason:
            shown.unreadable.setdefault(read.reason, Finding()).add(row.place, row.problem, read.detail)
            continue
        shown.readable += 1
        shown.levels[row.level or "-"] += 1
        shown.answers[kind_of(row.answer)] += 1
        shown.kinds.update(reference_kinds(reference_answer(row)))
        characters.append(len(row.problem))
        drawn = sorted([*drawn, (place(0, row), row)], key=lambda one: one[0])[:SHOWN_ROWS]
        rows.append(row)
        if len(rows) == PART_ROWS:
            put()
    if rows:
        put()
    shown.read_as = ", ".join(reader.read_as()).removeprefix("data: ")
    shown.examples = [row for _, row in drawn]
    shown.lengths = bins(characters, 24)
    ordered = sorted(characters)
    if ordered:
        shares = {"shortest": 0.0, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}
        shown.length_quantiles = {name: ordered[round(share * (len(ordered) - 1))] for name, share in shares.items()}
    _columns(source, shown)
    return parts


def _columns(source: Source, shown: Shown) -> None:
    """Pass rates and sources, where the data has such columns (as openrs curate writes them)."""
    rates: Counter[int] = Counter()
    for raw in sources.raw_rows(source, ["pass_rate", "source"]):
        rate, origin = raw.get("pass_rate"), raw.get("source")
        if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1:
            rates[min(9, int(rate * 10))] += 1
        if isinstance(origin, str):
            shown.sources[origin[:60]] += 1
    if rates:
        shown.rates = [(f"{tenth / 10:.1f}", rates[tenth]) for tenth in range(10)]


def kind_of(answer: str) -> str:
    """What an answer looks like: for a person, nothing is decided by it."""
    bare = answer.strip().strip("$").replace(",", "").removeprefix("-").strip()
    if not bare:
        return "none"
    if bare.isdigit():
        return "whole number"
    if bare.replace(".", "", 1).isdigit():
        return "decimal"
    if bare.startswith((r"\frac", r"\dfrac", r"\tfrac")) or (bare.count("/") == 1 and bare.replace("/", "").isdigit()):
        return "fraction"
    if len(bare) == 1 and bare in "ABCDE":
        return "letter"
    return "expression" if any(c in bare for c in "\\^_=+*()") else "words or other"


def bins(values: Sequence[int], most: int) -> list[tuple[str, int]]:
    """Equal steps from the least value up to the 99th percentile, and one bin for what is above."""
    if not values:
        return []
    ordered = sorted(values)
    top = max(1, ordered[round(0.99 * (len(ordered) - 1))])
    step = max(1, -(-top // most))
    counts = Counter(min(value // step, most) for value in values)
    first, last = min(counts), max(counts)
    return [(f"{index * step:,}" + ("+" if index == most else ""), counts[index]) for index in range(first, last + 1)]


def _copies(parts: Sequence[Path], folder: Path, shown: Shown, pool: Pool) -> None:
    settings = Duplicates(conflicts="drop")
    keys = [folder / f"keys-{index:05d}" for index in range(len(parts))]
    tasks = [(part, settings, key) for part, key in zip(parts, keys, strict=True)]
    for _ in pool.each(duplicates.write_keys_of, tasks):
        pass
    with ReferenceJudge(Verify(), pool.workers) as asked:
        found = duplicates.find(parts, keys, settings, asked.same)
    shown.unique, shown.facts = found.facts["texts"], found.facts
    for part in parts:
        for row in read_rows(part):
            if (out := found.gone.get(row.number)) is not None:
                detail = " · ".join(text for text in (out.detail, f"like {out.other}") if text)
                shown.copies.setdefault(out.reason, Finding()).add(row.place, row.problem, detail)


def _overlap(
    parts: Sequence[Path], folder: Path, shown: Shown, settings: Decontaminate, *, pool: Pool, progress: Progress
) -> None:
    try:
        questions = decontaminate.gather(settings, folder)
    except UserError as error:
        shown.unchecked = error.what
        return
    progress.say(f"comparing with {', '.join(settings.benchmarks)}")
    shown.benchmarks = settings.benchmarks
    found = pool.each(_outs, [(part, settings, questions) for part in parts])
    for row, out in sorted((pair for pairs in found for pair in pairs), key=lambda pair: pair[0].number):
        shown.overlap.setdefault(out.reason, Finding()).add(row.place, row.problem, f"{out.detail}: {out.other}")


def _outs(part: Path, settings: Decontaminate, questions: Path) -> list[tuple[Row, Out]]:
    check = decontaminate.decontaminate(settings, questions)
    checked = [(row, check(row)) for row in read_rows(part)]
    return [(row, out) for row, out in checked if isinstance(out, Out)]


def _references(parts: Sequence[Path], shown: Shown, wanted: int, workers: int, progress: Progress) -> None:
    if wanted == 0:
        return
    every = ((place(0, row), row) for part in parts for row in read_rows(part))
    rows = [row for _, row in heapq.nsmallest(wanted, every, key=lambda one: one[0])]
    progress.say(f"judging {len(rows):,} reference answers")
    with ReferenceJudge(Verify(fix=False), workers) as asked:
        for row, out in zip(rows, asked.check(rows), strict=True):
            if isinstance(out, Out):
                shown.references.setdefault(out.reason, Finding()).add(row.place, row.problem, out.detail)
    shown.judged = len(rows)


def as_json(shown: Shown) -> dict[str, Any]:
    def counts(findings: dict[str, Finding]) -> dict[str, int]:
        return {reason: finding.count for reason, finding in findings.items()}

    return {
        "path": shown.path, "read_as": shown.read_as,
        "rows": shown.rows, "readable": shown.readable, "unique_prompts": shown.unique,
        "unreadable": counts(shown.unreadable), "levels": dict(shown.levels), "sources": dict(shown.sources),
        "answers": dict(shown.answers), "reference_kinds": {kind: shown.kinds[kind] for kind in KINDS},
        "characters": shown.length_quantiles, "pass_rates": dict(shown.rates),
        "copies": counts(shown.copies), "facts": shown.facts,
        "references": {"judged": shown.judged, "bad": counts(shown.references)},
        "benchmarks": {"compared": shown.benchmarks, "found": counts(shown.overlap), "unchecked": shown.unchecked},
        "examples": [{"place": r.place, "problem": r.problem, "reference": reference_answer(r)}
                     for r in shown.examples],
    }  # fmt: skip
