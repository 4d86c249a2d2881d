"""What vLLM is told beyond TRL's own arguments, in both layouts; and the split layout's generator: vLLM's own server on
a GPU of its own, started, waited for and ended by openrs.

TRL 1.16 sends the server prompts over HTTP and weights over NCCL (trl/generation/vllm_client.py, which names the
options). It gives colocated vLLM no dtype, so that a float32 policy would be sampled from its bfloat16 rounding
(docs/training.md, The canary).
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.errors import RunFailure
from openrs.planner.workload import ALONE
from openrs.run.files import last_lines
from openrs.run.processes import Child
from openrs.run.vllm_env import vllm_environment

HOST = "127.0.0.1"  # the server takes weights and commands from whoever reaches it
NGRAMS = {"prompt_lookup_min": 2, "prompt_lookup_max": 4}  # tokens of the text's end that are looked for earlier in it


def autocast(recipe: Recipe) -> str | None:
    """The dtype that mixed precision computes in; None without mixed precision. TRL reads an unset bf16 as on."""
    if grpo_value(recipe, "fp16"):
        return "float16"
    bf16 = grpo_value(recipe, "bf16")
    return "bfloat16" if bf16 or bf16 is None else None


def vllm_arguments(recipe: Recipe) -> dict[str, Any]:
    """Arguments of vLLM's LLM. Drafts come from the text so far, so vLLM's rejection sampler takes one with the
    probability that the policy gives it, and draws from the rest otherwise: the policy's own distribution."""
    arguments: dict[str, Any] = {"dtype": autocast(recipe) or recipe.model.dtype}
    if recipe.hardware.draft_tokens:
        number = recipe.hardware.draft_tokens
        arguments["speculative_config"] = {"method": "ngram", "num_speculative_tokens": number, **NGRAMS}
    return arguments


def set_colocated_arguments(recipe: Recipe) -> None:
    """Make the LLM that TRL is about to construct in this process one with the recipe's arguments."""
    if grpo_value(recipe, "use_vllm") and recipe.hardware.layout is not Layout.SPLIT:
        from trl.generation import vllm_generation

        vllm_generation.LLM = partial(vllm_generation.LLM, **vllm_arguments(recipe))


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server answers, and the port on which trainer and server meet for the weights."""

    port: int
    group_port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def command(recipe: Recipe, model: str, port: int | str) -> list[str]:
    """`vllm serve` as TRL 1.16 needs it (VLLMClient's docstring), with the recipe's window, share of memory and seed.

    A GPU of its own gets at least the paper's share of it (0.7), whatever the recipe says for colocated vLLM.
    """
    window = recipe.grpo.get("vllm_max_model_length")
    arguments = vllm_arguments(recipe)
    options = {
        "--host": HOST,
        "--port": port,
        "--served-model-name": "policy",
        "--dtype": arguments["dtype"],
        "--seed": grpo_value(recipe, "seed"),
        "--gpu-memory-utilization": max(ALONE, grpo_value(recipe, "vllm_gpu_memory_utilization")),
        "--generation-config": "vllm",  # no sampling defaults from the model's folder: TRL sends all of them
        "--weight-transfer-config": json.dumps({"backend": "nccl"}),
        "--logprobs-mode": "processed_logprobs",
        "--max-logprobs": -1,
    }
    if "speculative_config" in arguments:
        options["--speculative-config"] = json.dumps(arguments["speculative_config"])
    if window is not None:
        options["--max-model-len"] = window
    words = [str(word) for option in options.items() for word in option]
    trusting = ["--trust-remote-code"] if recipe.model.trust_remote_code else []
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, *words, *trusting]


def environment(device: str | None) -> dict[str, str]:
    """What the server's environment has beyond ours. `device`: its GPU, as CUDA_VISIBLE_DEVICES names it."""
    settings = {
        "OMP_NUM_THREADS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # opens the routes that take weights
        "VLLM_HOST_IP": HOST,
        "HF_HUB_OFFLINE": "1",  # the model is a folder
    } | vllm_environment(os.environ)
    return settings if device is None else {"CUDA_VISIBLE_DEVICES": device, **settings}


class Server(Child):
    """A running server. It ends with `stop`, and when this process is gone."""

    def __init__(self, words: list[str], settings: dict[str, str], address: Address, log: Path) -> None:
        self.address, self.log = address, log
        super().__init__(words, settings, log, all_to_log=True, grace=15.0)

    def wait_healthy(self, seconds: float, between: Callable[[], None] = lambda: None) -> float:
        """Wait until it answers; returns how long that took. `between` is called twice a second.

        Raises RunFailure when it ends instead, or does not answer in `seconds`.
        """
        began = time.monotonic()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # HTTP_PROXY is not for this machine
        while time.monotonic() - began < seconds:
            self.check()
            try:
                with direct.open(f"{self.address.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return time.monotonic() - began
            except (urllib.error.URLError, OSError):
                pass  # not yet
            between()
            time.sleep(0.5)
        raise RunFailure(
            f"the vLLM server did not answer within {seconds:g} s",
            self._last_output(),
            f"read {self.log}; --set grpo.vllm_server_timeout={2 * seconds:g} waits longer",
        )

    def check(self) -> None:
        """Raises RunFailure when the server is dead."""
        code = self.wait()
        if code is not None:
            how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            raise RunFailure(
                f"the vLLM server {how}",
                self._last_output(),
                f"read {self.log}; the same command resumes from the last complete checkpoint",
            )

    def _last_output(self) -> str:
        lines = [f"\n  | {line[:300]}" for line in last_lines(self.log, 3)]
        return "the end of its log:" + "".join(lines) if lines else "its log is empty"
