"""A stand-in for colocated vLLM 0.31, not vLLM: what its V2 model runner does to its process's random numbers, and the
weights that it is sent. TRL's own VLLMGeneration is on top of it.

As there: the engine seeds python, numpy and torch of its process with its own seed (v1/worker/gpu_worker.py), and a
request without a seed gets one from numpy's global generator (v1/worker/gpu/sample/states.py).
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from transformers import set_seed


class SamplingParams:
    def __init__(self, **settings: Any) -> None:
        self.seed, self.max_tokens = settings.pop("seed", None), settings["max_tokens"]


class LLM:
    """Completions are noise from each request's seed; the canary's questions get other numbers each time."""

    def __init__(self, seed: int, **_: Any) -> None:
        set_seed(seed)
        self.loaded: dict[str, Any] = {}
        self._asked = 0
        model = SimpleNamespace(load_weights=lambda pairs: self.loaded.update({n: w.clone() for n, w in pairs}))
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=model))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))

    def reset_prefix_cache(self) -> None:
        pass

    def sleep(self, level: int) -> None:
        pass

    def wake_up(self, tags: list[str]) -> None:
        pass

    def generate(self, requests: list[dict[str, list[int]]], sampling_params: SamplingParams, **_: Any) -> list[Any]:
        self._asked += 1
        return [self._answer(request["prompt_token_ids"], sampling_params) for request in requests]

    def _answer(self, ids: list[int], params: SamplingParams) -> SimpleNamespace:
        seed = np.random.randint(2**31) if params.seed is None else params.seed
        tokens = np.random.default_rng(seed).integers(4, 16, size=params.max_tokens).tolist()
        logprobs = [{token: SimpleNamespace(logprob=-1.0, rank=1)} for token in tokens]
        scores = [{token: SimpleNamespace(logprob=-float(self._asked))} for token in ids]
        answer = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=ids, outputs=[answer], prompt_logprobs=scores)


def install(replace: Any = setattr) -> None:
    """Put it where TRL and the canary look. `replace`: monkeypatch.setattr's place."""
    from trl.generation import vllm_generation

    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.SamplingParams = SamplingParams  # type: ignore[attr-defined]
    for name, value in {"LLM": LLM, "SamplingParams": SamplingParams, "is_vllm_available": lambda: True}.items():
        replace(vllm_generation, name, value)
    sys.modules["vllm"] = module


def in_a_fork() -> None:
    """A fault for runs.start: the training process is a fork, and its vLLM this one."""
    import runs

    from openrs.training import cpu

    runs.fork_ranks()
    cpu.keep_vllm_weights_loadable = lambda: None
    install()
