"""Seconds of a step, part by part, and the assumptions they rest on. Formulas and their sources: docs/planning.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.planner.gpus import Gpu
from openrs.planner.memory import SERVER_TOKENS, disk, engine, engine_of, kept_layers
from openrs.planner.shapes import Shape
from openrs.planner.workload import Workload

REASONS = {
    "decode_bandwidth": "share of the memory's speed that decoding reaches; with decode_overhead it gives the authors'"
    " evaluation times on an A40 (five runs of 379 to 541 s on AIME24 and AMC23) within 16 %",
    "decode_overhead": "seconds of scheduler, sampling and launches per decoded token; from the same logs (vLLM 0.7.2)",
    "drafted": "tokens of a decoding step with hardware.draft_tokens: 4 drafts by n-grams of 2 to 4 on 93"
    " answers of R1-Distill models of up to 1,000 tokens, nearly greedy; 1.55 expected of longer ones, 1.8 would pay",
    "draft_overhead": "decode_overhead with drafts: vLLM 0.31 goes back to its older runner, without async scheduling",
    "layer_overhead": "seconds per layer and decoded token where transformers generates: launches, not arithmetic",
    "prefill_flops": "share of peak for prompts and for large decode batches: large matrix products alone",
    "train_flops": "share of peak in forward and backward with padding: transformers without compiled kernels on 1.5B,"
    " checkpointing counted as work; what is left of the authors' 172.8 s after decoding asks for 0.3 to 0.4",
    "dealt": "share of the update's arithmetic that is left with hardware.deal_by_length: the busiest of four processes"
    " has 1.067 times the mean's tokens, 1.015 when they are dealt (simulated); train_flops has the waiting in it",
    "fused": "share of the update's arithmetic that is left with hardware.fused_kernels: by bytes they save 2.1 s of"
    " exp3's 17 on four A40 (22 of the 37 MB a token that move outside of matrix products); half of that is taken",
    "link": "share of the link's one-way speed in an all-reduce; over PCIe without P2P NCCL goes through host memory",
    "sync": "times a plain copy of the weights that handing them to vLLM takes: TRL sends them one by one",
    "reward_seconds": "seconds to judge one completion in one process: math-verify 0.5.2, 12,000 characters, measured",
    "length": "mean completion as a share of the cap: 2,800 of 3,584 tokens at the start of exp2 and exp3 (paper)",
    "prompt": "mean prompt in tokens: DeepScaleR's 40,315 problems with the training prompt, measured",
    "disk": "bytes a second of a rented NVMe volume, written and fsynced",
    "startup": "seconds to load libraries, weights and vLLM: 155 to 167 in the authors' logs, and compilation",
}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the planner takes for granted; REASONS says why. Shares are of the data sheet's figure."""

    decode_bandwidth: float = 0.80
    decode_overhead: float = 2.8e-3
    drafted: float = 1.35
    draft_overhead: float = 4.0e-3
    layer_overhead: float = 1.0e-3
    prefill_flops: float = 0.50
    train_flops: float = 0.35
    dealt: float = 0.95
    fused: float = 0.94
    link: float = 0.30
    sync: float = 2.0
    reward_seconds: float = 0.02
    length: float = 0.78
    prompt: float = 187.0
    disk: float = 0.5e9
    startup: float = 180.0


ASSUMED = Assumptions()
FAVOURABLE = {"decode_overhead": 1.0e-3, "train_flops": 0.43}
"""The other end of what is least known: vLLM's V1 engine prepares a batch while the last one runs (0.7.2 did not), and
the roofline of the executed graph of exp3's update gives 0.43 (docs/planning.md). Nothing of it is measured."""
PARTS = ("generation", "reward", "update", "sync", "checkpoint")
"""Parts of a step, as metrics.jsonl names them (time/generation ...)."""


def tokens_of(workload: Workload, assumed: Assumptions) -> tuple[float, float]:
    """Mean prompt and mean completion in tokens."""
    return min(assumed.prompt, float(workload.prompt_cap)), assumed.length * workload.completion_cap


def useful_flops(workload: Workload, assumed: Assumptions = ASSUMED) -> float:
    """FLOPs of one optimizer step over all GPUs without padding (the paper's 3.6e15)."""
    prompt, completion = tokens_of(workload, assumed)
    return workload.completions * _sequence_flops(workload, prompt + completion, (prompt + completion) / 2, completion)


