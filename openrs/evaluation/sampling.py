"""Completions for an evaluation: requests with exact token ids, what an engine is, a journal that survives.

Every finished sample is appended to samples.jsonl at once, so a restart generates only what is missing. The work is
cut into batches that depend on the whole evaluation, never on what is already done, and each has a seed of its own:
with a deterministic engine a resumed evaluation gives the samples that an undisturbed one gives.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from openrs.errors import UserError
from openrs.evaluation.benchmarks import digest
from openrs.run.files import Journal, read_jsonl, write_text

Key = tuple[str, str, int]
Rows = Mapping[Key, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Draw:
    """Sample `sample` (from 0) of `problem` in `benchmark`."""

    benchmark: str
    problem: str
    sample: int
    seed: int

    @property
    def key(self) -> Key:
        return self.benchmark, self.problem, self.sample


@dataclass(frozen=True, slots=True)
class Request(Draw):
    """One completion that is wanted, after the tokens `ids`: at most `max_new_tokens`, the EOS included."""

    max_new_tokens: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample(Draw):
    """One finished completion. `tokens` counts the generated ones with the EOS; `finish` is "stop" or "length"."""

    tokens: int
    tokens_hash: str
    finish: str
    text: str


Batch = Sequence[Request]
"""Requests that an engine generates together: a padded batch for transformers, a single one for vLLM."""
NextBatch = Callable[[], Batch | None]
"""Gives the next batch of work, or None when there is none just now."""
OnTokens = Callable[[int], None]
"""Is told how many tokens more were generated, whenever an engine knows; it may be called from any thread."""


class Engine(Protocol):
    """A loaded model."""

    def generate(self, next_batch: NextBatch, on_tokens: OnTokens) -> Iterator[list[Sample]]:
        """Generate batch after batch, and hand over samples as soon as they are finished; ends when `next_batch` gives
        None and nothing is under way."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine needs to know before its first request. max_model_len: longest prompt with its completion."""

    engine: str
    model: str
    dtype: str
    temperature: float
    top_p: float
    max_model_len: int
    gpu_memory: float
    trust_remote_code: bool


def seed_of(seed: int, benchmark: str, problem: str, sample: int) -> int:
    """A 31-bit seed for one sample: equal for equal arguments on every machine, different for everything else."""
    return _seed(f"{seed}/{benchmark}/{problem}/{sample}")


def batch_seed(batch: Batch) -> int:
    """The seed of a batch, from all of its requests: no two different batches ever share random numbers."""
    return _seed("/".join(str(request.seed) for request in batch))


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def make_batches(requests: Sequence[Request], size: int, tokens: Mapping[str, int]) -> list[list[Request]]:
    """Cut the work into batches of at most `size` requests, the long ones first: a straggler would leave machines idle.

    tokens: how long completions of a benchmark usually are. Within a benchmark long prompts come first, so that a
    padded batch has prompts of one length; samples of a problem stand together, so that vLLM reads its prompt once.
    """
    ordered = sorted(requests, key=lambda request: (-tokens[request.benchmark], -len(request.ids), request.key))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


class Samples:
    """samples.jsonl: what is finished. Opening it cuts off a line that a kill tore; nothing is ever counted twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = Journal(path)
        self.rows = read_samples(path)

    def add(self, sample: Sample, **more: Any) -> None:
        """Append a sample with its verdict; one that is there already is left as it is."""
        if sample.key not in self.rows:
            row = asdict(sample) | more
            self._journal.append(row)
            self.rows[sample.key] = row

    def set_verdicts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace lines by the same samples with other verdicts: the whole file anew, or not at all."""
        changed = {key_of(row, self._path): dict(row) for row in rows}
        if changed:
            self._journal.close()
            self.rows |= changed
            write_samples(self._path, self.rows)
            self._journal = Journal(self._path)

    def missing(self, batches: Sequence[Batch]) -> list[Batch]:
        """Batches of which a sample is not finished; they are generated again whole, from their own seed."""
        return [batch for batch in batches if any(request.key not in self.rows for request in batch)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()


def read_samples(path: Path) -> dict[Key, dict[str, Any]]:
    """The lines of a samples.jsonl; a sample that stands there twice is the first. Raises UserError as key_of does."""
    rows: dict[Key, dict[str, Any]] = {}
    for row in read_jsonl(path):
        rows.setdefault(key_of(row, path), row)
    return rows


def write_samples(path: Path, rows: Mapping[Key, Mapping[str, Any]]) -> None:
    """All lines, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows.values()))


def key_of(row: Mapping[str, Any], path: Path) -> Key:
    """Benchmark, problem and sample of a line of samples.jsonl. Raises UserError where it is not a finished sample."""
    kinds = {
        "benchmark": str, "problem": str, "sample": int, "tokens": int, "tokens_hash": str, "finish": str,
        "text": str, "verdict": str, "answer": str,
    }  # fmt: skip
    wrong = [name for name, kind in kinds.items() if not isinstance(row.get(name), kind)]
    if wrong:
        raise UserError(
            f"{path} has a line without {' and '.join(wrong)}",
            "it is not a journal of an evaluation, or was changed by hand",
            "move the file away to sample anew",
        )
    return row["benchmark"], row["problem"], row["sample"]


def finished(request: Request, tokens: Sequence[int], finish: str, text: str) -> Sample:
    tokens_hash = digest(str([list(tokens)]))  # as lighteval hashes the tokens of a continuation
    return Sample(*request.key, request.seed, len(tokens), tokens_hash, finish, text)
