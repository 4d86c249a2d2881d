"""L0, the same inputs, proven: lighteval's three input hashes recomputed and compared with those in the authors' logs.

lighteval (commit ed08481, logging/info_loggers.py) takes xxh64 of every problem's query, of its full prompt in chat
format, and of `str([token ids])`; per benchmark it sorts the hexadecimal digests, joins them and takes xxh64 again.
That needs no torch, no transformers and about a second. Answers are in no hash of the logs: for them, and to name the
row that differs, the digests of the proven data are kept in input_hashes.json (figures, no sentences).
"""

import functools
import json
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from openrs.data.tokenizer import PAPER_CHAT, ChatEncoder, Encoded
from openrs.evaluation.benchmarks import Benchmark, EvalProblem, digest, load_problems

RECORDED = Path(__file__).with_name("input_hashes.json")
HASHES = ("hash_examples", "hash_full_prompts", "hash_input_tokens")
ROWS_NAMED = 10
LONGEST_SEARCHED = 6000  # characters; trying every edit of one character takes a second there


@dataclass(frozen=True, slots=True)
class HashCheck:
    """One hash of one benchmark: what the authors' log has and what these inputs give (None: no tokenizer to tell)."""

    benchmark: str
    hash: str
    expected: str
    found: str | None

    @property
    def state(self) -> Literal["equal", "differs", "not checked"]:
        if self.found is None:
            return "not checked"
        return "equal" if self.found == self.expected else "differs"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that is not as in the proven data. row counts from 1 and is 0 for a row that is missing."""

    benchmark: str
    row: int
    id: str
    what: Literal["question", "answer", "token ids", "missing", "added"]
    detail: str

    def __str__(self) -> str:
        place = f"{self.id} (row {self.row})" if self.row else self.id
        return f"{place}: {self.what}{': ' if self.detail else ''}{self.detail}"


@dataclass(frozen=True, slots=True)
class InputsReport:
    """checks: three a benchmark. unproven: benchmarks without a log of the authors. bos: BOS tokens in front."""

    checks: tuple[HashCheck, ...]
    changes: tuple[RowChange, ...]
    unproven: tuple[str, ...]
    bos: int | None

    @property
    def equal(self) -> int:
        return sum(check.state == "equal" for check in self.checks)

    @property
    def differs(self) -> tuple[HashCheck, ...]:
        return tuple(check for check in self.checks if check.state == "differs")

    @property
    def proven(self) -> bool:
        """Every hash was computed and equals the authors', and no answer was changed."""
        return bool(self.checks) and self.equal == len(self.checks) and not self.changes

    def as_json(self) -> dict[str, Any]:
        """For results and --json."""
        return {
            "proven": self.proven,
            "equal": self.equal,
            "of": len(self.checks),
            "bos": self.bos,
            "checks": [{**asdict(check), "state": check.state} for check in self.checks],
            "changes": [asdict(change) for change in self.changes],
            "unproven": list(self.unproven),
        }

    def lines(self) -> Iterator[str]:
        """For people: a line a benchmark, then what differs and what to make of it."""
        mark = {"equal": "ok", "differs": "DIFFERS", "not checked": "-"}
        yield f"{'benchmark':15s}" + "".join(f"{name:27s}" for name in HASHES)
        for name in dict.fromkeys(check.benchmark for check in self.checks):
            found = [check for check in self.checks if check.benchmark == name]
            yield f"{name:15s}" + "".join(f"{f'{c.found or c.expected} {mark[c.state]}':27s}" for c in found)
        for name in self.unproven:
            yield f"{name:15s}the authors published no log of it: nothing to compare with"
        for change in self.changes[:ROWS_NAMED]:
            yield f"  {change}"
        if len(self.changes) > ROWS_NAMED:
            yield f"  ... and {len(self.changes) - ROWS_NAMED} more rows (--json lists them all)"
        yield from self.causes()
        yield self.verdict()

    def causes(self) -> Iterator[str]:
        """What differs where every question is the proven one."""
        for name in dict.fromkeys(check.benchmark for check in self.differs):
            asked = {change.what for change in self.changes if change.benchmark == name}
            if not asked & {"question", "missing", "added"}:
                first = next(check.hash for check in self.differs if check.benchmark == name)
                cause = {"hash_examples": "the prompt around the questions", "hash_full_prompts": "the chat template"}
                yield f"  {name}: the questions are the proven ones; {cause.get(first, 'the tokenizer')} differs"

    def verdict(self) -> str:
        """One line."""
        head = f"L0: {self.equal} of {len(self.checks)} hashes equal those in the authors' logs"
        if self.proven:
            return f"{head}: the same inputs, proven ({self.bos} BOS in front)"
        if self.differs:
            return f"{head}, {len(self.differs)} differ: these are not the paper's inputs"
        if self.changes:
            return f"{head}, but answers were changed: scores would not be the paper's"
        if not self.checks:
            return "L0: none of these benchmarks has published hashes"
        return f"{head}; the other {len(self.checks) - self.equal} are over token ids and need --tokenizer"


@functools.cache
def recorded_digests() -> Mapping[str, Any]:
    """input_hashes.json: for each proven benchmark `rows` (see RowDigests) and `input_tokens` (see record)."""
    tree: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return tree


def combined(digests: Iterable[str]) -> str:
    """lighteval's hash over a benchmark, from the digests of its problems in any order."""
    return digest("".join(sorted(digests)))


EncodedBenchmark = tuple[Sequence[EvalProblem], Sequence[Encoded]]
"""A benchmark's problems, and each in the model's chat format (none without a tokenizer)."""


