"""The doctor's lines on GPUs: driver, count, memory, who else is there, health, links."""

import os
from collections.abc import Sequence

from openrs.config.machine import cuda_visible_devices
from openrs.doctor import topology
from openrs.doctor.finding import Finding, State, judged
from openrs.doctor.nvidia import GpuInfo, Nvidia, driver_version
from openrs.doctor.probe import Probe
from openrs.planner import gpus as known_gpus
from openrs.planner.memory import peak
from openrs.planner.plan import ResourcePlan
from openrs.run.units import GIB

DRIVER = (580,)  # torch 2.13.0 from PyPI is built for CUDA 13.0 (docs/stack.md)
WIDTH = 16  # lanes of PCIe that every GPU in the planner's table has


def lines(probe: Probe, nvidia: Nvidia, plan: ResourcePlan | None, *, quick: bool) -> list[Finding]:
    """All lines on GPUs. plan: of the recipe that is to run here, or None when no recipe was named."""
    wanted = plan.workload.gpus if plan is not None else 0
    gpus = visible(nvidia.gpus)
    if not nvidia.gpus:
        return [_none(nvidia, wanted, plan)]
    found = [_driver(nvidia), _count(gpus, wanted), *_model(gpus, plan), _memory(gpus, plan), _others(gpus)]
    found += [_errors(gpus), _clocks(gpus), _persistence(gpus), _pcie(gpus)]
    if any(gpu.mig for gpu in gpus):
        needed = "off: a slice cannot take part in NCCL over PCIe"
        found.append(Finding("MIG", "fail" if wanted else "warn", "on", needed, "nvidia-smi -mig 0, as root"))
    if len(gpus) > 1 and not quick:
        found += topology.lines(probe, len(nvidia.gpus))
    return found


