"""Training problems: from files, folders and hub data sets of any shape that shapes.py knows, or the demo's sums."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrs.config.names import is_hub_name
from openrs.data import shapes
from openrs.data.problem import Problem
from openrs.data.rows import MISSING, Row, cell, column_names, data_files, file_rows, hub_rows
from openrs.errors import UserError
from openrs.run.files import sha256

if TYPE_CHECKING:
    from openrs.config.schema import Data

PAPER_SOURCES = ("knoveleng/open-s1", "knoveleng/open-deepscaler", "knoveleng/open-rs")
TOY_SUMS = "toy-sums"
# Column names that recipes inherit: where the data has none of that name, its shape is recognised instead.
INHERITED = ("problem", "answer", "solution")
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problems:
    """What was read, and what became of every row."""

    rows: list[Problem]
    read: int
    without_answer: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256, for the manifest."""
    notes: list[str] = field(default_factory=list)
    """What to tell the user: how the rows were read, and what is odd about them."""


def is_published(data: "Data") -> bool:
    """Whether it is the paper's own data, which is taken as the published code took it."""
    return data.source in PAPER_SOURCES


def load_problems(data: "Data", *, judged: bool = False) -> Problems:
    """Read the training problems that a recipe names.

    judged: whether a reward asks the judge; bare answers of data that is not the paper's then become mathematics.
    Raises UserError for a missing file, a missing column (listing those there are), an empty data set, values that are
    no texts (with their rows), rows without an answer (unless `data.missing_answer: drop`), and a hub that cannot be
    reached.
    """
    if data.source == TOY_SUMS:
        from openrs.data.arithmetic import train_problems

        rows = train_problems()[: data.limit]
        return Problems(rows, len(rows))
    files = None if is_hub_name(data.source) else data_files(Path(data.source), data.split)
    reader = _Reader(data, judged=judged)
    for place, row in _hub_rows(data) if files is None else chain.from_iterable(map(file_rows, files)):
        if data.limit is not None and reader.read >= data.limit:
            break
        reader.add(place, row)
    reader.refuse()
    return Problems(
        reader.problems, reader.read, reader.missing, {path.name: sha256(path) for path in files or []}, reader.notes()
    )


