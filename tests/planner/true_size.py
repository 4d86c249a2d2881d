"""exp3's update at its true size without a GPU: the real code under torch's FakeTensorMode, which knows every tensor's
size and holds none of its values.

Executed for real: transformers' Qwen2 (policy and reference), openrs.training.logprobs, TRL's fused LM head in its form
for CUDA, gradient checkpointing, autocast, backward. Played: CUDA's decisions (flash attention, Triton's kernels, which
allocate nothing), and the loss after the log-probabilities, which is small.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import transformers
import transformers.masking_utils as masks
import trl.kernels.chunked_logprob as head
import trl.trainer.utils as trl_utils
from torch._subclasses import FakeTensorMode, fake_impls
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from openrs.planner.shapes import Shape
from openrs.training import logprobs
from openrs.training.recompute import Recompute

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Executed:
    """What one micro-batch took: bytes of both models; bytes beyond them at the peak, and in which pass; FLOPs."""

    models: int
    peak: int
    at: str
    flops: float


class Live(TorchDispatchMode):
    """Bytes of the storages that are alive and were made inside, and their peak; FLOPs of what is executed.

    torch's FlopCounterMode counts the same products, but its hooks keep recomputed tensors alive; and it takes
    attention for whole squares, of which a causal kernel computes half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.flops = 0.0
        self.phase = self.at = ""
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            products = count(*args, **(kwargs or {}), out_val=out)
            self.flops += products / 2 if "attention" in str(func) else products
        for tensor in [] if func.is_view else tree_leaves(out):  # a view of a weight is no new memory
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in self._alive:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        if self.now > self.peak:
            self.peak, self.at = self.now, self.phase


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """What torch's sdpa takes on a GPU for these arguments; others would leave the flash kernel."""
    assert attn_mask is None, "a mask costs the flash kernel"
    assert is_causal
    assert dropout_p == 0.0
    assert enable_gqa or query.size(1) == key.size(1)
    out: torch.Tensor = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True, False, scale=scale)[0]
    return out


class NoKernel:
    """A Triton kernel: works on tensors that are there, and allocates none."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *_, **__: None


@contextmanager
def played_gpu(tokens: int, extra: list[float]) -> Iterator[None]:
    """CUDA's decisions on a machine without one. tokens: of all completions; extra: gets the head's fp32 products."""

    def addmm_fp32(into: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        extra.append(2.0 * a.size(0) * a.size(1) * b.size(1))  # on CUDA into `into`, without temporaries

    def nonzero(mode: Any, func: Any, arg: torch.Tensor) -> torch.Tensor:  # how many is known here
        with mode:
            return torch.empty((tokens, arg.dim()), dtype=torch.int64)

    cdiv = type("triton", (), {"cdiv": staticmethod(lambda x, y: -(-x // y))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", flash)
        for module in (head, trl_utils):
            patch.setattr(module, "_use_triton", lambda device: True)
        for name in ("_forward_kernel", "_backward_kernel"):
            patch.setattr(head, name, NoKernel())
        patch.setattr(head, "_addmm_fp32", addmm_fp32)
        patch.setattr(head, "triton", cdiv, raising=False)
        # transformers takes fake tensors for tracing, and would make a mask of length x length
        patch.setattr(masks, "is_tracing", lambda *_, **__: False)
        patch.setattr(masks, "find_packed_sequence_indices", lambda _: None)
        patch.setattr(transformers.PreTrainedModel, "init_weights", lambda *_, **__: None)
        for name in ("uniform_", "normal_"):
            patch.setattr(torch.Tensor, name, lambda self, *_, **__: self)
        patch.setitem(fake_impls.op_implementations_dict, aten.nonzero.default, nonzero)
        yield


def execute(
    shape: Shape, prompts: Sequence[int], completions: Sequence[int], caps: tuple[int, int], *,
    packing: bool, checkpointing: bool, recompute: int | str = "all",
) -> Executed:  # fmt: skip
    """One micro-batch: reference forward, policy forward, backward.

    prompts, completions: tokens of each row; caps: the columns that TRL pads them to; recompute: hardware.recompute.
    """
    ids = torch.ones(len(prompts), sum(caps), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (before, after) in enumerate(zip(prompts, completions, strict=True)):
        mask[row, caps[0] - before : caps[0] + after] = 1
    layout = logprobs.lay_out(ids, mask, caps[1], packing=packing)
    assert layout.packed is packing
    live, extra = Live(), list[float]()
    with played_gpu(sum(completions), extra), FakeTensorMode(allow_non_fake_inputs=True):
        models = [_model(shape), _model(shape)]
        if packing:
            assert all(map(logprobs.allow_packing, models))
        policy, reference = models[0].train(), models[1].eval()
        if checkpointing:
            how: dict[str, Any] = {"use_reentrant": False}
            chosen = None if recompute == "all" else Recompute(recompute, shape, 2)
            policy.gradient_checkpointing_enable(how if chosen is None else {**how, "context_fn": chosen})
            if chosen is not None:
                chosen.start_forward(layout.ids.numel())
        for value in policy.parameters():  # ZeRO-2 takes a gradient into its bucket
            value.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

        ids, mask = fake(ids), fake(mask)
        given = replace(layout, ids=fake(layout.ids), labels=fake(layout.labels), at=fake(layout.at))
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16), live:
            patch.setattr(logprobs, "lay_out", lambda *_, **__: given)
            live.phase = "reference"
            with torch.no_grad():
                logprobs.log_probabilities(reference, ids, mask, caps[1], packing=packing)
            live.phase = "forward"
            values, _ = logprobs.log_probabilities(policy, ids, mask, caps[1], packing=packing, entropy=True)
            live.phase = "backward"
            values.sum().backward()
        weights = sum(value.numel() * value.element_size() for model in models for value in model.parameters())
    return Executed(weights, live.peak, live.at, live.flops + sum(extra))


def _model(shape: Shape) -> Any:
    sizes = transformers.Qwen2Config(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=8192, attn_implementation="sdpa",
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = transformers.Qwen2ForCausalLM(sizes)
    finally:
        torch.set_default_dtype(torch.float32)
    trl_utils.add_fused_lm_head(model, outputs=("entropy",))
    return model
