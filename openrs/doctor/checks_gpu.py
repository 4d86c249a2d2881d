"""The doctor's lines on GPUs: driver, count, memory, who else is there, health, links."""

import os
from collections.abc import Sequence

from openrs.doctor import topology
from openrs.doctor.finding import Finding, State, judged
from openrs.doctor.nvidia import GpuInfo, Nvidia, driver_version
from openrs.doctor.probe import Probe
from openrs.planner import gpus as known_gpus
from openrs.planner.memory import GIB, peak
from openrs.planner.plan import ResourcePlan

DRIVER = (580,)  # torch 2.13.0 from PyPI is built for CUDA 13.0 (docs/stack.md)
WIDTH = 16  # lanes of PCIe that every GPU in the planner's table has


def lines(probe: Probe, nvidia: Nvidia, plan: ResourcePlan | None, *, quick: bool) -> list[Finding]:
    """All lines on GPUs. plan: of the recipe that is to run here, or None when no recipe was named."""
    wanted = plan.job.gpus if plan is not None else 0
    cards = visible(nvidia.cards)
    if not nvidia.cards:
        return [_none(nvidia, wanted, plan)]
    found = [_driver(nvidia), _count(cards, wanted), *_model(cards, plan), _memory(cards, plan), _others(cards)]
    found += [_errors(cards), _clocks(cards), _persistence(cards), _pcie(cards)]
    if any(card.mig for card in cards):
        needed = "off: a slice cannot take part in NCCL over PCIe"
        found.append(Finding("MIG", "fail" if wanted else "warn", "on", needed, "nvidia-smi -mig 0, as root"))
    if len(cards) > 1 and not quick:
        found += topology.lines(probe, len(nvidia.cards))
    return found


def visible(cards: Sequence[GpuInfo]) -> list[GpuInfo]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all of them where it is unset or cannot be understood."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(cards)
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    if words in ([], ["-1"], ["NoDevFiles"]):
        return []
    taken = []
    for word in words:
        by_number = [cards[int(word)]] if word.isdigit() and int(word) < len(cards) else []
        taken += by_number or [card for card in cards if card.uuid and card.uuid.startswith(word)]
    return taken or list(cards)


def _none(nvidia: Nvidia, wanted: int, plan: ResourcePlan | None) -> Finding:
    claimed = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    why = nvidia.why or "none"
    fix = "take a machine with GPUs; see what it costs: openrs plan"
    if claimed not in {"", "void", "none"}:
        why += f"; this container was given NVIDIA_VISIBLE_DEVICES={claimed}"
        fix = "install the NVIDIA container toolkit and a driver >= 580 on the host"
    if not wanted or plan is None:
        return Finding("GPUs", "info", f"none ({why})", "none for what runs on a CPU")
    return Finding("GPUs", "fail", f"none ({why})", f"{wanted} x {plan.job.gpu.name}", fix)


def _driver(nvidia: Nvidia) -> Finding:
    version = driver_version(nvidia.driver)
    needed = "at least 580, for CUDA 13"
    fix = "install driver 580 or newer on the host (the image for the paper's own CUDA 12.4 takes 550)"
    return judged("driver", None if version is None else version >= DRIVER, nvidia.driver or "unknown", needed, fix)


def _count(cards: Sequence[GpuInfo], wanted: int) -> Finding:
    names = sorted({card.name or "unknown" for card in cards})
    found = f"{len(cards)} x {' and '.join(names) or 'none'}"
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        found += f" (CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']})"
    fix = "take a machine with more, or plan for fewer: openrs plan RECIPE --gpus N"
    return judged("GPUs", len(cards) >= wanted, found, f"{wanted}" if wanted else "", fix)


def _model(cards: Sequence[GpuInfo], plan: ResourcePlan | None) -> list[Finding]:
    """Whether these are the recipe's GPUs, and one kind; others may well do, and the planner says so."""
    names = {card.name for card in cards}
    found = []
    if len(names) > 1:
        text = " and ".join(sorted(name or "unknown" for name in names))
        found.append(
            Finding(
                "GPU model", "warn", text, "one kind: the slowest sets the pace", "choose with CUDA_VISIBLE_DEVICES"
            )
        )
    elif plan is not None and plan.job.gpus and cards:
        here = known_gpus.find(cards[0].name or "unknown")
        if here.memory is None:
            state: State = "unknown"
        else:
            state = "ok" if here == plan.job.gpu else "info"
        fix = "" if state == "ok" else f"openrs plan RECIPE --gpu {here.name!r} says what changes"
        found.append(Finding("GPU model", state, here.name, plan.job.gpu.name, fix))
    return found


