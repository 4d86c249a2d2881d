"""The program behind Probe.facts: what only libraries and the GPUs themselves know, as one line `openrs:{...}`.

Its first argument names a function below. It may die, or hang, of a broken CUDA.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openrs.errors import UserError

HEADS, KV_HEADS, LENGTH, HEAD_DIM = 12, 2, 4096, 128  # exp3's attention: one packed row a call
LIBRARIES = re.compile(r"/\S*/lib(cublas|cudnn|nccl)\.so[.\d]*$")


def tokenizer(folder: str) -> dict[str, str]:
    """Whether a folder's loaded tokenizer agrees with tokenizer.json."""
    from openrs.data.tokenizer import check_tokenizer, load_tokenizer

    try:
        loaded = load_tokenizer(Path(folder))
        bos = check_tokenizer(loaded, Path(folder))
    except UserError as error:
        return {"refused": error.what}
    return {"found": f"{len(loaded):,} tokens, ids as in tokenizer.json, round trip, {bos} BOS"}


def torch() -> dict[str, Any]:
    """What torch was built with, and a product on every GPU that it sees."""
    import torch

    cuda = torch.cuda.is_available()
    facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": torch.cuda.device_count() if cuda else 0,
    }
    if cuda:
        facts["bf16"] = torch.cuda.is_bf16_supported()
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        for number in range(facts["gpus"]):
            ones = torch.ones(256, 256, device=f"cuda:{number}", dtype=torch.bfloat16)
            if (ones @ ones)[0, 0].item() != 256:
                raise SystemExit(f"a product on cuda:{number} is wrong")
    return facts


def flash(device: str, length: int = LENGTH) -> dict[str, Any]:
    """Whether torch may take its flash kernel for exp3's causal bf16 attention with grouped keys, and that it runs."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def tensor(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, length, HEAD_DIM, device=device, dtype=torch.bfloat16, requires_grad=True)

    query, key, value = tensor(HEADS), tensor(KV_HEADS), tensor(KV_HEADS)
    try:
        parameters = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, True, True)
        allowed = torch.backends.cuda.can_use_flash_attention(parameters)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        out.sum().backward()
    except (RuntimeError, TypeError) as error:  # no kernel for it; another torch's signature
        return {"allowed": False, "why": str(error).splitlines()[0][:160]}
    return {"allowed": allowed, "finite": bool(query.grad is not None and query.grad.isfinite().all())}


def tflops(device: str, size: int = 8192, repeats: int = 10) -> float:
    """TFLOP/s of the fastest of a few bf16 matrix products, by the GPU's own clock."""
    import torch

    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    times: list[float] = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(torch.cuda.current_stream(a.device))
        a @ a
        end.record(torch.cuda.current_stream(a.device))
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) / 1000)
    return 2.0 * size**3 / min(times) / 1e12


def libraries(maps: str) -> dict[str, str]:
    """cuBLAS, cuDNN and NCCL -> the file that this process has loaded, from the text of /proc/self/maps."""
    found = (LIBRARIES.search(line) for line in maps.splitlines())
    return {match[1]: match[0] for match in found if match}


def gpus() -> dict[str, Any]:
    """Each GPU: free memory, a bf16 product's speed, flash attention at exp3's shape; and what is between them."""
    import torch

    count = torch.cuda.device_count()
    each = []
    for number in range(count):
        device = f"cuda:{number}"
        with torch.cuda.device(number):
            free, _ = torch.cuda.mem_get_info(number)
            facts = {"name": torch.cuda.get_device_name(number), "free": free, "tflops": tflops(device)}
            each.append({**facts, "flash": flash(device)})
            torch.cuda.empty_cache()
    blocked = [
        [i, j] for i in range(count) for j in range(count) if i < j and not torch.cuda.can_device_access_peer(i, j)
    ]
    driver = torch._C._cuda_getDriverVersion()  # 13000: what CUDA the driver itself speaks
    return {
        "gpus": each, "no_peer": blocked, "driver_cuda": [driver // 1000, driver % 1000 // 10],
        "cuda": [int(word) for word in (torch.version.cuda or "0.0").split(".")[:2]],
        "libraries": libraries(Path("/proc/self/maps").read_text()),
    }  # fmt: skip


def vllm() -> dict[str, Any]:
    """One of vLLM's own kernels on the first GPU, against the same sum by torch."""
    import torch
    from vllm import _custom_ops  # loads vllm._C

    x = torch.randn(64, 1536, device="cuda", dtype=torch.bfloat16)
    out, weight = torch.empty_like(x), torch.ones(1536, device="cuda", dtype=torch.bfloat16)
    _custom_ops.rms_norm(out, x, weight, 1e-6)
    right = torch.nn.functional.rms_norm(x.float(), (1536,), eps=1e-6)
    return {"apart": float((out.float() - right).abs().max())}


if __name__ == "__main__":
    programs: dict[str, Callable[..., dict[str, Any]]] = {f.__name__: f for f in (tokenizer, torch, gpus, vllm)}
    print("openrs:" + json.dumps(programs[sys.argv[1]](*sys.argv[2:])))  # noqa: T201 - read by Probe.facts
