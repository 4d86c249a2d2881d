"""One GRPO update at exp3's size on one GPU, no vLLM and no download: what padding, logits and attention cost.

    python benchmarks/gpu_step.py [--json FILE]          # one call fits in ten minutes on one GPU
    python benchmarks/gpu_step.py --small --cpu          # the same code at a toy size on a CPU, to know that it works
    python benchmarks/gpu_step.py --parity               # only the comparison of losses and gradients

The 1.78 B model of the paper with random weights in bfloat16, a reference model, micro-batches of one group of 6:
prompts of up to 512 tokens, completions of up to 3584, a third of them at the cap and the others between a fifth of it
and all of it. An update is, for each micro-batch, the reference's forward and the policy's forward and backward. Paths:

  published  TRL 69ad852: whole logits, log-softmax row by row, each micro-batch padded to its longest
  trl        TRL 1.16's own function: LM head in chunks, padded to the longest of all the process's completions, a mask
  rows       openrs (training/logprobs.py) without packing: rows from column 0, no mask
  packed     openrs: no padding at all
  kept       packed, with hardware.recompute none: layers under checkpointing keep their products
  fused      packed, with hardware.fused_kernels (where liger-kernel is installed); kept, fused: both

ZeRO and drafts need more than one GPU or vLLM, and are not in it (docs/performance.md has the commands).
First each variant's loss and gradient are compared with the first one's; then they take turns. Where the published path
runs out of memory, --parity halves the lengths until it fits. MFU counts the work
that must be done (no padding, no recomputation) against this machine's own fastest matrix product. Memory is torch's,
in GiB: weights, reference, gradients and optimizer by their tensors, the update by its peak.
"""

import argparse
import contextlib
import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import common
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2 import modeling_qwen2
from transformers.utils import is_liger_kernel_available
from trl.trainer.utils import add_fused_lm_head
from update_paths import PATHS, loss_of, make_batch

from openrs.config.load import load
from openrs.planner.gpus import find
from openrs.planner.memory import trainer_parts
from openrs.planner.shapes import Shape, from_config
from openrs.planner.workload import Workload, workload_of
from openrs.training.fused import fuse
from openrs.training.logprobs import allow_packing
from openrs.training.recompute import Recompute

