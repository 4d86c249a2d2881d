"""Completions for an evaluation: requests with exact token ids, engines that answer them, a journal that survives.

Every finished sample is appended to samples.jsonl at once, so a restart generates only what is missing. Requests are
cut into batches that depend on the whole evaluation only, never on what is already done, and a batch is drawn from a
seed of its own: a resumed evaluation gives the samples that an undisturbed one gives.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from openrs.errors import Refusal
from openrs.rundir import Journal, read_jsonl


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is wanted: sample `sample` (from 0) of `problem` in `benchmark`, after the tokens `ids`."""

    benchmark: str
    problem: str
    sample: int
    seed: int
    ids: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.benchmark, self.problem, self.sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished completion. `tokens` counts the generated ones with the EOS; `finish` is "stop" or "length"."""

    benchmark: str
    problem: str
    sample: int
    seed: int
    tokens: int
    tokens_hash: str
    finish: str
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.benchmark, self.problem, self.sample


@dataclass(frozen=True, slots=True)
class Decoding:
    """How completions are drawn. `max_tokens` counts generated tokens."""

    temperature: float
    top_p: float
    max_tokens: int


class Engine(Protocol):
    """A loaded model. `generate` answers requests in batches, each batch as soon as it is finished."""

    name: str

    def generate(self, batches: Sequence[Sequence[Request]], decoding: Decoding) -> Iterator[list[Sample]]: ...


def seed_of(seed: int, benchmark: str, problem: str, sample: int) -> int:
    """A 31-bit seed for one sample: equal for equal arguments on every machine, different for everything else."""
    text = f"{seed}/{benchmark}/{problem}/{sample}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def batches_of(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Long prompts first (a late straggler would leave the machine idle), cut into batches of `size`."""
    ordered = sorted(requests, key=lambda request: (-len(request.ids), request.key))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


class Samples:
    """samples.jsonl: what is finished. Opening it cuts off a line that a kill tore; nothing is ever counted twice."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self.rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        for row in read_jsonl(path):
            try:
                self.rows.setdefault((row["benchmark"], row["problem"], row["sample"]), row)
            except KeyError as error:
                raise Refusal(f"{path} has a line without {error}", mend="move the file away to sample anew") from None

    def add(self, sample: Sample, **more: Any) -> None:
        """Append a sample with its verdict; one that is there already is left as it is."""
        if sample.key not in self.rows:
            row = asdict(sample) | more
            self._journal.append(row)
            self.rows[sample.key] = row

    def missing(self, batches: Sequence[Sequence[Request]]) -> list[Sequence[Request]]:
        """Batches of which at least one sample is not finished; they are drawn again whole, from their own seed."""
        return [batch for batch in batches if any(request.key not in self.rows for request in batch)]

    def close(self) -> None:
        self._journal.close()


class TransformersEngine:
    """Plain transformers `generate`, for laptops and tests: slow for long completions, exact everywhere.

    Args:
        model: a folder; loaded as safetensors, without remote code unless `trust_remote_code`.
    """

    name = "transformers"

    def __init__(self, model: Path, dtype: str, tokenizer: Any, *, trust_remote_code: bool) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._tokenizer = tokenizer
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model = AutoModelForCausalLM.from_pretrained(
                model,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            ).to(device)
        except (OSError, ValueError) as error:  # transformers' words for: no such model, no safetensors, broken config
            reason = str(error).splitlines()[0]
            raise Refusal(
                f"the model {model} cannot be loaded: {reason}", mend="give a folder with safetensors"
            ) from None
        # Released checkpoints of the paper say use_cache: false, which makes generation about 200 times slower.
        self._model.config.use_cache = True
        self._model.generation_config.use_cache = True
        self._model.eval()

    @property
    def context(self) -> int | None:
        """Tokens that fit into the model's window, prompt and completion together."""
        window: int | None = getattr(self._model.config, "max_position_embeddings", None)
        return window

    def generate(self, batches: Sequence[Sequence[Request]], decoding: Decoding) -> Iterator[list[Sample]]:
        for batch in batches:
            yield self._batch(batch, decoding)

    def _batch(self, batch: Sequence[Request], decoding: Decoding) -> list[Sample]:
        torch = self._torch
        pad, width = self._tokenizer.pad_token_id, max(len(request.ids) for request in batch)
        ids = torch.tensor([[pad] * (width - len(r.ids)) + list(r.ids) for r in batch], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in batch], device=self._model.device)
        torch.manual_seed(batch[0].seed)
        sampled = decoding.temperature > 0
        draw = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if sampled else {}
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=decoding.max_tokens,
                do_sample=sampled,
                pad_token_id=pad,
                eos_token_id=self._tokenizer.eos_token_id,
                **draw,
            )
        return [self._sample(r, row) for r, row in zip(batch, output[:, width:].tolist(), strict=True)]

    def _sample(self, request: Request, row: list[int]) -> Sample:
        end = row.index(self._tokenizer.eos_token_id) + 1 if self._tokenizer.eos_token_id in row else None
        tokens = row[:end]
        return finished(request, tokens, self._tokenizer, "stop" if end is not None else "length")


def finished(request: Request, tokens: list[int], tokenizer: Any, finish: str) -> Sample:
    import xxhash

    return Sample(
        benchmark=request.benchmark,
        problem=request.problem,
        sample=request.sample,
        seed=request.seed,
        tokens=len(tokens),
        tokens_hash=xxhash.xxh64(str([tokens])).hexdigest(),  # as lighteval hashes the tokens of a continuation
        finish=finish,
        text=tokenizer.decode(tokens, skip_special_tokens=True),
    )
