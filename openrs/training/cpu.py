"""What training on a CPU needs so that tests run what GPUs run. Nothing here is active with hardware.gpus > 0."""

import functools
import os

from openrs.config.schema import Recipe


def apply_cpu_workarounds(recipe: Recipe) -> None:
    """Apply the workarounds that a CPU recipe needs, before the trainer is made."""
    if recipe.grpo.get("use_vllm"):
        keep_vllm_weights_loadable()
    if recipe.hardware.zero_stage:
        from deepspeed import ops

        # DeepSpeed 0.19 (comm/torch.py, build_shm_op) compiles a shared-memory kernel with ninja and g++ at the first
        # start on a CPU: two minutes and a compiler for a faster sum between two processes. Where the op counts as
        # incompatible, gloo does it.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if recipe.hardware.world_size > 1:
        let_processes_load_optimizers()


def keep_vllm_weights_loadable() -> None:
    """Let vLLM's CPU build take new weights: without this the first sync fails.

    vLLM 0.31 (model_executor/layers/utils.py, dispatch_cpu_unquantized_gemm) packs a linear layer's weights for its CPU
    kernel and throws the parameter away: `'Parameter' object has no attribute 'weight_loader'`. Torch's own linear does
    the same sum from the parameter as it is. (On a GPU nothing is packed.)
    """
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; by default it takes half of the machine's memory
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else two processes are bound to the same core
    import torch
    from vllm.model_executor.layers import utils

    def plain(layer: torch.nn.Module, remove_weight: bool) -> None:  # noqa: ARG001 - as vLLM calls it
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


@functools.cache  # once is enough
def let_processes_load_optimizers() -> None:
    """Let the processes of a job load an optimizer's state: without this none but the first can resume.

    accelerate calls process 1's device cpu:1, transformers 5.17 (Trainer._load_optimizer_and_scheduler) hands that to
    torch.load as map_location, and torch 2.13 knows one CPU only, without a number.
    """
    import torch

    torch.serialization.register_package(
        11, lambda _: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
