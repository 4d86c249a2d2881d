"""Samples judged: lighteval's verdict, which is the score, and the strict judge's, which is a second opinion.

`verdict` and `answer` are lighteval's, by the benchmark's rule, defects included: only so is a score comparable with
anybody's. `strict` is the corrected judge's (docs/judging.md). Nothing but `verdict` ever enters the accuracy. Finished
completions are judged and appended to the journal beside the generation.
"""

import queue
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.plan import EvalPlan
from openrs.evaluation.sampling import Sample, Samples
from openrs.rewards.extraction import as_continued
from openrs.rewards.grading import Item, Judge, Rule
from openrs.run.progress import Progress

AT_ONCE = 64  # completions judged between two looks at whether to stop
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
        different = list(dict.fromkeys([*usual, *strict]))  # curation's rule may be the strict judge's own
        found = dict(zip(different, self._judge.grade(different), strict=True))
        return [
            {
                "verdict": str(found[ours].verdict),
                "answer": found[ours].answer,
                "strict": str(found[second].verdict),
                "strict_answer": found[second].answer,
            }
            for ours, second in zip(usual, strict, strict=True)
        ]

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


class Scoring:
    """Judges what it is given, in the order it comes, in a thread of its own; every judged sample is appended at once.

    A context: leaving it waits until all is judged; leaving it by an exception drops what is not, to be drawn again.
    What goes wrong in the thread (a full disk) is raised by the next `give`, or at the end.
    """

    def __init__(self, plan: EvalPlan, samples: Samples, judge: Judge, progress: Progress, batches: int) -> None:
        self._label, self._samples, self._progress = plan.target.label, samples, progress
        # vLLM's batches are single requests: their number says nothing.
        self._batches = batches if plan.layout.engine == "transformers" else 0
        self._arrivals, self._tokens, self._began = 0, 0, time.monotonic()
        self._lock = threading.Lock()  # engines count tokens in threads of their own
        self._referee = Referee(judge, plan.benchmarks, plan.problems, thinks(plan.record, samples.rows.values()))
        wanted = {request.key for request in plan.requests}
        there = [row for key, row in samples.rows.items() if key in wanted]
        self._total, self._done = len(wanted), len(there)
        self._right = sum(row["verdict"] == "correct" for row in there)
        self._cut = sum(row["finish"] == "length" for row in there)
        self._shown_at = 0.0
        self._arrived: queue.SimpleQueue[Sequence[Sample] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start(self._done)
        self._thread.start()
        self.on_tokens(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        self._arrived.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def give(self, batch: Sequence[Sample]) -> None:
        if self._error is not None:
            raise self._error
        self._arrivals += 1
        self._arrived.put(batch)

    def on_tokens(self, more: int) -> None:
        """The engines have generated so many tokens more. Shows them, seldom enough for a log file."""
        with self._lock:
            self._tokens += more
            now = time.monotonic()
            first = 0 < more == self._tokens
            if first or now - self._shown_at > (0.5 if sys.stdout.isatty() else 20):
                self._shown_at = now
                batch = f"batch {min(self._arrivals + 1, self._batches)} of {self._batches}, " if self._batches else ""
                pace = self._tokens / max(1e-3, now - self._began)
                self._progress.live(
                    f"evaluate {self._label} {self._done}/{self._total}  {batch}{self._tokens:,} tokens so far,"
                    f" {pace:.0f} a second"
                )

    def _run(self) -> None:
        try:
            while (batch := self._arrived.get()) is not None:
                new = [one for one in batch if one.key not in self._samples.rows]  # a batch drawn again brings old ones
                for start in range(0, len(new), AT_ONCE):
                    if self._stopped:
                        return
                    self._keep(new[start : start + AT_ONCE])
        except BaseException as error:  # noqa: BLE001 - raised again where somebody hears it
            self._error = error

    def _keep(self, new: Sequence[Sample]) -> None:
        judged = self._referee.judge([(one.benchmark, one.problem, one.text) for one in new])
        for one, verdicts in zip(new, judged, strict=True):
            self._samples.add(one, **verdicts)
            self._done, self._right = self._done + 1, self._right + (verdicts["verdict"] == "correct")
            self._cut += one.finish == "length"
        with self._lock:
            now = time.monotonic()
            if now - self._shown_at > (0.5 if sys.stdout.isatty() else 5) or self._done == self._total:
                self._shown_at = now
                facts = {"correct": self._right / max(1, self._done), "cut off": self._cut / max(1, self._done)}
                self._progress.step(f"evaluate {self._label}", self._done, self._total, facts)
