"""What an evaluation takes on given GPUs: loading, and decoding with an engine whose places are filled again at once.

The constants are those of a training's generation (times.py). Nine of ten of the authors' 69 logged evaluations on one
A40 took between LEAST and MOST times what the formula says (tests/study/test_plan.py); other GPUs were not tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from openrs.planner.gpus import Gpu
from openrs.planner.memory import SERVER_TOKENS, engine
from openrs.planner.shapes import Shape
from openrs.planner.times import ASSUMED, Assumptions, cache_and_prefill, decoding_step

AT_ONCE = 256  # sequences that vLLM computes together (openrs/evaluation/vllm_engine.py)
UTILISATION = 0.9  # of a GPU's memory: evaluation.gpu_memory
PROMPT = 150.0  # tokens of a benchmark's question with the paper's query
LEAST, MOST = 0.45, 1.25  # measured over planned


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
