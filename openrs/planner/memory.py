"""GPU memory, disk and RAM of a workload, part by part, in bytes. Formulas and their sources: docs/planning.md."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from openrs.config.names import Layout
from openrs.planner.shapes import Shape
from openrs.planner.workload import Workload
from openrs.run import retention
from openrs.run.units import GIB

CONTEXT = 1.0 * GIB  # CUDA context, kernels, cuBLAS workspaces, NCCL buffers: 0.5 to 1.2 GiB on Ampere
BUCKET = 500_000_000  # elements: DeepSpeed's default reduce_bucket_size
SLACK = 0.1  # of what comes and goes: what the caching allocator loses to fragments
HEAD_TILE = 4096 * 32768  # TRL 1.16 kernels/chunked_logprob.py: TOKEN_CHUNK_SIZE x _CHUNKED_LOGPROB_CHUNK_SIZE
GRAPHS = 0.4 * GIB  # vLLM's CUDA graphs, captured outside of its budget
OUTSIDE_TORCH = 0.1 * GIB  # vLLM's own context, inside of its budget
COLOCATED_TOKENS = 4096  # max_num_batched_tokens, as TRL 1.16 sets it (generation/vllm_generation.py)
SERVER_TOKENS = (2048, 8192)  # the server's default, on GPUs below 70 GiB and from there (vllm engine/arg_utils.py)
BLOCK = 16  # tokens in a vLLM block

Phase = Literal["always", "update", "generation"]


class Part(NamedTuple):
    """One consumer of a GPU's memory. phase: held always, only while updating, or only while generating."""

    name: str
    bytes: float
    phase: Phase = "always"


class Engine(NamedTuple):
    """vLLM on one GPU. budget = utilisation x the GPU's memory = weights + activations + outside + kv (bytes)."""

    weights: float
    activations: float
    kv: float
    kv_tokens: int


