"""Log-probabilities of completions without computing padding: the same numbers as TRL's, from fewer tokens.

TRL 1.16 hands the model rows padded on both sides, to the longest prompt on the left and the longest completion on the
right, with a mask (GRPOTrainer._get_per_token_logps_and_entropies). The mask costs more than the padding: with it
torch's sdpa can use none of the kernels that leave out what is masked. Here a row begins at column 0, prompt and
completion one after the other, so padding stands only to the right, where causal attention never looks: no mask. Where
much padding is left, the rows follow each other in one row without any (packed), each with attention of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROWS = "sdpa_rows"  # torch's sdpa, row by row where rows are packed
CALL = 64  # tokens of padding that cost as much as a call of attention: below, packing a row gains nothing


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A micro-batch as the model gets it.

    Args:
        ids: (R, L) token ids; labels: (R, L) the completions' ids, -100 elsewhere.
        lengths: real tokens of each of the B rows.
        at: (B, C) where, in the flattened (R, L - 1) log-probabilities, that of a completion's token stands.
        packed: R is 1, and the rows follow each other; otherwise R is B.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    lengths: list[int]
    at: torch.Tensor
    packed: bool

    def inputs(self) -> dict[str, Any]:
        if not self.packed:
            return {"input_ids": self.ids, "labels": self.labels}
        positions = torch.cat([torch.arange(n, device=self.ids.device) for n in self.lengths])
        return {
            "input_ids": self.ids,
            "labels": self.labels,
            "position_ids": positions[None],
            "attention_mask": self.ids.new_ones(1, 1, 1, 1),  # of four dimensions: transformers passes it on as it is
            "row_lengths": self.lengths,
        }


def lay_out(ids: torch.Tensor, mask: torch.Tensor, completion: int, *, packing: bool) -> PackedBatch:
    """Lay out rows that TRL padded: prompts on the left, completions, the last `completion` columns, on the right.

    ids, mask: (B, P + completion). Packs, where that is allowed, when it spares more than it costs.
    """
    rows, width = ids.shape
    device = ids.device
    real = mask.sum(dim=1)
    prompt = mask[:, : width - completion].sum(dim=1)
    lengths: list[int] = real.tolist()
    longest = max(2, *lengths)  # one token alone has nothing to predict
    column = torch.arange(longest, device=device).expand(rows, -1)
    left = ids.gather(1, (column + (width - completion - prompt)[:, None]).clamp(max=width - 1))
    there = column < real[:, None]
    labels = left.masked_fill(~there | (column < prompt[:, None]), -100)
    token = torch.arange(completion, device=device).expand(rows, -1)
    if packing and rows * (longest - CALL) > sum(lengths):
        start = torch.cat([real.new_zeros(1), real.cumsum(0)[:-1]])
        at = start[:, None] + prompt[:, None] - 1 + token
        return PackedBatch(left[there][None], labels[there][None], lengths, at.clamp(max=sum(lengths) - 2), packed=True)
    at = (prompt[:, None] - 1 + token).clamp(max=longest - 2)
    at = at + (longest - 1) * torch.arange(rows, device=device)[:, None]
    return PackedBatch(left, labels, lengths, at, packed=False)


def log_probabilities(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    completion: int,
    *,
    packing: bool,
    entropy: bool = False,
    starting: Callable[[int], None] = lambda _: None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities (B, completion) of a micro-batch's completions, 0 where there is no token; and entropies.

    starting: told how many tokens the model is about to compute, padding included. `model` has TRL's fused LM head
    (trl.trainer.utils.add_fused_lm_head).
    """
    layout = lay_out(ids, mask, completion, packing=packing)
    starting(layout.ids.numel())
    outputs = model(**layout.inputs(), fused_lm_head=True)
    none = mask[:, -completion:] == 0

    def back(values: torch.Tensor) -> torch.Tensor:
        return values.flatten()[layout.at].masked_fill(none, 0.0)

    return back(outputs.log_probs), back(outputs.entropy) if entropy else None


def allow_packing(model: PreTrainedModel) -> bool:
    """Let `model` take packed rows, if its attention is torch's sdpa; returns whether it does."""
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(ROWS, attend)
    AttentionMaskInterface.register(ROWS, sdpa_mask)
    model.set_attn_implementation(ROWS)
    return bool(model.config._attn_implementation == ROWS)


def attend(
    module: torch.nn.Module, *states: Any, row_lengths: list[int] | None = None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa; with `row_lengths` of each packed row by itself, causally.

    states: query, key and value, each (B, heads, L, head_dim), and the mask.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, *states, **kwargs)  # type: ignore[no-any-return]
    rows = zip(*(state.split(row_lengths, dim=2) for state in states[:3]), strict=True)
    return torch.cat([sdpa_attention_forward(module, *row, None, **kwargs)[0] for row in rows], dim=1), None
