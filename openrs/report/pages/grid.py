"""What can be looked at one by one: the grid of problems, and completions within a budget.

The grid: how often each problem is solved, by the base and by the final checkpoint, every answer to hover.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Cell, Text, cells_of, share_solved

ROWS = 60  # problems up to which every sample gets a cell of its own, in a row for each problem
SAMPLES = 64  # samples of a problem that are shown
PROBLEMS = 2000  # problems shown, one cell each, where there are more than ROWS
TEXTS = 120  # completions on the page
BYTES = 1_600_000  # of UTF-8, all texts together

# Letters are CSS classes. y: correct, n: incorrect, x: cut off at the cap, o: no verdict (no answer, timeout ...)
WORDS = {"y": "correct", "n": "incorrect", "x": "cut off", "o": "no answer or no verdict"}
CHANGES = {"y": "solved by both", "g": "gained", "l": "lost", "n": "solved by neither"}
SHARES = {"s0": "never", "s1": "seldom", "s2": "half", "s3": "mostly", "s4": "always"}


@dataclass(frozen=True, slots=True)
class Strip:
    """The samples of one problem by one model. cells: letters; data: answer, verdict, tokens of each, to hover."""

    label: str
    cells: tuple[str, ...]
    data: tuple[tuple[str, str, int], ...]
    right: int
    k: int


@dataclass(frozen=True, slots=True)
class Field:
    """One cell a problem. data: the problem, then what each model answered, to hover."""

    label: str
    cells: tuple[str, ...]
    data: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """One benchmark: rows of strips (problem, strips), or fields. legend: letter -> word."""

    title: str
    rows: tuple[tuple[str, tuple[Strip, ...]], ...]
    fields: tuple[Field, ...]
    legend: Mapping[str, str]
    note: str


def grids(run: RunData) -> list[Grid]:
    """A grid for each benchmark of the run's base and final checkpoint, or of its only evaluations (two at most)."""
    shown = [one for one in (run.base, run.final) if one is not None] or run.evaluations[:2]
    names = dict.fromkeys(name for one in shown for name in [*one.scores, *one.cells])
    found = [_grid(name, {one.label: table for one in shown if (table := cells_of(one, name))}) for name in names]
    return [grid for grid in found if grid is not None]


def _grid(benchmark: str, tables: Mapping[str, Mapping[str, Sequence[Cell]]]) -> Grid | None:
    problems = list(dict.fromkeys(problem for table in tables.values() for problem in table))
    if not problems:
        return None
    k = max(len(cells) for table in tables.values() for cells in table.values())
    solved = {p: sum(share_solved(table.get(p, ())) for table in tables.values()) for p in problems}
    ordered = sorted(problems, key=lambda p: -solved[p])[:PROBLEMS]
    notes = (
        [f"{PROBLEMS:,} of {len(problems):,} problems shown, the most solved first"] if len(problems) > PROBLEMS else []
    )
    title = f"{reference.name(benchmark)}: {len(problems)} problems, {k} sample{'s' if k > 1 else ''} each"
    if k > 1 and len(problems) <= ROWS:
        notes += [f"the first {SAMPLES} of {k} samples shown"] if k > SAMPLES else []
        rows = tuple(
            (p, tuple(_strip(label, table[p]) for label, table in tables.items() if p in table)) for p in ordered
        )
        return Grid(title, rows, (), WORDS, "; ".join(notes))
    if k == 1 and len(tables) == 2:
        return Grid(title, (), (_changes(tables, ordered),), CHANGES, "; ".join(notes))
    fields = tuple(_field(label, table, ordered, k) for label, table in tables.items())
    return Grid(title, (), fields, SHARES if k > 1 else WORDS, "; ".join(notes))


def _letter(cell: Cell) -> str:
    if cell.verdict == "correct":
        return "y"
    if cell.cut:
        return "x"
    return "n" if cell.verdict == "incorrect" else "o"


def _strip(label: str, cells: Sequence[Cell]) -> Strip:
    shown = cells[:SAMPLES]
    return Strip(
        label=label,
        cells=tuple(_letter(cell) for cell in shown),
        data=tuple((cell.answer, cell.verdict, cell.tokens) for cell in shown),
        right=sum(cell.verdict == "correct" for cell in cells),
        k=len(cells),
    )


def _changes(tables: Mapping[str, Mapping[str, Sequence[Cell]]], problems: Sequence[str]) -> Field:
    """Base against final, one sample each: what was gained and what was lost."""
    (first, before), (second, after) = tables.items()
    states = {(True, True): "y", (False, True): "g", (True, False): "l", (False, False): "n"}
    found = []
    for problem in problems:
        state = states[share_solved(before.get(problem, ())) > 0, share_solved(after.get(problem, ())) > 0]
        said = tuple(_said(label, table.get(problem, ())) for label, table in tables.items())
        found.append((state, (problem, said)))
    found.sort(key=lambda entry: "glyn".index(entry[0]))
    return Field(f"{first} against {second}", tuple(f[0] for f in found), tuple(f[1] for f in found))


def _field(label: str, table: Mapping[str, Sequence[Cell]], problems: Sequence[str], k: int) -> Field:
    here = [problem for problem in problems if table.get(problem)]
    letters = [f"s{round(4 * share_solved(table[p]))}" if k > 1 else _letter(table[p][0]) for p in here]
    return Field(label, tuple(letters), tuple((p, (_said(label, table[p]),)) for p in here))


def _said(label: str, cells: Sequence[Cell]) -> str:
    if not cells:
        return f"{label}: not sampled"
    if len(cells) > 1:
        return f"{label}: {sum(cell.verdict == 'correct' for cell in cells)} of {len(cells)} correct"
    cell = cells[0]
    answered = f", answer {cell.answer}" if cell.answer else ""
    return f"{label}: {cell.verdict}{answered}{f', {cell.tokens:,} tokens' if cell.tokens else ''}"


def tally(strip: Strip) -> str:
    """The most frequent answers of a strip: `204 x 12, 96 x 3`."""
    counts: dict[str, int] = {}
    for answer, _, _ in strip.data:
        counts[answer or "none"] = counts.get(answer or "none", 0) + 1
    top: list[Any] = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
    more = f", {len(counts) - 3} others" if len(counts) > 3 else ""
    return ", ".join(f"{answer} x {count}" for answer, count in top) + more


# --- completions ------------------------------------------------------------------------------------------------------


def completions(run: RunData) -> tuple[list[Text], str]:
    """Of the training, then of the base and the final checkpoint, then of the other evaluations; what they are of."""
    first = [one for one in (run.base, run.final) if one is not None]
    rest = [one for one in run.evaluations if one not in first]
    every = [*run.texts, *(text for one in [*first, *rest] for text in one.texts)]
    kept, used = [], 0
    for text in every[:TEXTS]:
        used += len((text.completion + text.prompt).encode())
        if used > BYTES:
            break
        kept.append(text)
    samples = sum(one.samples for one in run.evaluations)
    note = f"{len(kept)} completions, drawn at random"
    return kept, note + (f" from {samples:,} evaluation samples and the steps that were saved" if samples else "")