def visible(gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all of them where it is unset or cannot be understood."""
    chosen = cuda_visible_devices()
    if not chosen:
        return list(gpus) if chosen is None else []
    taken = []
    for word in chosen:
        by_number = [gpus[int(word)]] if word.isdigit() and int(word) < len(gpus) else []
        taken += by_number or [gpu for gpu in gpus if gpu.uuid and gpu.uuid.startswith(word)]
    return taken or list(gpus)


def _none(nvidia: Nvidia, wanted: int, plan: ResourcePlan | None) -> Finding:
    claimed = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    why = nvidia.why or "none"
    fix = "take a machine with GPUs; see what it costs: openrs plan"
    if claimed not in {"", "void", "none"}:
        why += f"; this container was given NVIDIA_VISIBLE_DEVICES={claimed}"
        fix = "install the NVIDIA container toolkit and a driver >= 580 on the host"
    if not wanted or plan is None:
        return Finding("GPUs", "info", f"none ({why})", "none for what runs on a CPU")
    return Finding("GPUs", "fail", f"none ({why})", f"{wanted} x {plan.workload.gpu.name}", fix)


def _driver(nvidia: Nvidia) -> Finding:
    version = driver_version(nvidia.driver)
    needed = "at least 580, for CUDA 13"
    fix = "install driver 580 or newer on the host (the image for the paper's own CUDA 12.4 takes 550)"
    return judged("driver", None if version is None else version >= DRIVER, nvidia.driver or "unknown", needed, fix)


def _count(gpus: Sequence[GpuInfo], wanted: int) -> Finding:
    names = sorted({gpu.name or "unknown" for gpu in gpus})
    found = f"{len(gpus)} x {' and '.join(names) or 'none'}"
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        found += f" (CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']})"
    fix = "take a machine with more, or plan for fewer: openrs plan RECIPE --gpus N"
    return judged("GPUs", len(gpus) >= wanted, found, f"{wanted}" if wanted else "", fix)


def _model(gpus: Sequence[GpuInfo], plan: ResourcePlan | None) -> list[Finding]:
    """Whether these are the recipe's GPUs, and one kind; others may well do, and the planner says so."""
    names = sorted({gpu.name or "unknown" for gpu in gpus})
    if len(names) > 1:
        needed, fix = "one kind: the slowest sets the pace", "choose with CUDA_VISIBLE_DEVICES"
        return [Finding("GPU model", "warn", " and ".join(names), needed, fix)]
    if plan is None or not plan.workload.gpus or not gpus:
        return []
    here, needed = known_gpus.find(names[0]), plan.workload.gpu.name
    fix = f"openrs plan RECIPE --gpu {here.name!r} says what changes"
    same = None if here.memory is None else here == plan.workload.gpu
    return [judged("GPU model", same, here.name, needed, fix, bad="info")]


def _memory(gpus: Sequence[GpuInfo], plan: ResourcePlan | None) -> Finding:
    free = [gpu.free for gpu in gpus]
    known = [value for value in free if value is not None]
    if not known or len(known) < len(free):
        return Finding("GPU memory", "unknown", "nvidia-smi does not say", fix="look with nvidia-smi")
    text = f"{min(known) / 1024:.1f} GiB free on the fullest"
    if plan is None or not plan.workload.gpus:
        return Finding("GPU memory", "ok", text)
    need = max(peak(plan.trainer), peak(plan.generator)) / GIB
    fix = "end what else runs there, or: openrs plan --fit"
    return judged("GPU memory", min(known) / 1024 >= need, text, f"{need:.1f} GiB", fix)


def _others(gpus: Sequence[GpuInfo]) -> Finding:
    """Other processes; in a container the driver hides them, but not the memory they hold."""
    own = os.getpid()
    there = [process for gpu in gpus for process in gpu.processes if process.pid != own]
    if there:
        text = ", ".join(f"{process.name} (pid {process.pid or 'unknown'})" for process in there[:4])
        text += f" and {len(there) - 4} more" if len(there) > 4 else ""
        return Finding("other processes", "warn", text, "none: they take memory and time", "end them, or wait")
    held = [gpu.used for gpu in gpus if gpu.used is not None]
    if held and max(held) > 2048:
        text = f"none seen, but {max(held) / 1024:.1f} GiB are in use"
        return Finding("other processes", "warn", text, "none", "look from the host: a container does not see them")
    return Finding("other processes", "ok" if held else "unknown", "none seen")


def _errors(gpus: Sequence[GpuInfo]) -> Finding:
    fix = "reset or reboot that GPU; when they come again, send the node back"
    needed = "no uncorrected memory errors"
    faults: tuple[tuple[str, State, str], ...] = (
        ("remap_failed", "fail", "row remapping failed"),
        ("uncorrected", "fail", "uncorrected errors"),
        ("remap_pending", "warn", "a row waits to be remapped"),
    )
    for field, state, text in faults:
        if those := [str(number) for number, gpu in enumerate(gpus) if getattr(gpu, field)]:
            return Finding("ECC", state, f"{text} on GPU {', '.join(those)}", needed, fix)
    counted = [gpu.uncorrected for gpu in gpus]
    if all(count is None for count in counted):
        return Finding("ECC", "info", "off, or not on this kind of GPU", needed)
    return Finding("ECC", "ok", "no uncorrected errors" if None not in counted else "no errors where it is counted")


def _clocks(gpus: Sequence[GpuInfo]) -> Finding:
    slowed = {n: gpu.slowed for n, gpu in enumerate(gpus) if gpu.slowed}
    hot = [f"{gpu.celsius:.0f} C" for gpu in gpus if gpu.celsius is not None]
    warm = f" ({', '.join(hot)})" if hot else ""
    if not slowed:
        unknown = all(gpu.slowed is None for gpu in gpus)
        return Finding("clocks", "unknown" if unknown else "ok", ("unknown" if unknown else "not held down") + warm)
    text = "; ".join(f"GPU {n}: {', '.join(reasons)}" for n, reasons in slowed.items()) + warm
    hard = any("hw" in reason or "thermal" in reason for reasons in slowed.values() for reason in reasons)
    needed = "not held down by heat or power supply"
    return Finding("clocks", "warn" if hard else "info", text, needed, "check cooling and power")


def _persistence(gpus: Sequence[GpuInfo]) -> Finding:
    if any(gpu.persistence is False for gpu in gpus):
        fix = "nvidia-smi -pm 1, as root"
        return Finding(
            "persistence", "warn", "off", "on: else the driver unloads between processes (seconds each)", fix
        )
    known = all(gpu.persistence for gpu in gpus)
    return Finding("persistence", "ok" if known else "unknown", "on" if known else "unknown")


def _pcie(gpus: Sequence[GpuInfo]) -> Finding:
    """Width and generation. An idle GPU goes down to generation 1, so the largest that is possible is what counts."""
    if any(gpu.width is None or gpu.gen_max is None for gpu in gpus):
        return Finding("PCIe", "unknown", "nvidia-smi does not say", fix="lspci -vv shows LnkSta")
    text = ", ".join(sorted({f"generation {gpu.gen_max} x{gpu.width}" for gpu in gpus}))
    narrow = [n for n, gpu in enumerate(gpus) if (gpu.width or 0) < min(WIDTH, gpu.width_max or WIDTH)]
    slow = [n for n, gpu in enumerate(gpus) if (gpu.gen_max or 0) < (gpu.gen_card or 0)]
    if narrow:
        needed = "all lanes that the GPU has"
        text += f"; GPU {narrow} uses fewer lanes than it has"
        return Finding("PCIe", "warn", text, needed, "reseat it, or take another slot")
    if slow:
        needed = "the GPU's own generation: weights and gradients go this way"
        return Finding("PCIe", "warn", f"{text}; GPU {slow} could do more", needed, "set the slot's speed in the BIOS")
    return Finding("PCIe", "ok", text)
