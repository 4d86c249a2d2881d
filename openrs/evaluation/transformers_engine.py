"""Plain transformers `generate`, for laptops and tests: slow for long completions, exact everywhere.

Deterministic: a batch of the same requests gives the same samples, bit for bit, on the same machine and packages.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrs.data.tokenizer import ChatEncoder
from openrs.evaluation.sampling import Batch, EngineSettings, NextBatch, OnTokens, Request, Sample, batch_seed, finished
from openrs.hub.loading import load_model
from openrs.run.libraries import importing

LIKELIEST = 256  # tokens that are looked at before all are sorted


class TransformersEngine:
    """Loads safetensors only, and no code that comes with the model unless `trust_remote_code`.

    Args:
        encoder: the model's own.
        stop_token_ids: token ids that end a completion.

    Raises UserError when the model cannot be loaded.
    """

    def __init__(self, settings: EngineSettings, encoder: ChatEncoder, stop_token_ids: frozenset[int]) -> None:
        libraries()
        import torch
        from transformers import GenerationConfig

        self._torch, self._encoder, self._stop_token_ids = torch, encoder, stop_token_ids
        model = load_model(
            Path(settings.model), trust_remote_code=settings.trust_remote_code, dtype=getattr(torch, settings.dtype)
        )
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        # Released checkpoints of the paper say use_cache: false, which makes generation about 200 times slower.
        self._model.config.use_cache = True
        pad = encoder.token_id("pad_token")
        self._pad = pad if pad is not None else min(stop_token_ids, default=0)
        sampled = settings.temperature > 0
        self._draw = [lambda _, logits: nucleus(logits / settings.temperature, settings.top_p)] if sampled else []
        # In place of the model's own generation_config.json: its penalties and top_k must not slip in.
        self._model.generation_config = GenerationConfig(
            do_sample=sampled, use_cache=True, pad_token_id=self._pad, eos_token_id=sorted(stop_token_ids) or None,
            **({"temperature": 1.0, "top_p": 1.0, "top_k": 0} if sampled else {}),
        )  # fmt: skip
        self._model.eval()
        if not torch.cuda.is_available():
            keep_memory()

    def generate(self, next_batch: NextBatch, on_tokens: OnTokens) -> Iterator[list[Sample]]:
        while (batch := next_batch()) is not None:
            yield self._generate_batch(batch, on_tokens)

    def close(self) -> None:
        del self._model
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()

    def _generate_batch(self, batch: Batch, on_tokens: OnTokens) -> list[Sample]:
        torch, device = self._torch, self._model.device
        stops = torch.tensor(sorted(self._stop_token_ids), device=device)
        going = torch.ones(len(batch), dtype=torch.bool, device=device)
        limits = torch.tensor([request.max_new_tokens for request in batch], device=device)

        def count(ids: Any, logits: Any) -> Any:
            """Sees every step of `generate` and changes nothing: rows that have not ended get one token more."""
            if ids.shape[1] > width:
                going.logical_and_(~torch.isin(ids[:, -1], stops))
            on_tokens(int((going & (limits > ids.shape[1] - width)).sum()))
            return logits

        width = max(len(request.ids) for request in batch)
        ids = torch.tensor([[self._pad] * (width - len(r.ids)) + list(r.ids) for r in batch], device=device)
        mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in batch], device=device)
        with torch.inference_mode(), torch.random.fork_rng():  # the caller's own random numbers go on as if not asked
            torch.manual_seed(batch_seed(batch))
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(request.max_new_tokens for request in batch),
                logits_processor=[count, *self._draw],
            )
        return [self._sample(r, row) for r, row in zip(batch, output[:, width:].tolist(), strict=True)]

    def _sample(self, request: Request, row: list[int]) -> Sample:
        tokens = row[: request.max_new_tokens]
        end = next((place for place, token in enumerate(tokens, start=1) if token in self._stop_token_ids), None)
        return finished(request, tokens[:end], "length" if end is None else "stop", self._encoder.decode(tokens[:end]))


def libraries() -> None:
    """Import them, and quietly; of the models the paper's, which would else be imported when it is loaded."""
    with importing():
        import torch  # noqa: F401
        from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2ForCausalLM  # noqa: F401


def nucleus(logits: Any, top_p: float) -> Any:
    """Logits [batch, vocabulary] with -inf for all but the likeliest tokens that together reach `top_p`.

    The same tokens as transformers' TopPLogitsWarper keeps, which sorts the whole vocabulary for every token: here only
    the rows are sorted whose LIKELIEST tokens do not reach it.
    """
    import torch

    if top_p >= 1:
        return logits
    kept = torch.full_like(logits, -torch.inf)
    total = logits.logsumexp(-1, keepdim=True)
    rows, wide = torch.arange(len(logits), device=logits.device), min(LIKELIEST, logits.shape[-1])
    while len(rows):
        found, place = logits[rows].topk(wide, dim=-1)
        chances = (found - total[rows]).exp()
        before = chances.cumsum(-1) - chances
        ends = (before[:, -1] >= top_p) | (wide == logits.shape[-1])  # the last one is out: so is what comes after it
        found = found.masked_fill(before >= top_p, -torch.inf)
        kept[rows[ends]] = kept[rows[ends]].scatter(-1, place[ends], found[ends])
        rows, wide = rows[~ends], logits.shape[-1]
    return kept


def keep_memory() -> None:
    """Keep freed memory for the next step instead of handing it to the kernel and back.

    With glibc every array of some megabytes is mapped anew, and the logits of a batch are mapped several times a token:
    39 MB each for 64 completions and 151,936 tokens, a third of the processor's time. Other C libraries lack the call.
    """
    if sys.platform == "linux":
        m_mmap_threshold, m_trim_threshold, gibibyte = -3, -1, 1 << 30  # malloc.h
        with contextlib.suppress(AttributeError):
            for option in (m_mmap_threshold, m_trim_threshold):
                ctypes.CDLL(None).mallopt(option, gibibyte)