def encode_benchmark(benchmark: Benchmark, data_dir: Path | None, encoder: ChatEncoder | None) -> EncodedBenchmark:
    """Read a benchmark and put its questions. Of a published one any number of rows is read: `check_encoded` names
    those that are missing. Raises UserError for data that cannot be read."""
    problems = load_problems(benchmark, data_dir, any_count=benchmark.hashes is not None)
    return problems, [encoder.encoded(problem.prompt) for problem in problems] if encoder else []


def check_inputs(benchmarks: Sequence[Benchmark], data_dir: Path | None, tokenizer: Path | None = None) -> InputsReport:
    """Compare the inputs of an evaluation with those of the paper's.

    tokenizer: a folder with tokenizer.json and a chat template. With it, prompts are rendered by its own template and
    tokenised as the authors' harness did: the rendered text begins with BOS and the tokenizer puts one more in front.
    Without it the paper's chat format is used and the token hashes stay unchecked.
    Raises UserError for data or a tokenizer that cannot be read; a mismatch is no error but part of the report.
    """
    published = [benchmark for benchmark in benchmarks if benchmark.hashes]
    encoder = ChatEncoder.from_folder(tokenizer) if tokenizer and published else None
    return check_encoded(
        benchmarks, {benchmark.name: encode_benchmark(benchmark, data_dir, encoder) for benchmark in published}, encoder
    )


def check_encoded(
    benchmarks: Sequence[Benchmark], questions: Mapping[str, EncodedBenchmark], encoder: ChatEncoder | None
) -> InputsReport:
    """The same for questions that are read already; those of a benchmark without published hashes are not needed."""
    recorded = recorded_digests()
    checks: list[HashCheck] = []
    changes: list[RowChange] = []
    bos: int | None = None
    for benchmark in (benchmark for benchmark in benchmarks if benchmark.hashes):
        problems, encoded = questions[benchmark.name]
        rows = row_digests(problems, encoded)
        prompts = [e.text for e in encoded] if encoded else [PAPER_CHAT.format(prompt=p.prompt) for p in problems]
        found: dict[str, str | None] = {
            "hash_examples": combined(digest(problem.prompt) for problem in problems),
            "hash_full_prompts": combined(map(digest, prompts)),
            "hash_input_tokens": combined(row[3] or "" for row in rows) if encoded else None,
        }
        checks += [HashCheck(benchmark.name, h, getattr(benchmark.hashes, h), found[h]) for h in HASHES]
        if benchmark.name in recorded:
            changes += changed_rows(benchmark.name, problems, rows, recorded[benchmark.name]["rows"])
        if encoder and encoded:
            bos = encoder.leading_bos(encoded[0].double)
    unproven = tuple(benchmark.name for benchmark in benchmarks if benchmark.hashes is None)
    return InputsReport(tuple(checks), tuple(changes), unproven, bos)


RowDigests = tuple[str, str, str, str | None]
"""A problem's id within its benchmark, and the digests of its question, its answer and its token ids."""


def row_digests(problems: Sequence[EvalProblem], encoded: Sequence[Encoded]) -> list[RowDigests]:
    """What input_hashes.json holds for each problem; token ids as `str([ids])`, the form that lighteval hashed."""
    rows: list[RowDigests] = []
    for number, problem in enumerate(problems):
        tokens = digest(str([encoded[number].double])) if encoded else None
        rows.append((problem.id.partition("/")[2], digest(problem.question), digest(problem.gold), tokens))
    return rows


def changed_rows(
    benchmark: str, problems: Sequence[EvalProblem], rows: Sequence[RowDigests], recorded: Sequence[Sequence[str]]
) -> list[RowChange]:
    """The rows that differ from the recorded ones, in the data's order; the order itself is free, as in the hashes."""
    by_question = {row[1]: row for row in recorded}
    here = {row[1] for row in rows}
    lost = {row[0]: row for row in recorded if row[1] not in here}
    changes: list[RowChange] = []
    for number, (problem, row) in enumerate(zip(problems, rows, strict=True), start=1):
        proven = by_question.get(row[1])
        if proven is None:
            old = lost.pop(row[0], None)
            detail = located(problem.question, old[1]) if old and len(changes) < ROWS_NAMED else ""
            changes.append(RowChange(benchmark, number, problem.id, "question" if old else "added", detail))
        elif row[2] != proven[2]:
            detail = located(problem.gold, proven[2]) if len(changes) < ROWS_NAMED else ""
            changes.append(RowChange(benchmark, number, problem.id, "answer", detail))
        elif row[3] is not None and row[3] != proven[3]:
            changes.append(RowChange(benchmark, number, problem.id, "token ids", ""))
    changes += [RowChange(benchmark, 0, f"{benchmark}/{name}", "missing", "") for name in lost]
    return changes


def located(text: str, expected: str) -> str:
    """Say how `text` differs from the text whose digest is `expected`, when one character or a common rewriting did it.

    The proven text is not here, only its digest: every edit of one character is tried until the digest comes out.
    """
    for name, other in (
        ("white space was added around it", text.strip()),
        ("line ends were rewritten", text.replace("\r\n", "\n")),
        ("Unicode was rewritten to NFC", unicodedata.normalize("NFD", text)),
        ("Unicode was rewritten to NFD", unicodedata.normalize("NFC", text)),
    ):
        if digest(other) == expected:
            return name
    if len(text) > LONGEST_SEARCHED:
        return "changed"
    letters = sorted({*string.printable, *text})
    for place in range(len(text) + 1):
        before, after, here = text[:place], text[place:], text[place : place + 1]
        if here and digest(before + after[1:]) == expected:
            return f"character {place + 1} ({here!r}) was added"
        for letter in letters:
            if digest(before + letter + after) == expected:
                return f"{letter!r} was taken away before character {place + 1}"
            if here and digest(before + letter + after[1:]) == expected:
                return f"character {place + 1} is {here!r} and was {letter!r}"
    return "more than one character differs"
