"""One process's part of a step, and the ways to compute its log-probabilities that are compared."""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOTrainer

from openrs.training.logprobs import log_probabilities

GROUP = 6
EPSILON, BETA = 0.2, 0.04


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's completions of a step, as TRL pads them. ids, mask: (B, P + C); advantages: (B,)."""

    ids: torch.Tensor
    mask: torch.Tensor
    completion: int
    advantages: torch.Tensor

    def part(self, start: int, rows: int, *, cut: bool) -> "Batch":
        """Some rows; `cut` to their own longest prompt and completion."""
        ids, mask = self.ids[start : start + rows], self.mask[start : start + rows]
        before = ids.size(1) - self.completion
        left = int(mask.any(dim=0).int().argmax()) if cut else 0
        right = before + int(mask[:, before:].sum(dim=1).max()) if cut else ids.size(1)
        return Batch(ids[:, left:right], mask[:, left:right], right - before, self.advantages[start : start + rows])

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Prompt and completion of each row, in tokens."""
        before = self.mask.size(1) - self.completion
        return list(
            zip(*(part.sum(dim=1).tolist() for part in (self.mask[:, :before], self.mask[:, before:])), strict=True)
        )


def make_batch(groups: int, prompt: int, completion: int, vocab: int, device: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rng = random.Random(0)
    lengths = [
        completion if rng.random() < 1 / 3 else rng.randint(completion // 5, completion) for _ in range(GROUP * groups)
    ]
    lengths[0] = completion
    prompts = [prompt] + [int(torch.randint(prompt // 4, prompt, (1,), generator=generator)) for _ in range(groups - 1)]
    ids = torch.zeros(GROUP * groups, prompt + completion, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        whole = slice(prompt - prompts[row // GROUP], prompt + length)
        ids[row, whole] = torch.randint(1, vocab, (whole.stop - whole.start,), generator=generator)
        mask[row, whole] = 1
    advantages = torch.randn(GROUP * groups, generator=generator)
    return Batch(ids.to(device), mask.to(device), completion, advantages.to(device))


# --- the paths --------------------------------------------------------------------------------------------------------


def published(model: Any, batch: Batch) -> torch.Tensor:
    """TRL 69ad852, GRPOTrainer._get_per_token_logps: (B, C), from whole logits."""
    asked = batch.completion
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, logits_to_keep=asked + 1).logits[:, :-1]
    rows = zip(logits[:, -asked:], batch.ids[:, -asked:], strict=True)
    return torch.stack([row.log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0] for row, ids in rows])


def trl(model: Any, batch: Batch) -> torch.Tensor:
    """TRL 1.16's own method, without its profiler, on a trainer of which it needs one thing."""
    method = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__
    trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=contextlib.nullcontext))
    return method(trainer, model, batch.ids, batch.mask, batch.completion)[0]  # type: ignore[no-any-return]


def rows(model: Any, batch: Batch) -> torch.Tensor:
    return log_probabilities(model, batch.ids, batch.mask, batch.completion, packing=False)[0]


def packed(model: Any, batch: Batch) -> torch.Tensor:
    return log_probabilities(model, batch.ids, batch.mask, batch.completion, packing=True)[0]


PATHS: dict[str, tuple[Callable[[Any, Batch], torch.Tensor], bool]] = {
    "published": (published, True),
    "trl": (trl, False),
    "rows": (rows, True),
    "packed": (packed, True),
}


def loss_of(logps: torch.Tensor, reference: torch.Tensor, batch: Batch) -> torch.Tensor:
    """bnpo: the mean over the micro-batch's tokens of the clipped ratio's term and the k3 KL (paper.md, section 1)."""
    mask = batch.mask[:, -batch.completion :]
    ratio = torch.exp(logps - logps.detach())
    gain = torch.minimum(
        ratio * batch.advantages[:, None], ratio.clamp(1 - EPSILON, 1 + EPSILON) * batch.advantages[:, None]
    )
    kl = torch.exp(reference - logps) - (reference - logps) - 1
    return ((BETA * kl - gain) * mask).sum() / mask.sum()