def _memory(cards: Sequence[GpuInfo], plan: ResourcePlan | None) -> Finding:
    free = [card.free for card in cards]
    known = [value for value in free if value is not None]
    if not known or len(known) < len(free):
        return Finding("GPU memory", "unknown", "nvidia-smi does not say", fix="look with nvidia-smi")
    text = f"{min(known) / 1024:.1f} GiB free on the fullest"
    if plan is None or not plan.job.gpus:
        return Finding("GPU memory", "ok", text)
    need = max(peak(plan.trainer), peak(plan.generator)) / GIB
    fix = "end what else runs there, or: openrs plan --fit"
    return judged("GPU memory", min(known) / 1024 >= need, text, f"{need:.1f} GiB", fix)


def _others(cards: Sequence[GpuInfo]) -> Finding:
    """Other processes; in a container the driver hides them, but not the memory they hold."""
    own = os.getpid()
    there = [process for card in cards for process in card.processes if process.pid != own]
    if there:
        text = ", ".join(f"{process.name} (pid {process.pid or 'unknown'})" for process in there[:4])
        text += f" and {len(there) - 4} more" if len(there) > 4 else ""
        return Finding("other processes", "warn", text, "none: they take memory and time", "end them, or wait")
    held = [card.used for card in cards if card.used is not None]
    if held and max(held) > 2048:
        text = f"none seen, but {max(held) / 1024:.1f} GiB are in use"
        return Finding("other processes", "warn", text, "none", "look from the host: a container does not see them")
    return Finding("other processes", "ok" if held else "unknown", "none seen")


def _errors(cards: Sequence[GpuInfo]) -> Finding:
    fix = "reset or reboot that GPU; when they come again, send the node back"
    needed = "no uncorrected memory errors"
    if any(card.remap_failed for card in cards):
        return Finding("ECC", "fail", f"row remapping failed on GPU {_which(cards, 'remap_failed')}", needed, fix)
    if any(card.uncorrected for card in cards):
        return Finding("ECC", "fail", f"uncorrected errors on GPU {_which(cards, 'uncorrected')}", needed, fix)
    if any(card.remap_pending for card in cards):
        return Finding(
            "ECC", "warn", f"a row waits to be remapped on GPU {_which(cards, 'remap_pending')}", needed, fix
        )
    counted = [card.uncorrected for card in cards]
    if all(count is None for count in counted):
        return Finding("ECC", "info", "off, or not on this kind of GPU", needed)
    return Finding("ECC", "ok", "no uncorrected errors" if None not in counted else "no errors where it is counted")


def _which(cards: Sequence[GpuInfo], field: str) -> str:
    return ", ".join(str(n) for n, card in enumerate(cards) if getattr(card, field))


def _clocks(cards: Sequence[GpuInfo]) -> Finding:
    slowed = {n: card.slowed for n, card in enumerate(cards) if card.slowed}
    hot = [f"{card.celsius:.0f} C" for card in cards if card.celsius is not None]
    warm = f" ({', '.join(hot)})" if hot else ""
    if not slowed:
        unknown = all(card.slowed is None for card in cards)
        return Finding("clocks", "unknown" if unknown else "ok", ("unknown" if unknown else "not held down") + warm)
    text = "; ".join(f"GPU {n}: {', '.join(reasons)}" for n, reasons in slowed.items()) + warm
    hard = any("hw" in reason or "thermal" in reason for reasons in slowed.values() for reason in reasons)
    needed = "not held down by heat or power supply"
    return Finding("clocks", "warn" if hard else "info", text, needed, "check cooling and power")


def _persistence(cards: Sequence[GpuInfo]) -> Finding:
    if any(card.persistence is False for card in cards):
        fix = "nvidia-smi -pm 1, as root"
        return Finding(
            "persistence", "warn", "off", "on: else the driver unloads between processes (seconds each)", fix
        )
    known = all(card.persistence for card in cards)
    return Finding("persistence", "ok" if known else "unknown", "on" if known else "unknown")


def _pcie(cards: Sequence[GpuInfo]) -> Finding:
    """Width and generation. An idle GPU goes down to generation 1, so the largest that is possible is what counts."""
    if any(card.width is None or card.gen_max is None for card in cards):
        return Finding("PCIe", "unknown", "nvidia-smi does not say", fix="lspci -vv shows LnkSta")
    text = ", ".join(sorted({f"generation {card.gen_max} x{card.width}" for card in cards}))
    narrow = [n for n, card in enumerate(cards) if (card.width or 0) < min(WIDTH, card.width_max or WIDTH)]
    slow = [n for n, card in enumerate(cards) if (card.gen_max or 0) < (card.gen_card or 0)]
    if narrow:
        needed = "all lanes that the GPU has"
        text += f"; GPU {narrow} uses fewer lanes than it has"
        return Finding("PCIe", "warn", text, needed, "reseat it, or take another slot")
    if slow:
        needed = "the GPU's own generation: weights and gradients go this way"
        return Finding("PCIe", "warn", f"{text}; GPU {slow} could do more", needed, "set the slot's speed in the BIOS")
    return Finding("PCIe", "ok", text)
