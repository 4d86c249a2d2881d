"""Problems that training changed: won and lost between the base and the final checkpoint, with an answer of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openrs.report.evidence.evaluations import Cell, Evaluated, Text, cell_of, text_of
from openrs.report.evidence.values import jsonl_rows, text

SHOWN = 6  # problems won, and as many lost, of each benchmark: those that changed most
MOST = 60  # problems of all benchmarks together
LONGEST = 6_000  # characters of an answer shown


@dataclass(frozen=True, slots=True)
class Change:
    """A problem solved more often (won) or less often (lost) after training.

    before, after: shares of right samples. k: samples of each. texts: one completion of each that shows the change, a
    wrong one beside a right one; None where samples.jsonl does not have it.
    """

    benchmark: str
    problem: str
    before: float
    after: float
    k: tuple[int, int]
    texts: tuple[Text | None, Text | None] = (None, None)

    @property
    def won(self) -> bool:
        return self.after > self.before


def changes(base: Evaluated | None, final: Evaluated | None, folder: Path) -> list[Change]:
    """The largest changes, benchmark by benchmark, lost before won. folder: the run's eval/."""
    if base is None or final is None:
        return []
    names = [name for name in dict.fromkeys([*base.scores, *base.cells]) if name in {*final.scores, *final.cells}]
    largest = [c for name in names for c in _largest(name, cells_of(base, name), cells_of(final, name))][:MOST]
    olds = _texts(folder / base.name, {(c.benchmark, c.problem): not c.won for c in largest})
    news = _texts(folder / final.name, {(c.benchmark, c.problem): c.won for c in largest})
    keys = [(change.benchmark, change.problem) for change in largest]
    return [replace(change, texts=(olds.get(key), news.get(key))) for change, key in zip(largest, keys, strict=True)]


def cells_of(evaluated: Evaluated, benchmark: str) -> Mapping[str, Sequence[Cell]]:
    """Cells by problem: of samples.jsonl, else of the verdicts in scores.json (then without answers)."""
    if evaluated.cells.get(benchmark):
        return evaluated.cells[benchmark]
    score = evaluated.scores.get(benchmark)
    rows = score.per_problem if score else {}
    return {
        p: [Cell("correct" if mark else "incorrect", "", 0, cut=False) for mark in marks] for p, marks in rows.items()
    }


def share_solved(cells: Sequence[Cell]) -> float:
    return sum(cell.verdict == "correct" for cell in cells) / len(cells) if cells else 0.0


def _largest(name: str, before: Mapping[str, Sequence[Cell]], after: Mapping[str, Sequence[Cell]]) -> list[Change]:
    every = [
        Change(name, p, share_solved(before[p]), share_solved(after[p]), (len(before[p]), len(after[p])))
        for p in before
        if p in after
    ]
    moved = sorted((c for c in every if c.after != c.before), key=lambda c: -abs(c.after - c.before))
    return [*[c for c in moved if not c.won][:SHOWN], *[c for c in moved if c.won][:SHOWN]]


def _texts(folder: Path, wanted: Mapping[tuple[str, str], bool]) -> dict[tuple[str, str], Text]:
    """The first sample of each problem that is right, or wrong, as wanted; else its first sample."""
    kept: dict[tuple[str, str], Text] = {}
    for row in jsonl_rows(folder / "samples.jsonl", []) if wanted else ():
        key = (text(row.get("benchmark"), 60), text(row.get("problem"), 120))
        if key not in wanted:
            continue
        cell = cell_of(row)
        fits = (cell.verdict == "correct") == wanted[key]
        if key not in kept or (fits and (kept[key].verdict == "correct") != wanted[key]):
            kept[key] = text_of(folder.name, row, cell, LONGEST)
    return kept
