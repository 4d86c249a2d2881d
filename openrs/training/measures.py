"""What a step shows beyond TRL's own metrics, counted on every process and added up over all of them."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from openrs.data.scripts import letters
from openrs.rewards.functions import RewardStats


class Measures:
    """Filled while a step runs, emptied by `drain` when it is logged.

    Args:
        stats: what the rewards count while they judge.
    """

    def __init__(self, stats: RewardStats) -> None:
        self._stats = stats
        self._letters = self._foreign = 0
        self._kl_max: torch.Tensor | None = None

    def texts(self, completions: Sequence[str]) -> None:
        """Count the letters of this process's completions."""
        for text in completions:
            count, foreign = letters(text)
            self._letters += count
            self._foreign += foreign

    def kl(self, logps: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> None:
        """The largest k3 estimate of one token (Schulman 2020; TRL's per_token_kl); all three of shape (B, T)."""
        ratio = reference - logps
        largest = (torch.exp(ratio) - ratio - 1).masked_fill(mask == 0, 0.0).max()
        self._kl_max = largest if self._kl_max is None else torch.maximum(self._kl_max, largest)

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """Counts and shares over all processes since the last call. Every process must call it."""
        counts = self._stats.drain() | {"letters": float(self._letters), "foreign": float(self._foreign)}
        local = torch.tensor(list(counts.values()), dtype=torch.float64, device=accelerator.device)
        counts = dict(zip(counts, accelerator.reduce(local, reduction="sum").tolist(), strict=True))
        letter_count, foreign = counts.pop("letters"), counts.pop("foreign")
        row = dict(counts)
        if judged := counts["judge/completions"]:
            row["accuracy"] = counts["judge/correct"] / judged
            row["judge/unparseable_share"] = counts["judge/unparseable_golds"] / judged
            row["judge/wraps_share"] = counts["judge/cosine_wraps"] / judged
        if letter_count:
            row["completions/non_latin"] = foreign / letter_count
        if self._kl_max is not None:
            row["kl/max"] = accelerator.gather(self._kl_max.float().reshape(1)).max().item()
        self._letters = self._foreign = 0
        self._kl_max = None
        return row
