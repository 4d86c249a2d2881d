"""The two verdicts on a sample: lighteval's, which is the score, and the strict judge's, which is a second opinion.

`verdict` and `answer` are lighteval's, by the benchmark's rule, defects included: only so is a score comparable with
anybody's. `strict` is the corrected judge's (docs/judging.md). Nothing but `verdict` ever enters the accuracy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.rewards.extraction import as_continued
from openrs.rewards.grading import Grade, Item, Judge, Rule

OPENED = "<think>\n"  # how a prompt ends that has begun the thought
Texts = Sequence[tuple[str, str, str]]
"""Benchmark, problem and completion."""


class Referee:
    """Asks the judge both questions. thinking: whether the prompts end in the beginning of a thought; a completion
    that does not end it has no answer for the strict judge."""

    def __init__(
        self,
        judge: Judge,
        benchmarks: Sequence[Benchmark],
        problems: Mapping[str, Sequence[EvalProblem]],
        thinking: bool,
    ) -> None:
        self._judge, self._thinking = judge, thinking
        self._rules = {one.name: Rule(one.rule) for one in benchmarks}
        self._golds = {(name, one.id): one.gold for name, rows in problems.items() for one in rows}

    def knows(self, benchmark: str, problem: str) -> bool:
        return (benchmark, problem) in self._golds and benchmark in self._rules

    def judge(self, texts: Texts) -> list[dict[str, str]]:
        """For each text what its line in samples.jsonl says of it: verdict, answer, strict, strict_answer."""
        usual = [self._item(text, self._rules[text[0]]) for text in texts]
        strict = [self._item(text, Rule.CORRECTED) for text in texts]
        found = self._grades([*usual, *strict])
        return [
            {
                "verdict": str(found[ours].verdict),
                "answer": found[ours].answer,
                "strict": str(found[second].verdict),
                "strict_answer": found[second].answer,
            }
            for ours, second in zip(usual, strict, strict=True)
        ]

    def judge_strictly(self, texts: Texts) -> list[dict[str, str]]:
        """The second opinion alone."""
        items = [self._item(text, Rule.CORRECTED) for text in texts]
        found = self._grades(items)
        return [{"strict": str(found[item].verdict), "strict_answer": found[item].answer} for item in items]

    def _grades(self, items: Sequence[Item]) -> dict[Item, Grade]:
        """Each different item is asked about once: curation's rule may be the strict judge's own."""
        different = list(dict.fromkeys(items))
        return dict(zip(different, self._judge.grade(different), strict=True))

    def _item(self, text: tuple[str, str, str], rule: Rule) -> Item:
        name, problem, completion = text
        if rule is Rule.CORRECTED and self._thinking:
            completion = as_continued(OPENED, completion)
        return Item(self._golds[name, problem], completion, rule)


def text_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["benchmark"], row["problem"], row["text"]


def thinks(record: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the prompts of an evaluation begin a thought. Older settings.json do not say it: there a completion that
    ends a thought which it has not begun tells."""
    if "thinking" in record:
        return bool(record["thinking"])
    return any("</think>" in row["text"] and "<think>" not in row["text"] for row in rows)
