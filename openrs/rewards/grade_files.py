"""`openrs grade`: the judge asked about a file of answers."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.rewards.grading import Grade, Item, Judge, Rule, Verdict, printable
from openrs.run.files import json_lines


def read_items(path: Path, rule: str) -> Iterator[tuple[int, Item]]:
    """The items of a JSONL file with the fields gold, completion and, where a line wants its own, rule; with their line
    numbers.

    Raises:
        UserError: no such file, or a line that is no such object; it names the line.
    """
    fix = 'a JSONL file: a line is like {"gold": "$4$", "completion": "..."}'
    try:
        for line in json_lines(path):
            fields = {"rule": rule, **(line.row or {})}
            if fault := line.fault or _fault(fields):
                raise UserError(f"{path}, line {line.number}: {fault}", fix=fix)
            yield line.number, Item(fields["gold"], fields["completion"], Rule(fields["rule"]))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix=fix) from None


def _fault(fields: dict[str, Any]) -> str:
    """What is wrong with a line, or nothing."""
    for name in ("gold", "completion", "rule"):
        if name not in fields:
            return f"the field {name} is missing"
        if not isinstance(fields[name], str):
            return f"the field {name} must be a string"
    return "" if fields["rule"] in list(Rule) else f"unknown rule {fields['rule']!r}; there are {', '.join(Rule)}"


def grade_file(path: Path, judge: Judge, rule: str, write: Callable[[str], None]) -> None:
    """Judge a JSONL file (see read_items) and write one line each: line number, verdict, seconds, gold and answer as
    extracted; then a summary. Raises UserError as read_items does, after the lines before the bad one are written."""
    counts: Counter[Verdict] = Counter()
    for number, (grade,) in _graded(path, judge, rule, ()):
        counts[grade.verdict] += 1
        write(f"{number:>6}  {grade.verdict:<16}  {grade.seconds:7.3f} s  {_extracted(grade)}")
    write(_summary(counts, ""))


def compare_file(path: Path, judge: Judge, rule: str, write: Callable[[str], None]) -> None:
    """The same with a second verdict on each line, of the corrected judge, and a mark where only one is right."""
    first: Counter[Verdict] = Counter()
    second: Counter[Verdict] = Counter()
    differ: list[int] = []
    for number, (grade, strict) in _graded(path, judge, rule, (Rule.CORRECTED,)):
        first[grade.verdict] += 1
        second[strict.verdict] += 1
        other = (grade.verdict == Verdict.CORRECT) != (strict.verdict == Verdict.CORRECT)
        if other:
            differ.append(number)
        mark = "differ" if other else ""
        write(f"{number:>6}  {grade.verdict:<16}  {strict.verdict:<16}  {mark:<6}  {_extracted(strict)}")
    write(_summary(first, f"{rule}: "))
    write(_summary(second, "corrected: "))
    lines = ", ".join(map(str, differ[:20])) + (", ..." if len(differ) > 20 else "")
    write(f"{len(differ)} differ" + (f": lines {lines}" if differ else ""))


def _graded(path: Path, judge: Judge, rule: str, more: tuple[Rule, ...]) -> Iterator[tuple[int, list[Grade]]]:
    """Line numbers with the grades of the line's own rule and of `more`, a few lines at once, so that they come while
    slow ones are judged."""
    if rule not in list(Rule):
        raise UserError(f"unknown rule {rule!r}", fix=f"use one of {', '.join(Rule)}")
    batch: list[tuple[int, Item]] = []

    def grades() -> Iterator[tuple[int, list[Grade]]]:
        items = [(item, *(Item(item.gold, item.completion, other) for other in more)) for _, item in batch]
        found = iter(judge.grade([item for some in items for item in some]))
        for (number, _), some in zip(batch, items, strict=True):
            yield number, [next(found) for _ in some]
        batch.clear()

    try:
        for entry in read_items(path, rule):
            batch.append(entry)
            if len(batch) == 4 * judge.workers:
                yield from grades()
    except UserError:
        yield from grades()
        raise
    yield from grades()


def _extracted(grade: Grade) -> str:
    return f"gold: {printable(grade.gold) or '-'}   answer: {printable(grade.answer) or '-'}"


def _summary(counts: Counter[Verdict], before: str) -> str:
    each = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return f"{before}{counts.total()} judged: {each}" if each else "the file is empty"
