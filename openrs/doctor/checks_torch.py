"""The doctor's lines on what torch and the GPUs themselves say.

torch and vLLM run in child processes with a time limit: a broken CUDA installation cannot take the doctor with it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from openrs.doctor.finding import Finding, judged
from openrs.doctor.probe import Probe
from openrs.planner import gpus as known_gpus
from openrs.run.units import GIB

FAST = 0.5  # of the data sheet's TFLOP/s: a large product reaches 0.6 to 0.9 of it on a GPU that is not held down


def lines(probe: Probe, gpus: int) -> list[Finding]:
    """torch; and where there are GPUs that it can use, what they say. gpus: how many nvidia-smi sees."""
    torch = torch_line(probe, gpus)
    if not gpus or torch.state != "ok":
        return [torch]
    facts, bad, last = probe.facts("gpus")
    if facts is None:
        fix = "openrs doctor again; if it hangs or dies again: reboot the host, or take another one"
        return [torch, Finding("GPU work", bad, last, "a product and attention on every GPU", fix)]
    return [torch, *gpu_lines(facts), *vllm_line(probe)]


def torch_line(probe: Probe, gpus: int) -> Finding:
    """torch as a child process sees it: its version, CUDA, and a product on every GPU."""
    facts, bad, last = probe.facts("torch")
    fix = "scripts/setup installs it; with GPUs the CUDA lock, and a driver >= 580"
    if facts is None:
        if "No module named 'torch'" in last:
            return Finding("torch", "warn", "not installed", "only needed to train and to evaluate", fix)
        return Finding("torch", bad, last, "torch that works", fix)
    found = f"{facts['version']}, " + (
        f"CUDA {facts['cuda']}, NCCL {facts['nccl']}, a product right on each of {facts['gpus']} GPUs"
        if facts["gpus"]
        else "no CUDA"
    )
    if gpus and not facts["gpus"]:
        return Finding("torch", "fail", f"{found}, though nvidia-smi sees {gpus} GPUs", "torch that uses them", fix)
    if facts["gpus"] and not facts["bf16"]:
        return Finding(
            "torch", "fail", f"{found}; no bf16", "GPUs of compute capability 8.0 or newer", "take newer GPUs"
        )
    return Finding("torch", "ok", found)


def gpu_lines(facts: Mapping[str, Any]) -> Iterator[Finding]:
    yield _speed(facts["gpus"])
    yield _flash(facts["gpus"])
    free = min(gpu["free"] for gpu in facts["gpus"]) / GIB
    yield Finding("memory to torch", "info", f"{free:.1f} GiB free on the fullest, its own context taken off")
    driver, cuda = tuple(facts["driver_cuda"]), tuple(facts["cuda"])
    found = f"the driver speaks CUDA {_dotted(driver)}, torch is built for {_dotted(cuda)}"
    fix = f"a host whose driver speaks CUDA {cuda[0]} (580 or newer for 13)"
    yield judged("CUDA", driver[0] >= cuda[0], found, f"CUDA {cuda[0]} or newer", fix)
    pairs = [f"{i}-{j}" for i, j in facts["no_peer"]]
    if len(facts["gpus"]) > 1:
        found = f"not between {', '.join(pairs)}" if pairs else "between all pairs"
        needed = "nothing: NCCL then goes through shared memory (/dev/shm)" if pairs else ""
        yield Finding("P2P", "info" if pairs else "ok", found, needed)
    yield _libraries(facts["libraries"])


def _speed(gpus: list[Mapping[str, Any]]) -> Finding:
    shares = [(gpu["tflops"] / known.tflops) for gpu in gpus if (known := known_gpus.find(gpu["name"])).tflops]
    found = ", ".join(f"{gpu['tflops']:.0f}" for gpu in gpus) + " TFLOP/s"
    if len(shares) < len(gpus):
        return Finding("bf16 product", "info", f"{found}; this kind is not in the planner's table")
    found += f", at least {min(shares):.0%} of the data sheet's {known_gpus.find(gpus[0]['name']).tflops:g}"
    needed = f"at least {FAST:.0%}, and all alike"
    alike = min(gpu["tflops"] for gpu in gpus) > 0.8 * max(gpu["tflops"] for gpu in gpus)
    fix = "look at the clocks and at who else is there: nvidia-smi -q -d PERFORMANCE; or take another host"
    return judged("bf16 product", min(shares) >= FAST and alike, found, needed, fix, bad="warn")


def _flash(gpus: list[Mapping[str, Any]]) -> Finding:
    needed = (
        "torch's flash kernel for bf16, grouped keys, causal, head size 128: else memory and time grow with the square"
    )
    for number, gpu in enumerate(gpus):
        if not gpu["flash"]["allowed"]:
            why = gpu["flash"].get("why") or "torch says no"
            fix = "GPUs of compute capability 8.0 or newer, and the lock's torch: scripts/setup"
            return Finding("flash attention", "fail", f"not on GPU {number}: {why}", needed, fix)
        if not gpu["flash"]["finite"]:
            fix = "another host: this GPU computes wrong"
            return Finding("flash attention", "fail", f"NaN or Inf in a gradient on GPU {number}", needed, fix)
    return Finding("flash attention", "ok", "12 heads on 2, 4,096 tokens, forward and backward", needed)


def _libraries(found: Mapping[str, str]) -> Finding:
    """Whether the libraries that torch loaded are those that pip installed with it, or a base image's."""
    others = [path for path in found.values() if "/site-packages/" not in path and "/dist-packages/" not in path]
    if not found:
        return Finding(
            "CUDA libraries", "unknown", "none seen in /proc/self/maps", "cuBLAS, cuDNN and NCCL of the lock"
        )
    if others:
        needed = "those of the lock; LD_LIBRARY_PATH puts the system's in front of them"
        return Finding("CUDA libraries", "warn", ", ".join(others), needed, "unset LD_LIBRARY_PATH, and try again")
    return Finding("CUDA libraries", "ok", f"{', '.join(sorted(found))} from the environment's own packages")


def vllm_line(probe: Probe) -> Iterator[Finding]:
    """vLLM's kernels on this architecture, where vLLM is installed."""
    facts, _, last = probe.facts("vllm")
    fix = "the lock's vLLM, which has kernels for compute capability 8.0 to 12.0: OPENRS_LOCK=cuda ./scripts/setup"
    if facts is not None:
        apart = facts["apart"]
        found = f"one of its kernels ran, {apart:.1e} from torch's"
        yield judged("vLLM kernels", apart < 0.1, found, "the same sum as torch's", fix)  # bf16: 8 bits of 4
    elif "No module named 'vllm'" in last:
        yield Finding("vLLM kernels", "info", "vLLM is not installed")
    else:
        works = False if "no kernel image" in last else None
        yield judged("vLLM kernels", works, last, "kernels for this architecture", fix)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