class _Reader:
    """Makes problems of rows, and counts what is odd about them."""

    def __init__(self, data: "Data", *, judged: bool) -> None:
        self._data = data
        self._published = is_published(data)
        self._wraps = judged and not self._published and data.answer_template == "{answer}"
        self._columns: tuple[Sequence[str], Sequence[str]] = (), ()
        self.problems: list[Problem] = []
        self.read = 0
        self.missing: list[str] = []
        self._faults: list[str] = []
        self._shapes: Counter[str] = Counter()
        self._bare: list[str] = []
        self._odd: list[str] = []
        self._several: list[str] = []

    def add(self, place: str, row: Row) -> None:
        data, index = self._data, str(self.read)
        if not self.read:
            problems = _names(row, data.problem_column, shapes.PROBLEM_COLUMNS, data.source)
            self._columns = problems, _names(row, data.answer_column, shapes.ANSWER_COLUMNS, data.source)
        self.read += 1
        problems, answers = self._columns
        problem_name, asked = shapes.pick(row, problems)
        answer_name, reference = shapes.pick(row, answers)
        if (problem_name == "" and len(problems) == 1) or (answer_name == "" and len(answers) == 1):
            raise _no_column(data.source, problems[0] if problem_name == "" else answers[0], row)
        chat = shapes.turns(asked) if not self._published else None
        empty = len(answers) > 1 and (reference is MISSING or reference in (None, ""))
        if empty and (own := shapes.own_answer(asked)) is not None:
            answer_name, reference = shapes.OWN_TURN, own
        problem, answer = self._texts(place, asked, reference)
        if not problem.strip() or not answer.strip():
            self.missing.append(index)
            return
        if self._wraps and (mathematics := shapes.as_mathematics(answer)) != answer:
            self._bare.append(answer)
            answer = mathematics
        if chat and sum(role in ("user", "human") for role, _ in chat) > 1:
            self._several.append(index)
        if not self._published:
            self._shapes[f"{shapes.shape_of(row, problem_name, answer_name)}, answer from {answer_name}"] += 1
        system = shapes.system_text(asked) if data.keep_system else None
        problem = problem.removesuffix(data.strip_suffix)
        self.problems.append(Problem(index, problem, data.answer_template.replace("{answer}", answer), system))

    def _texts(self, place: str, asked: Any, reference: Any) -> tuple[str, str]:
        if self._published:
            return _as_published(asked), _as_published(reference)
        problem, fault = shapes.question_text(asked)
        if fault.startswith("a control character"):  # costs a word of the problem, and changes no reward
            self._odd.append(str(self.read - 1))
            fault = ""
        answer, wrong = shapes.answer_text(reference)
        if fault or wrong:
            self._faults.append(f"{place}: {fault or wrong}")
        return problem, answer

    def refuse(self) -> None:
        """Raises UserError for rows that no problem could be made of."""
        source, read = self._data.source, self.read
        if self._faults:
            more = f"\n    and {len(self._faults) - EXAMPLES} more" if len(self._faults) > EXAMPLES else ""
            listed = "".join(f"\n    {fault}" for fault in self._faults[:EXAMPLES])
            raise UserError(
                f"{source}: {len(self._faults)} of {read} rows cannot be used:{listed}{more}",
                "a problem is a text or a chat, a reference answer a text or a number",
                "fix these rows; openrs curate takes such rows out, with their reasons",
            )
        if self.missing and self._data.missing_answer == "refuse":
            raise UserError(
                f"{source}: {len(self.missing)} of {read} rows have no problem or answer: row {shown(self.missing)}"
                " (counted from 0)",
                "a reward cannot be computed without a reference answer",
                "fix the rows, or set data.missing_answer: drop",
            )
        if not self.problems:
            raise UserError(
                f"{source} has no problems in it", fix="give a file with at least one row that has an answer"
            )

    def notes(self) -> list[str]:
        notes = [shapes.read_as(self._shapes)] if self._shapes else []
        if self._bare:
            notes.append(
                f"{len(self._bare):,} bare answers are read as mathematics: {self._bare[0]} as ${self._bare[0]}$"
                " (data.answer_template sets another form)"
            )
        if self._several:
            notes.append(
                f"{len(self._several):,} chats have several user turns; the last is asked: row {shown(self._several)}"
            )
        if self._odd:
            notes.append(f"{len(self._odd):,} problems hold control characters: row {shown(self._odd)}")
        return notes


def _names(row: Row, asked: str, known: Sequence[str], source: str) -> Sequence[str]:
    """The columns to look into, by the first row: the one that the recipe names, or those of all known shapes where it
    names none of its own. Raises UserError, listing the columns, where none of them is there."""
    if cell(row, asked) is not MISSING:
        return (asked,)
    own = shapes.own_answer(shapes.pick(row, shapes.PROBLEM_COLUMNS)[1])
    has_answer = known is shapes.ANSWER_COLUMNS and own is not None
    if asked in INHERITED and source not in PAPER_SOURCES and (shapes.pick(row, known)[0] or has_answer):
        return known
    raise _no_column(source, asked, row)


def _no_column(source: str, name: str, row: Row) -> UserError:
    return UserError(
        f"{source} has no column {name}",
        f"the columns there are: {', '.join(column_names(row))}",
        "name the right ones: data.problem_column and data.answer_column in a recipe, --problem and --answer for"
        " openrs recipe new and data show (dots go into nested columns)",
    )


def _as_published(value: Any) -> str:
    """A cell of the paper's data. A whole number stored as a float reads as the number: 27.0 is the answer 27."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def shown(rows: Sequence[str]) -> str:
    return ", ".join(rows[:EXAMPLES]) + (" ..." if len(rows) > EXAMPLES else "")


def _hub_rows(data: "Data") -> Iterator[tuple[str, Row]]:
    fix = "check the name and the network, openrs fetch it beforehand, or give a local file in data.source"
    rows = hub_rows(data.source, data.revision, data.subset, data.split, fix)
    return ((f"{data.source}: row {index}", row) for index, row in enumerate(rows))