GIB = 2**30
ROTARY = modeling_qwen2.apply_rotary_pos_emb
OF_AN_UPDATE = ("activations", "kept of layers", "backward of a layer or head", "allocator's slack")  # planner.memory's
LARGE = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
SMALL = {
    "model_type": "qwen2", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    path: str
    attention: str = "sdpa"
    checkpointing: bool = True
    rows: int = 6  # of a micro-batch
    kept: bool = False
    fused: bool = False

    @property
    def name(self) -> str:
        words = [self.path, self.attention, "checkpointing" if self.checkpointing else "none", f"{self.rows} rows"]
        return ", ".join([*words, *(word for word in ("kept", "fused") if getattr(self, word))])


class Bench:
    """Policy, reference and batch on one device."""

    def __init__(self, args: argparse.Namespace, dtype: torch.dtype, lengths: tuple[int, int]) -> None:
        self.device, self.dtype = device_of(args), dtype
        self.lengths = lengths
        sizes = SMALL if args.small else LARGE
        self.shape: Shape = from_config(sizes, "gpu_step.py")
        config = {name: value for name, value in sizes.items() if name != "model_type"}
        self.memory: dict[str, float | None] = {}
        self.policy, self.reference = self._model(config, "weights"), self._model(config, "reference")
        for model in (self.policy, self.reference):
            add_fused_lm_head(model)
        noise = torch.Generator(self.device).manual_seed(1)
        with torch.no_grad():  # a policy that has moved: else the KL is 0 and hides what is wrong with it
            for ours, theirs in zip(self.policy.parameters(), self.reference.parameters(), strict=True):
                theirs.copy_(ours + 0.1 * ours.std() * torch.randn(ours.shape, generator=noise, device=self.device))
        self.batch = make_batch(args.groups, *lengths, sizes["vocab_size"], self.device)
        self.policy.train()

    def _model(self, config: dict[str, Any], part: str) -> Any:
        torch.manual_seed(0)
        with torch.device(self.device):
            torch.set_default_dtype(self.dtype)
            model = Qwen2ForCausalLM(Qwen2Config(**config, max_position_embeddings=131072))
            torch.set_default_dtype(torch.float32)
        self.memory[part] = sum(p.numel() * p.element_size() for p in model.parameters()) / GIB
        return model

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> Any:
        return torch.autocast(self.device, self.dtype) if self.dtype is torch.bfloat16 else contextlib.nullcontext()

    def set_up(self, variant: Variant) -> None:
        for model in (self.policy, self.reference):
            model.set_attn_implementation(variant.attention)
            if variant.path == "packed" and not allow_packing(model):
                raise ValueError(f"{variant.attention} cannot be packed")
            unfuse(model)
            if variant.fused:
                fuse(model, rotary=not variant.kept)
        if variant.checkpointing:
            kept = {"context_fn": Recompute("none", self.shape, 2)} if variant.kept else {}
            self.policy.gradient_checkpointing_enable({"use_reentrant": False, **kept})
        else:
            self.policy.gradient_checkpointing_disable()
        self.policy.zero_grad(set_to_none=True)

    def update(self, variant: Variant, rows_in_all: int | None = None) -> tuple[float, int]:
        """Loss, summed over the micro-batches, with gradients left in the policy; and the tokens it was given."""
        path, cut = PATHS[variant.path]
        total, seen = 0.0, 0
        count: list[int] = []
        hook = self.policy.model.layers[0].register_forward_pre_hook(lambda _, states: count.append(states[0].numel()))
        with self.autocast():
            for start in range(0, rows_in_all or len(self.batch.ids), variant.rows):
                part = self.batch.part(start, variant.rows, cut=cut)
                with torch.no_grad():
                    reference = path(self.reference, part)
                loss = loss_of(path(self.policy, part), reference, part)
                seen += count[0] // self.shape.hidden
                loss.backward()
                count.clear()
                total += loss.detach()
        hook.remove()
        return float(total), seen

    def gradient(self) -> torch.Tensor:
        """The gradient of a few matrices that everything flows through, as one vector."""
        layers = self.policy.model.layers
        chosen = [layers[0].self_attn.q_proj, layers[-1].mlp.down_proj, layers[len(layers) // 2].self_attn.v_proj]
        return torch.cat([matrix.weight.grad.float().flatten() for matrix in chosen])

    def peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / GIB if self.device == "cuda" else None

    def reset_peak(self) -> float:
        if self.device != "cuda":
            return 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / GIB

    def optimizer(self) -> None:
        """AdamW's two moments in the weights' type, as a single process without ZeRO holds them."""
        self.memory["gradients"] = self.memory["optimizer"] = None
        if self.device == "cuda":
            before = torch.cuda.memory_allocated()
            for parameter in self.policy.parameters():
                parameter.grad = torch.zeros_like(parameter)
            middle = torch.cuda.memory_allocated()
            adam = torch.optim.AdamW(self.policy.parameters(), lr=0.0, fused=True)
            adam.step()
            self.memory |= {
                "gradients": (middle - before) / GIB, "optimizer": (torch.cuda.memory_allocated() - middle) / GIB
            }  # fmt: skip
            del adam
            self.policy.zero_grad(set_to_none=True)

    def ceiling(self) -> float:
        """TFLOP/s of the fastest of a few square matrix products."""
        best = 0.0
        for size in (4096, 8192) if self.device == "cuda" else (256,):
            a = torch.randn(size, size, device=self.device, dtype=self.dtype)
            for _ in range(4):
                self.wait()
                began = time.perf_counter()
                for _ in range(5):
                    a @ a
                self.wait()
                best = max(best, 5 * 2 * size**3 / (time.perf_counter() - began) / 1e12)
        return best

    def needed(self) -> float:
        """FLOPs that an update must do: real tokens, causal, no recomputation, reference included."""
        return sum(
            self.shape.training_flops(p + c, (p + c) / 2, c, checkpointing=False, reference=True, fused=False)
            for p, c in self.batch.lengths
        )


def unfuse(model: Any) -> None:
    """Take liger's kernels off again: it puts them on the instances, and its rotary function into the module."""
    for module in model.modules():
        if module._get_name().startswith("Liger"):
            for name in ("forward", "extra_repr", "_get_name"):
                vars(module).pop(name, None)
    modeling_qwen2.apply_rotary_pos_emb = ROTARY


def device_of(args: argparse.Namespace) -> str:
    return "cpu" if args.cpu or not torch.cuda.is_available() else "cuda"


def variants(*, small: bool, few: bool) -> Iterator[Variant]:
    """The first is what all others are compared with. flash_attention_2 is taken where its package is installed."""
    yield Variant("published")
    yield from (Variant(path) for path in ("trl", "rows", "packed"))
    if few:
        return
    yield from (Variant(path, checkpointing=False) for path in ("trl", "rows", "packed"))
    for number in (3,) if small else (1, 2, 3):
        yield from (Variant(path, rows=number) for path in ("rows", "packed"))
    yield Variant("packed", kept=True)
    yield Variant("rows", attention="eager")
    if not small:
        if is_liger_kernel_available():
            yield from (Variant("packed", kept=kept, fused=True) for kept in (False, True))
        from transformers.utils import is_flash_attn_2_available

        if is_flash_attn_2_available():
            yield from (Variant(path, attention="flash_attention_2") for path in ("published", "trl", "rows"))
        yield Variant("rows", attention="flex_attention")
        yield from (Variant(path, rows=12) for path in ("rows", "packed"))


class Results:
    """What was found of each variant."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.seconds: dict[str, list[float]] = {}
        self.tokens: dict[str, int] = {}
        self.peaks: dict[str, float | None] = {}
        self.apart: dict[str, tuple[float, float]] = {}  # loss and gradient, relative to the first variant's
        self.wrong: list[str] = []


def compare_losses(bench: Bench, todo: list[Variant], results: Results, until: float) -> list[Variant]:
    """Loss and gradient of one group, against the first variant's. Returns the variants that can be timed."""
    fine: list[Variant] = []
    first: tuple[float, torch.Tensor] | None = None
    tolerance = 1e-4 if bench.dtype is torch.float32 else 0.05
    for variant in todo:
        if time.monotonic() > until:
            results.said[variant.name] = "not tried: out of time"
            continue
        try:
            bench.set_up(variant)
            # several rows a micro-batch: one of them is needed to compare, whatever their number
            loss, _ = bench.update(replace(variant, rows=6), 6)
            gradient = bench.gradient()
        except torch.OutOfMemoryError:
            results.said[variant.name] = "out of memory"
            continue
        except (ImportError, ValueError, RuntimeError) as error:  # an attention that this machine cannot do
            results.said[variant.name] = f"cannot: {str(error).splitlines()[0][:80]}"
            continue
        first = first or (loss, gradient)
        apart = float((gradient - first[1]).norm() / first[1].norm())
        off = abs(loss - first[0]) / max(abs(first[0]), 0.1)
        results.said[variant.name] = f"loss {off:.1e}, gradient {apart:.1e} apart"
        results.apart[variant.name] = off, apart
        if not (off <= tolerance and apart <= tolerance * (2 if bench.dtype is torch.float32 else 3)):  # also for NaN
            results.wrong.append(f"{variant.name}: {results.said[variant.name]}: not the same update")
        fine.append(variant)
    return fine


def take_turns(bench: Bench, todo: list[Variant], repeats: int, results: Results, until: float) -> None:
    for _ in range(repeats):
        for variant in todo:
            if time.monotonic() > until or results.said[variant.name] == "out of memory":
                continue
            bench.set_up(variant)
            held = bench.reset_peak()
            bench.wait()
            began = time.perf_counter()
            try:
                _, tokens = bench.update(variant)
            except torch.OutOfMemoryError:
                results.said[variant.name] = "out of memory"
                continue
            bench.wait()
            results.seconds.setdefault(variant.name, []).append(time.perf_counter() - began)
            results.tokens[variant.name] = tokens
            peak = bench.peak()
            gradients = bench.memory["weights"] or 0.0
            results.peaks[variant.name] = None if peak is None else peak - held - gradients


def came_and_went(workload: Workload) -> float:
    """GiB that the planner gives an update beyond what is held all the time, its slack for the allocator left out."""
    return sum(p.bytes for p in trainer_parts(workload) if p.name in OF_AN_UPDATE[:-1]) / GIB


def planned(bench: Bench, variant: Variant) -> float:
    """The same for a variant and the benchmark's own lengths; packed rows count as one of all their real tokens."""
    micro, (prompt, completion) = variant.rows, bench.lengths
    if variant.path == "packed":  # the planner has no packing: one row of the longest group's real tokens
        groups = [bench.batch.lengths[start : start + micro] for start in range(0, len(bench.batch.lengths), micro)]
        longest = max(groups, key=lambda rows: sum(map(sum, rows)))
        micro, prompt, completion = 1, sum(p for p, _ in longest), sum(c for _, c in longest)
    return came_and_went(
        replace(
            workload_of(load("exp3"), find("A40")), shape=bench.shape, trained=bench.shape.parameters, micro=micro,
            prompt_cap=prompt, completion_cap=completion, checkpointing=variant.checkpointing,
            recompute="none" if variant.kept else "all",
        )
    )  # fmt: skip


def left_for_vllm(update: float) -> float:
    """GiB that exp3 (4 x A40, ZeRO-2, vLLM in each) leaves beside the planner's parts and this measured update."""
    asked = workload_of(load("exp3"), find("A40"))
    parts = [p for p in trainer_parts(asked) if p.name not in OF_AN_UPDATE and not p.name.startswith("vLLM")]
    return (asked.gpu.memory or 0.0) - sum(p.bytes for p in parts) / GIB - 1.1 * update


def parity(args: argparse.Namespace) -> int:
    """Losses and gradients of the four paths in each type; the exit code says whether all are the same update."""
    rows: list[list[object]] = [["type", "longest", "path", "loss", "gradient", "check"]]
    wrong: list[str] = []
    for dtype in args.dtypes:
        for halved in range(6):
            lengths = args.shape[0] >> halved, args.shape[1] >> halved
            results, todo = Results(), list(variants(small=args.small, few=True))
            with contextlib.suppress(torch.OutOfMemoryError):
                compare_losses(Bench(args, getattr(torch, dtype), lengths), todo, results, args.until)
            gc.collect()  # a model's hooks refer to it in circles
            if device_of(args) == "cuda":
                torch.cuda.empty_cache()
            if todo[0].name in results.apart or "out of time" in results.said.get(todo[0].name, ""):
                break
        wrong += [f"{dtype}: {text}" for text in results.wrong]
        for variant in todo:
            loss, gradient = results.apart.get(variant.name, (None, None))
            check = results.said.get(variant.name, "out of memory, however short")
            rows.append([dtype, "{} + {}".format(*lengths), variant.path, loss, gradient, check])
            if loss is None:
                wrong.append(f"{dtype}: {variant.path}: {check}")
    device = torch.cuda.get_device_name() if device_of(args) == "cuda" else "CPU"
    common.finish("gpu_step", args.json, {}, rows, device=device, wrong=wrong)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--small", action="store_true", help="a toy size")
    parser.add_argument("--groups", type=int, default=2, metavar="N", help="groups of 6 in an update (default 2)")
    parser.add_argument("--shape", type=int, nargs=2, metavar=("PROMPT", "COMPLETION"), help="longest (512 3584)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=540.0, metavar="S", help="no update begins later (default 540)"
    )
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    parser.add_argument("--few", action="store_true", help="the four paths alone, with checkpointing")
    parser.add_argument("--parity", action="store_true", help="only compare losses and gradients of the four paths")
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float32"), help="of --parity (both)")
    args = parser.parse_args()
    args.shape = args.shape or ([24, 448] if args.small else [512, 3584])
    args.dtypes = args.dtypes or ["bfloat16", "float32"]
    args.until = until = time.monotonic() + args.seconds
    if not args.small and device_of(args) == "cpu":
        sys.exit("gpu_step.py: no GPU here; --small --cpu runs on the CPU")
    if args.parity:
        return parity(args)
    dtype = torch.float32 if device_of(args) == "cpu" else torch.bfloat16
    bench, results = Bench(args, dtype, tuple(args.shape)), Results()
    ceiling, needed = bench.ceiling(), bench.needed()
    bench.optimizer()
    todo = list(variants(small=args.small, few=args.few))
    fine = compare_losses(bench, todo, results, until)
    take_turns(bench, fine, args.repeats, results, until)

    real = sum(p + c for p, c in bench.batch.lengths)
    base = todo[0].name
    rows: list[list[object]] = [["variant", "s/update", "of published", "tokens/s", "padding", "MFU", "GiB", "check"]]
    ratios = {}
    for variant in todo:
        name = variant.name
        if name not in results.seconds:
            rows.append([name, "-", "-", "-", "-", "-", "-", results.said[name]])
            continue
        seconds = common.spread(results.seconds[name])
        pairs = list(zip(results.seconds[name], results.seconds[base], strict=False))
        share = common.spread([a / b for a, b in pairs])
        peak = results.peaks[name]
        rows.append([
            name, seconds.median, share.median, real / seconds.median, f"{results.tokens[name] / real - 1:.0%}",
            f"{needed / seconds.median / 1e12 / ceiling:.1%}", "-" if peak is None else round(peak, 2),
            results.said[name],
        ])  # fmt: skip
        if variant == Variant(variant.path) and name != base:
            ratios[f"gpu_step/{variant.path}_of_published"] = share
    device = torch.cuda.get_device_name() if bench.device == "cuda" else "CPU"
    held = ", ".join(f"{part} {value:.2f}" for part, value in bench.memory.items() if value is not None)
    print(f"{device}: matrix product {ceiling:.3g} TFLOP/s; {real} real tokens an update; GiB: {held}")
    leaves = {name: left_for_vllm(peak) for name, peak in results.peaks.items() if peak is not None}
    for name, room in leaves.items():
        print(f"{name}: exp3 on A40s would leave {room:.1f} GiB for vLLM (wanted: 16)")
    memory = {
        v.name: {"measured": results.peaks.get(v.name), "planned": planned(bench, v)}
        for v in todo
        if v.path in {"rows", "packed"} and v.attention == "sdpa" and not v.fused
    }
    for name, sizes in memory.items():
        if sizes["measured"] is not None:
            print(f"{name}: an update takes {sizes['measured']:.2f} GiB, the planner says {sizes['planned']:.2f}")
    common.finish(
        "gpu_step", args.json, ratios, rows, device=device, clocks=common.clocks(), ceiling_tflops=ceiling,
        memory=bench.memory, update_memory=memory, left_for_vllm=leaves, real_tokens=real, wrong=results.wrong,
        wanted="packed at most 0.6 of published",
    )  # fmt: skip
    print(*results.wrong, sep="\n")
    return 1 if results.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