def executed_flops(workload: Workload, assumed: Assumptions = ASSUMED) -> float:
    """FLOPs that the GPUs really do in an optimizer step.

    Packed rows (openrs.training.logprobs) hold no padding; otherwise every sequence is computed as long as the longest,
    which is taken to reach the cap.
    """
    prompt, completion = tokens_of(workload, assumed)
    if workload.packed:
        length = prompt + completion
        context = (prompt**2 + 2 * prompt * completion + mean_square(completion, workload.completion_cap)) / length / 2
    else:
        length = prompt + workload.completion_cap
        context = length / 2 if workload.flash else length
    return workload.completions * _sequence_flops(workload, length, context, completion)


def mean_square(completion: float, cap: float) -> float:
    """Mean square length of completions: halfway between equal lengths (m^2) and all-or-nothing ones (m x cap)."""
    return completion * (completion + cap) / 2


def _sequence_flops(workload: Workload, length: float, context: float, head_tokens: float) -> float:
    return workload.shape.training_flops(
        length,
        context,
        head_tokens,
        checkpointing=workload.checkpointing,
        reference=workload.reference,
        fused=workload.fused_head,
        kept=kept_layers(workload, max(1, round(workload.micro * length))) / workload.shape.layers,
    )


def step_seconds(workload: Workload, assumed: Assumptions = ASSUMED) -> dict[str, float] | None:
    """Seconds of one optimizer step by part (PARTS), or None for a GPU whose figures are unknown."""
    gpu = workload.gpu
    if gpu.bandwidth is None or gpu.tflops is None or gpu.link is None:
        return None
    weights = workload.shape.parameters * workload.element
    link = gpu.link * 1e9 * assumed.link
    if not workload.vllm:
        sync = 0.0
    elif workload.layout is Layout.SPLIT:
        sync = weights / link
    else:  # read and written once more inside the GPU
        sync = 2 * weights / (gpu.bandwidth * 1e9 * assumed.decode_bandwidth)
    arithmetic = executed_flops(workload, assumed) / (workload.trainers * gpu.tflops * 1e12 * assumed.train_flops)
    hardware = workload.recipe.hardware
    if hardware.deal_by_length and workload.trainers > 1:
        arithmetic *= assumed.dealt
    if hardware.fused_kernels:
        arithmetic *= assumed.fused
    return {
        "generation": generation_seconds(workload, assumed),
        "reward": workload.completions * assumed.reward_seconds / workload.judges,
        "update": arithmetic + exchanged_bytes(workload) / link,
        "sync": sync * assumed.sync,
        "checkpoint": disk(workload).checkpoint / assumed.disk / grpo_value(workload.recipe, "save_steps"),
    }