def engine(shape: Shape, memory_gib: float, utilisation: float, batched_tokens: int, element: int = 2) -> Engine:
    """What vLLM makes of its share of a GPU (vllm/v1/worker/gpu_worker.py, determine_available_memory).

    Activations of its profiling run: gate and up projections together, their product, and four hidden states a token.
    kv is below zero when the budget does not even hold the weights.
    """
    weights = float(shape.parameters * element)
    activations = float(batched_tokens * (3 * shape.intermediate + 4 * shape.hidden) * element)
    kv = memory_gib * GIB * utilisation - weights - activations - OUTSIDE_TORCH
    blocks = max(0, int(kv // (BLOCK * shape.kv_bytes(element))))
    return Engine(weights, activations, kv, blocks * BLOCK)


def profiled_tokens(workload: Workload, memory_gib: float) -> int:
    """Tokens that vLLM's profiling run computes at once on a GPU of so many GiB."""
    return SERVER_TOKENS[memory_gib >= 70] if workload.layout is Layout.SPLIT else COLOCATED_TOKENS


def engine_of(workload: Workload) -> Engine | None:
    """The workload's vLLM on its own GPU, or None where transformers generates or the GPU's memory is unknown."""
    if not workload.vllm or workload.gpu.memory is None:
        return None
    tokens = profiled_tokens(workload, workload.gpu.memory)
    return engine(workload.shape, workload.gpu.memory, workload.utilisation, tokens, workload.element)


def trainer_parts(workload: Workload) -> list[Part]:
    """Memory of one training GPU at the longest prompt and completion that the recipe allows."""
    shape, element = workload.shape, workload.element
    length = workload.longest
    libraries = (
        Part("Python, libraries", 0.5 * GIB) if workload.gpu.measured_only else Part("CUDA context, NCCL", CONTEXT)
    )
    parts = [
        libraries,
        Part("weights", float(shape.parameters * element + (0 if workload.full else workload.trained * element))),
        Part("reference model", float(shape.parameters * element if workload.reference else 0)),
        *_optimizer(workload),
    ]
    sizes, checkpointing = (workload.micro, length, element), workload.checkpointing
    saved = float(shape.saved_bytes(*sizes, checkpointing=checkpointing))
    layer = shape.layer_workspace(*sizes, checkpointing=checkpointing)
    tokens = workload.micro * length
    layers, one = kept_layers(workload, tokens), tokens * shape.kept_per_layer(element)
    kept = float(layers * one)
    layer -= one if layers else 0  # what the last layer kept is part of its backward
    workspace = max(float(layer), logits_bytes(workload))  # the head's backward is over when the last layer's begins
    parts += [
        Part("activations", saved, "update"),
        Part("kept of layers", kept, "update"),
        Part("backward of a layer or head", workspace, "update"),
        Part("allocator's slack", SLACK * (saved + kept + workspace), "update"),
    ]
    if not workload.vllm:
        rows = workload.micro * workload.accumulation // workload.calls
        return [*parts, Part("KV cache (transformers)", float(rows * length * shape.kv_bytes(element)), "generation")]
    if workload.layout is Layout.SPLIT:
        return parts
    return [*parts, *_engine_parts(workload, "generation" if workload.sleep else "always")]


def generator_parts(workload: Workload) -> list[Part]:
    """Memory of the split layout's generating GPU; empty in other layouts."""
    return _engine_parts(workload, "always") if workload.layout is Layout.SPLIT and workload.vllm else []


def _engine_parts(workload: Workload, phase: Phase) -> list[Part]:
    there = engine_of(workload)
    if there is None:
        return []
    return [
        Part("vLLM weights", there.weights, phase),
        Part("vLLM activations", there.activations + OUTSIDE_TORCH, phase),
        Part("vLLM KV cache", max(0.0, there.kv), phase),
        Part("vLLM CUDA graphs", GRAPHS),
    ]


def _optimizer(workload: Workload) -> list[Part]:
    """Gradients and AdamW. ZeRO shares out fp32 master weights and both moments (12 bytes a weight), stage 2 gradients
    too."""
    if workload.zero:
        shard = workload.trained / workload.trainers
        bucket = min(2 * BUCKET, workload.trained) * workload.element  # a bucket, and its copy that is reduced
        gradients = shard if workload.zero == 2 else workload.trained
        return [
            Part(f"gradients{' (shard)' if workload.zero == 2 else ''}", float(gradients * workload.element)),
            Part("optimizer (shard)", shard * 12),
            Part("gradient buckets", float(bucket), "update"),
        ]
    copies = 2 if workload.trainers > 1 else 1  # DDP's buckets are a second copy
    return [
        Part("gradients", float(copies * workload.trained * workload.element)),
        Part("optimizer", float(2 * workload.trained * workload.element)),
    ]


def layers_within(free: float, tokens: int, shape: Shape, element: int) -> int:
    """How many layers may keep their matrix products and attention in `free` bytes (hardware.recompute: auto).

    What the micro-batch needs with none kept comes off first, and the allocator's slack: it backs off before memory
    runs out, never after.
    """
    needed = shape.saved_bytes(1, tokens, element, checkpointing=True) + max(
        shape.layer_workspace(1, tokens, element, checkpointing=True), shape.head * (4 + element)
    )
    left = free / (1 + SLACK) - needed
    return max(0, min(shape.layers, int(left // (tokens * shape.kept_per_layer(element)))))


def kept_layers(workload: Workload, tokens: int) -> int:
    """Layers that are not recomputed in a micro-batch of so many tokens."""
    layers = workload.shape.layers
    if not workload.checkpointing or workload.recompute == "all":
        return 0
    if workload.recompute == "auto":
        if workload.gpu.memory is None:
            return 0
        held = sum(part.bytes for part in _optimizer(workload)) + CONTEXT + GRAPHS * workload.vllm
        held += workload.shape.parameters * workload.element * (1 + workload.reference)
        if workload.vllm and workload.layout is Layout.COLOCATE and not workload.sleep:
            held += workload.utilisation * workload.gpu.memory * GIB
        return layers_within(workload.gpu.memory * GIB - held, tokens, workload.shape, workload.element)
    return layers if workload.recompute == "none" else max(0, layers - int(workload.recompute))


def logits_bytes(workload: Workload) -> float:
    """Memory of the LM head's outputs in a micro-batch, for the longest completions.

    Whole: all logits in the weights' type, and again for their gradient. Fused: a tile of them, and the fp32 gradients
    of the head's weights and inputs, which TRL 1.16 holds until they are rounded.
    """
    tokens = workload.micro * workload.completion_cap
    if not workload.fused_head:
        return 2.0 * tokens * workload.shape.vocab * workload.element
    tile = min(HEAD_TILE, tokens * workload.shape.vocab) * workload.element
    weights = workload.shape.head * (4 + workload.element) if workload.full else 0
    return float(tile + weights + tokens * workload.shape.hidden * (4 + workload.element))


def peak(parts: list[Part]) -> float:
    """Bytes in use at the worst moment: what is always held, and the larger of the two phases."""
    held = {phase: sum(p.bytes for p in parts if p.phase == phase) for phase in ("always", "update", "generation")}
    return held["always"] + max(held["update"], held["generation"])


def fits(workload: Workload) -> bool | None:
    """Whether the workload fits on its GPUs, vLLM's cache for one whole sequence included; None for an unknown GPU."""
    if workload.gpu.memory is None:
        return None
    there = engine_of(workload)
    if there is not None and there.kv_tokens < workload.window:
        return False  # vLLM refuses to start when one sequence of the longest length does not fit
    room = workload.gpu.memory * GIB
    return peak(trainer_parts(workload)) <= room and peak(generator_parts(workload)) <= room


def largest(workload: Workload) -> tuple[int, int]:
    """The largest micro-batch at the recipe's length, and the longest completion at the recipe's micro-batch.

    0 when not even one sequence, or one token, fits.
    """

    def longer(tokens: int) -> Workload:
        return replace(workload, completion_cap=tokens, window=max(workload.window, workload.prompt_cap + tokens))

    return _largest(lambda n: replace(workload, micro=n), 4096), _largest(longer, 1_000_000)


def _largest(make: Callable[[int], Workload], limit: int) -> int:
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(make(middle)) else (low, middle - 1)
    return low


class Disk(NamedTuple):
    """Bytes. checkpoint: one of them. run: the volume of runs/ at its fullest. cache: models that are fetched."""

    checkpoint: float
    run: float
    cache: float


def disk(workload: Workload) -> Disk:
    """A ZeRO checkpoint holds fp32 weights and moments (12), DeepSpeed's copy of the weights and the safetensors.

    The fullest moment: those that are kept at the end (openrs.run.retention), and one more that is being written before
    an old one goes. With `training.old_weights_only` the older of them are weights alone.
    """
    weights = workload.trained * workload.element
    checkpoint = float(workload.trained * 12 + 2 * weights if workload.zero else 3 * weights)
    recipe = workload.recipe
    kept = retention.kept(recipe, retention.saved(recipe))  # before anything is evaluated
    older = len(kept.older) * (weights if recipe.training.old_weights_only else checkpoint)
    records = recipe.last_step * 64e3  # metrics, and eight completions a step in parquet
    return Disk(
        checkpoint,
        (len(kept.newest) + 1) * checkpoint + older + records,
        float(workload.shape.parameters * workload.element),
    )


def host_bytes(workload: Workload) -> float:
    """RAM of the node: each process about 6 GiB of libraries and pinned buffers and once the weights while loading; the
    server likewise; the judges at their limit; 4 GiB for the data and the launcher."""
    processes = workload.trainers + (workload.layout is Layout.SPLIT)
    each = 6 * GIB if workload.gpu.memory is not None else 1 * GIB  # without CUDA's libraries
    weights = workload.shape.parameters * workload.element
    judges = workload.judges * workload.recipe.rewards.memory_gib * GIB
    return processes * (each + weights) + judges + (4 if workload.gpu.memory else 1) * GIB
