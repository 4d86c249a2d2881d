"""vLLM (0.31), driven step by step, so that a sample is out of here the moment it is finished.

One seed a request, so a sample's random numbers do not depend on what runs beside it. Its logits do, in the last bits:
vLLM computes what is there in one batch, and a sum in another order is another float. So two runs may part somewhere in
a long completion, unless VLLM_BATCH_INVARIANT=1 is set on a GPU that vLLM has such kernels for.
"""

import os
from collections.abc import Iterator
from typing import Any

from openrs.data.tokenizer import ChatEncoder
from openrs.errors import UserError
from openrs.evaluation.sampling import EngineSettings, NextBatch, OnTokens, Request, Sample, finished
from openrs.run.vllm_env import vllm_environment

AT_ONCE = 256  # requests that vLLM computes together, at most
TOKENS_EACH = 8_000  # of the cache, for each of them: about what a reasoning model's long answers take


class VllmEngine:
    """The same arguments as TransformersEngine. Prompts are token ids; vLLM's tokenizer is never asked.

    Raises UserError when the model cannot be loaded, or does not fit into the GPU.
    """

    def __init__(self, settings: EngineSettings, encoder: ChatEncoder, stop_token_ids: frozenset[int]) -> None:
        libraries()
        from vllm import EngineArgs, SamplingParams
        from vllm.platforms import current_platform
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.llm_engine import LLMEngine

        on_cpu = current_platform.is_cpu()
        # On a CPU, vLLM 0.31 cannot take back the random number that a half-read prompt used up ("CPU Generator does
        # not use offset"), so there prompts are read whole.
        whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, settings.max_model_len)}
        self._params, self._final = SamplingParams, RequestOutputKind.FINAL_ONLY
        self._settings, self._encoder, self._stop_token_ids = settings, encoder, sorted(stop_token_ids)
        self._under_way: dict[str, Request] = {}
        arguments = EngineArgs(
            model=settings.model,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the model's own: its penalties and top_k must not slip in
            max_model_len=settings.max_model_len,
            max_num_seqs=AT_ONCE,
            gpu_memory_utilization=settings.gpu_memory,
            enable_prefix_caching=True,  # n samples of a problem read its prompt once
            enforce_eager=on_cpu,
            disable_log_stats=True,
            seed=0,
            **(whole if on_cpu else {}),
        )
        try:
            self._engine = LLMEngine.from_engine_args(arguments)
            cache = self._engine.vllm_config.cache_config.kv_cache_size_tokens
            self._at_once = requests_at_once(cache, settings.max_model_len)
        except (OSError, ValueError, RuntimeError) as error:  # no weights, a window that does not fit, no memory
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"vLLM cannot load {settings.model}: {reason}",
                fix="see the engine's log; less memory: --gpu-memory; without vLLM: --engine transformers",
            ) from None

    def generate(self, next_batch: NextBatch, on_tokens: OnTokens) -> Iterator[list[Sample]]:
        while True:
            while len(self._under_way) < self._at_once and (batch := next_batch()) is not None:
                for request in batch:
                    self._add(request)
            if not self._under_way:
                return
            done = [self._sample(output) for output in self._engine.step() if output.finished]
            on_tokens(sum(sample.tokens for sample in done))  # 0: vLLM is asked for finished completions only
            if done:
                yield done

    def close(self) -> None:
        del self._engine

    def _add(self, request: Request) -> None:
        from vllm.inputs import TokensPrompt

        sampled = self._settings.temperature > 0
        params = self._params(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p if sampled else 1.0,
            max_tokens=request.max_new_tokens,
            seed=request.seed if sampled else None,
            stop_token_ids=self._stop_token_ids,
            detokenize=False,
            output_kind=self._final,
        )
        name = "/".join(map(str, request.key))
        self._under_way[name] = request
        self._engine.add_request(name, TokensPrompt(prompt_token_ids=list(request.ids)), params)

    def _sample(self, output: Any) -> Sample:
        request = self._under_way.pop(output.request_id)
        (completion,) = output.outputs
        tokens = list(completion.token_ids)
        finish = "stop" if completion.finish_reason == "stop" else "length"
        return finished(request, tokens, finish, self._encoder.decode(tokens))


def requests_at_once(cache_tokens: int, max_model_len: int) -> int:
    """How many requests vLLM is given together, for a KV cache of so many tokens: as many as will probably fit in it at
    their end. With more it starts them, finds the cache full, and computes what it threw away again."""
    return max(1, min(AT_ONCE, cache_tokens // min(TOKENS_EACH, max_model_len)))


def libraries() -> None:
    """Import vLLM, set up as it is used here: it reads these when it is imported."""
    # One process a GPU: nothing is left over when it is killed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.update(vllm_environment(os.environ))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    import vllm.v1.engine.llm_engine  # noqa: F401
