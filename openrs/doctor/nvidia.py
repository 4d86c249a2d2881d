"""What nvidia-smi says of each GPU. Tags that are not there, or odd, are unknown (None): drivers rename them."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import NamedTuple

from openrs.doctor.probe import CommandResult, Probe


class Process(NamedTuple):
    """Somebody on a GPU; pid None where the driver hides it, as it does in containers."""

    pid: int | None
    name: str


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU. Memory in MiB; widths as numbers of lanes; every field may be unknown (None)."""

    name: str | None
    uuid: str | None
    used: float | None
    free: float | None
    persistence: bool | None
    mig: bool | None
    gen: int | None
    gen_max: int | None
    gen_card: int | None
    width: int | None
    width_max: int | None
    uncorrected: int | None
    remap_pending: bool | None
    remap_failed: bool | None
    slowed: tuple[str, ...] | None
    celsius: float | None
    processes: tuple[Process, ...]


class Nvidia(NamedTuple):
    """All of it. gpus is empty when there are none; `why` says why nothing is known (then gpus is empty too)."""

    driver: str | None
    gpus: tuple[GpuInfo, ...]
    why: str = ""


def look(probe: Probe) -> Nvidia:
    """Ask nvidia-smi. Never raises: what it says instead of an answer stands in `why`."""
    return parse(probe.run("nvidia-smi", "-q", "-x"))


def parse(result: CommandResult) -> Nvidia:
    """nvidia-smi -q -x (nvsmi_device v10 to v13) as data."""
    if result.code is None:
        return Nvidia(None, (), result.why)
    text = result.text[result.text.find("<nvidia_smi_log") :] if "<nvidia_smi_log" in result.text else ""
    try:
        # the document type that it names is not loaded by ElementTree, and entities are refused by expat's limits
        top = ET.fromstring(text)  # noqa: S314 - the output of a tool of this machine
    except ET.ParseError:
        first = next((line.strip() for line in result.text.splitlines() if line.strip()), "nothing")
        return Nvidia(None, (), f"nvidia-smi says: {first[:200]}")
    gpus = tuple(_gpu_info(gpu) for gpu in top.findall("gpu"))
    return Nvidia(_text(top, "driver_version"), gpus, "" if gpus else "nvidia-smi sees no GPU")


def driver_version(driver: str | None) -> tuple[int, ...] | None:
    if driver is None or not re.fullmatch(r"\d+(\.\d+)*", driver):
        return None
    return tuple(int(part) for part in driver.split("."))


def _gpu_info(gpu: ET.Element) -> GpuInfo:
    return GpuInfo(
        name=_text(gpu, "product_name"),
        uuid=_text(gpu, "uuid"),
        used=_number(_text(gpu, "fb_memory_usage/used")),
        free=_number(_text(gpu, "fb_memory_usage/free")),
        persistence=_switch(_text(gpu, "persistence_mode")),
        mig=_switch(_text(gpu, "mig_mode/current_mig")),
        gen=_whole(_text(gpu, "pci/pci_gpu_link_info/pcie_gen/current_link_gen")),
        gen_max=_whole(_text(gpu, "pci/pci_gpu_link_info/pcie_gen/max_link_gen")),
        gen_card=_whole(_text(gpu, "pci/pci_gpu_link_info/pcie_gen/max_device_link_gen")),
        width=_whole(_text(gpu, "pci/pci_gpu_link_info/link_widths/current_link_width")),
        width_max=_whole(_text(gpu, "pci/pci_gpu_link_info/link_widths/max_link_width")),
        uncorrected=_uncorrected(gpu),
        remap_pending=_switch(_text(gpu, "remapped_rows/remapped_row_pending")),
        remap_failed=_switch(_text(gpu, "remapped_rows/remapped_row_failure")),
        slowed=_slowed(gpu),
        celsius=_number(_text(gpu, "temperature/gpu_temp")),
        processes=tuple(
            Process(_whole(_text(process, "pid")), _text(process, "process_name") or "unknown")
            for process in gpu.findall("processes/process_info")
        ),
    )


def _text(element: ET.Element, path: str) -> str | None:
    """Text at a path; N/A and its kin are unknown."""
    text = (element.findtext(path) or "").strip()
    return None if text.strip("[]").lower() in {"", "n/a", "none", "unknown error", "not supported", "err!"} else text


def _number(text: str | None) -> float | None:
    """The number that a text begins with: `46068 MiB`, `32 C`."""
    match = re.match(r"\d+(\.\d+)?", text or "")
    return float(match[0]) if match else None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None else None


def _switch(text: str | None) -> bool | None:
    return {"enabled": True, "yes": True, "active": True, "disabled": False, "no": False, "not active": False}.get(
        (text or "").lower()
    )


def _uncorrected(gpu: ET.Element) -> int | None:
    """Uncorrected memory errors since the driver was loaded, all kinds together; names differ between drivers."""
    counts = [
        _whole(_text(gpu, f"ecc_errors/volatile/{kind}"))
        for kind in (
            "sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable",
            "double_bit/total",
        )
    ]  # fmt: skip
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


HARMLESS = ("gpu_idle", "applications_clocks_setting", "display_clocks_setting", "sync_boost")


def _slowed(gpu: ET.Element) -> tuple[str, ...] | None:
    """Why the clocks are held down just now, without what is normal; None when the driver does not say."""
    reasons = gpu.find("clocks_event_reasons")
    if reasons is None:
        reasons = gpu.find("clocks_throttle_reasons")  # older drivers
    if reasons is None:
        return None
    active = [reason.tag for reason in reasons if _switch((reason.text or "").strip())]
    names = [re.sub(r"^clocks_(event|throttle)_reason_", "", tag) for tag in active]
    return tuple(name.replace("_", " ") for name in names if name not in HARMLESS)
