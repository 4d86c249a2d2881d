"""The judge asked about reference answers alone: can it read them, and is an answer that repeats them right?

A reference answer that fails here pays nothing to a right answer in training, or (published rewards) pays everybody.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from openrs.curation.rows import Out, Row
from openrs.curation.settings import Verify
from openrs.rewards.grading import Grade, Item, Judge, Rule, Verdict

TEXT = "(not read as mathematics)"  # how the judge marks a reference answer that it compares letter by letter
REMEMBERED = 300_000  # verdicts; answers repeat themselves (11,921 different ones in 40,315 rows)
_WHY = {
    Verdict.UNPARSEABLE_GOLD: "the reference answer cannot be read",
    Verdict.INCORRECT: "the reference answer does not verify against itself",
    Verdict.NO_ANSWER: "the reference answer does not verify against itself",
    Verdict.TIMEOUT: "the judge timed out on the reference answer",
    Verdict.CRASH: "the judge crashed on the reference answer",
}


def reference_answer(row: Row) -> str:
    """The text that training reads the reference answer from: the solution, or the answer between dollars."""
    return row.solution if row.solution is not None else f"${row.answer}$"


class ReferenceJudge:
    """Asks a judge of so many workers once for each reference answer. Leaving the context ends the workers."""

    def __init__(self, settings: Verify, workers: int) -> None:
        self._rule, self._fix = Rule(settings.rule), settings.fix
        self._judge = Judge(workers, settings.timeout_seconds)
        self._slow = Judge(1, 6 * settings.timeout_seconds)
        self._text_counts = settings.text == "drop"
        self._known: dict[tuple[str, str], Verdict | None] = {}  # None: correct, but compared as text only

    def check(self, rows: Sequence[Row]) -> list[Row | Out]:
        """Row by row: the row (its answer mended where that was needed), or why it goes."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        first = self._rows(rows)
        results: list[Row | Out] = []
        failed = [row for row, verdict in zip(rows, first, strict=True) if verdict != Verdict.CORRECT]
        better = [replace(row, answer=normalized(row.answer)) for row in failed] if self._fix else failed
        second = zip(better, self._rows(better), strict=True)
        for row, verdict in zip(rows, first, strict=True):
            if verdict == Verdict.CORRECT:
                results.append(row)
                continue
            other, again = next(second)
            if again == Verdict.CORRECT:
                results.append(other)
            elif verdict is None:
                results.append(Out("the reference answer is read as text only", row.answer[:150]))
            else:
                results.append(Out(_WHY[verdict], f"{row.answer[:150]} ({verdict.replace('_', ' ')})"))
        return results

    def same(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether two answers are one, for each pair, either way round."""
        both = self._verdicts([(f"${a}$", b) for a, b in pairs] + [(f"${b}$", a) for a, b in pairs])
        right = [verdict in (Verdict.CORRECT, None) for verdict in both]
        return [a or b for a, b in zip(right[: len(pairs)], right[len(pairs) :], strict=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._judge.close()
        self._slow.close()

    def _rows(self, rows: Sequence[Row]) -> list[Verdict | None]:
        return self._verdicts([(reference_answer(row), row.answer) for row in rows])

    def _verdicts(self, asked: Sequence[tuple[str, str]]) -> list[Verdict | None]:
        new = [one for one in dict.fromkeys(asked) if one not in self._known]
        for one, grade in zip(new, self._grade(self._judge, new), strict=True):
            self._known[one] = self._verdict(grade)
        # A machine under load must not decide what is in a dataset: what timed out is asked again, with time.
        slow = [one for one in new if self._known[one] == Verdict.TIMEOUT]
        for one, grade in zip(slow, self._grade(self._slow, slow), strict=True):
            self._known[one] = self._verdict(grade)
        return [self._known[one] for one in asked]

    def _verdict(self, grade: Grade) -> Verdict | None:
        as_text = self._text_counts and grade.verdict == Verdict.CORRECT and grade.gold.endswith(TEXT)
        return None if as_text else grade.verdict

    def _grade(self, judge: Judge, asked: Sequence[tuple[str, str]]) -> list[Grade]:
        return judge.grade([Item(reference, rf"\boxed{{{answer}}}", self._rule) for reference, answer in asked])


def normalized(answer: str) -> str:
    """LaTeX as a model writes it: braces where TeX needs none, no dollars or brackets around, no full stop.

    >>> normalized(r"\\frac12"), normalized(r"$3+\\sqrt3$."), normalized(r"\\[ 52 \\]")
    ('\\\\frac{1}{2}', '3+\\\\sqrt{3}', '52')
    """
    text = answer.strip().rstrip(".").strip()
    for start, end in (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)")):
        if len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end):
            text = text[len(start) : -len(end)].strip().rstrip(".").strip()
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    one = r"\s*(\d|[a-zA-Z]|\\[a-zA-Z]+\b|\{(?:[^{}]|\{[^{}]*\})*\})"
    text = re.sub(r"\\frac" + one + one, lambda m: rf"\frac{_braced(m[1])}{_braced(m[2])}", text)
    text = re.sub(r"\\sqrt\s*(\d|[a-zA-Z])", r"\\sqrt{\1}", text)
    return re.sub(r"\\frac" + one + one, lambda m: rf"\frac{_braced(m[1])}{_braced(m[2])}", text)


def _braced(text: str) -> str:
    return text if text.startswith("{") else f"{{{text}}}"