def generation_seconds(workload: Workload, assumed: Assumptions = ASSUMED) -> float:
    """Seconds of all generation calls of a step on the slowest generator.

    A call lasts as many decoding steps as its longest completion, taken to reach the cap. A step reads all weights but
    the embedding once, and the KV cache of what is there so far; many sequences at once make it bound by FLOPs.
    """
    prompt, completion = tokens_of(workload, assumed)
    shape, gpu, element, cap = workload.shape, workload.gpu, workload.element, workload.completion_cap
    there, at_once = engine_of(workload), workload.batch
    if there is not None:
        at_once = max(1, min(at_once, int(there.kv_tokens // (prompt + completion))))
    steps: float = math.ceil(workload.batch / at_once) * cap
    computed, decoding = float(at_once), assumed
    if drafts := workload.recipe.hardware.draft_tokens:  # a step reads the weights for all drafts and the token after
        steps, computed = steps / assumed.drafted, at_once * (1 + drafts)
        decoding = replace(assumed, decode_overhead=assumed.draft_overhead)
    one = decoding_step(shape, gpu, computed, decoding, element=element, vllm=workload.vllm)
    rest = cache_and_prefill(shape, gpu, prompt, completion, cap=cap, assumed=assumed, element=element)
    return workload.calls * (steps * one + workload.batch * rest)


def decoding_step(
    shape: Shape, gpu: Gpu, at_once: float, assumed: Assumptions, *, element: int = 2, vllm: bool = True
) -> float:
    """Seconds of one decoding step of `at_once` sequences, the KV cache left out. The GPU's figures must be known."""
    assert gpu.bandwidth is not None
    assert gpu.tflops is not None
    overhead = assumed.decode_overhead if vllm else assumed.layer_overhead * shape.layers
    return overhead + max(
        shape.read_per_token * element / (gpu.bandwidth * 1e9 * assumed.decode_bandwidth),
        2 * shape.read_per_token * at_once / (gpu.tflops * 1e12 * assumed.prefill_flops),
    )


def cache_and_prefill(
    shape: Shape, gpu: Gpu, prompt: float, completion: float, *, cap: int, assumed: Assumptions, element: int = 2
) -> float:
    """Seconds that one sequence costs beyond the decoding steps: reading its KV cache, and its prompt."""
    assert gpu.bandwidth is not None
    assert gpu.tflops is not None
    read = (prompt * completion + mean_square(completion, cap) / 2) * shape.kv_bytes(element)
    prefill = (shape.layer_flops(prompt, prompt / 2) + shape.head_flops(1)) / (
        gpu.tflops * 1e12 * assumed.prefill_flops
    )
    return read / (gpu.bandwidth * 1e9 * assumed.decode_bandwidth) + prefill


def exchanged_bytes(workload: Workload) -> float:
    """Bytes of gradients and weights that one GPU sends in a step.

    DeepSpeed's ZeRO-2 all-reduces every bucket of every micro-batch (use_multi_rank_bucket_allreduce, zero/config.py
    of 0.19), not behind the backward (overlap_comm is off for stage 2), and gathers weights once; stage 1 holds whole
    gradients and all-reduces them once a step. So does plain data parallelism, which gathers nothing.
    """
    whole, share = workload.trained * workload.element, (workload.trainers - 1) / workload.trainers
    reduced = 2 * whole * share * (workload.accumulation if workload.zero == 2 else 1)
    return reduced + (whole * share if workload.zero else 0)


def favourable(assumed: Assumptions) -> Assumptions:
    """The fast end of the range: FAVOURABLE, wherever a value is still assumed and neither measured nor given."""
    open_ = {name: value for name, value in FAVOURABLE.items() if getattr(assumed, name) == getattr(ASSUMED, name)}
    return replace(assumed, **open_)


# --- an evaluation ----------------------------------------------------------------------------------------------------

# Nine of ten of the authors' 69 logged evaluations on one A40 took between LEAST and MOST times what the formula says
# (tests/study/test_plan.py); other GPUs were not tried.
LEAST, MOST = 0.45, 1.25  # measured over planned
AT_ONCE = 256  # sequences that vLLM computes together (openrs/evaluation/vllm_engine.py)
UTILISATION = 0.9  # of a GPU's memory: evaluation.gpu_memory
PROMPT = 150.0  # tokens of a benchmark's question with the paper's query


@dataclass(frozen=True, slots=True)
class Draws:
    """Completions that are drawn of one kind: how many, and their mean length in tokens."""

    count: int
    tokens: float


def evaluation_seconds(
    shape: Shape, gpu: Gpu, gpus: int, draws: Sequence[Draws], *, cap: int, assumed: Assumptions = ASSUMED
) -> float | None:
    """Seconds of one evaluation, an engine a GPU; None for a GPU whose figures are unknown, infinite where the model
    does not fit. cap: the longest completion in tokens.

    While all places are taken, decoding takes all tokens / places steps; then the longest completion ends alone, which
    is taken to reach the cap. With as many places as sequences that is the formula of a training's generation.
    """
    if gpu.bandwidth is None or gpu.tflops is None or gpu.memory is None or gpu.measured_only:
        return None
    count, tokens = sum(one.count for one in draws), sum(one.count * one.tokens for one in draws)
    if not count:
        return 0.0
    engines = max(1, gpus)
    mean = tokens / count
    room = engine(shape, gpu.memory, UTILISATION, SERVER_TOKENS[gpu.memory >= 70]).kv_tokens
    at_once = min(AT_ONCE, math.ceil(count / engines), room / (PROMPT + mean))
    if at_once < 1:
        return math.inf
    steps = tokens / engines / at_once + max(0.0, cap - mean)
    rest = (
        sum(one.count * cache_and_prefill(shape, gpu, PROMPT, one.tokens, cap=cap, assumed=assumed) for one in draws)
        / engines
    )
    return assumed.startup + steps * decoding_step(shape, gpu, at_once, assumed) + rest
