"""Selective recomputation: of the layers under gradient checkpointing, the last ones keep their matrix products and
attention (torch's selective activation checkpointing), so that their backward does not make them again.

Gradients are equal to the last bit for any number of layers: what is kept is what would be computed again. The last
layers are the ones that keep, because their memory is free again when the first layers' backward comes.

It goes through `context_fn`, which survives what TRL 1.16 does in every scoring: disable_gradient_checkpointing
(trl/models/utils.py) turns checkpointing off and enables it anew for all layers, with the same arguments, which undoes
transformers' `every_n_layers`.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts, noop_context_fn

from openrs.planner.memory import layers_within
from openrs.planner.shapes import Shape

_ATEN = torch.ops.aten
KEPT = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
}


class Recompute:
    """checkpoint()'s context_fn, which is called once a layer in each forward.

    Args:
        choice: hardware.recompute: auto, none, or the number of layers that are recomputed.
        shape: the policy's; its layers are called in the order in which they stand.
        element: bytes of a weight.
    """

    def __init__(self, choice: int | str, shape: Shape, element: int) -> None:
        self.choice, self.shape, self.element = choice, shape, element
        self._recomputed = self._seen = 0

    def start_forward(self, tokens: int) -> None:
        """Called before a forward of the policy, of so many tokens, that will have a backward."""
        self._seen = 0
        if self.choice == "auto":
            free = free_memory()
            kept = 0 if free is None else layers_within(free, tokens, self.shape, self.element)
            self._recomputed = self.shape.layers - kept
        else:
            self._recomputed = 0 if self.choice == "none" else int(self.choice)

    def __call__(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        self._seen += 1
        if self._seen <= self._recomputed:
            return noop_context_fn()  # type: ignore[no-any-return]
        return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-any-return]


def _policy(_context: Any, operator: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def free_memory() -> int | None:
    """Bytes that this process can still take on its GPU: what the driver has free, and what torch holds unused.

    None without CUDA. vLLM sleeps while the policy learns, so its cache is free then.
    """
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
