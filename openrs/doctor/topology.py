"""How the GPUs of a node are tied together: the matrix of `nvidia-smi topo -m`, ACS of the PCIe bridges, the IOMMU.

What it means for NCCL (testing.md, NCCL 2.29): behind different root ports (PHB, NODE, SYS) it goes through shared
memory; under one PCIe switch (PIX, PXB) it lets GPUs write to each other, and that is where ACS and IOMMU hang it.
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass

from openrs.doctor.finding import Finding
from openrs.doctor.probe import CommandResult, Probe

MEANING = {
    "PIX": "one PCIe bridge", "PXB": "several PCIe bridges", "PHB": "a PCIe host bridge (the CPU)",
    "NODE": "host bridges of one NUMA node", "SYS": "the link between CPUs", "NV": "NVLink",
}  # fmt: skip
_LINK = re.compile(r"X|PIX|PXB|PHB|NODE|SYS|NV\d+")
_DEVICE = re.compile(r"(GPU|NIC)\d+|mlx\w+")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Topology:
    """links: (i, j) with i < j -> PIX, PXB, PHB, NODE, SYS, NV4 ... or `unknown`."""

    gpus: int
    links: dict[tuple[int, int], str]

    @property
    def switched(self) -> bool:
        """Whether some GPUs hang under one PCIe switch, so that NCCL lets them write to each other."""
        return any(link in {"PIX", "PXB"} for link in self.links.values())

    @property
    def words(self) -> str:
        """`6 pairs over SYS (the link between CPUs)`."""
        counts = Counter(self.links.values())
        return ", ".join(
            f"{count} pair{'s' if count > 1 else ''} over {link} ({MEANING.get(link.rstrip('0123456789'), 'unknown')})"
            for link, count in counts.most_common()
        )


def parse_matrix(text: str) -> Topology | None:
    """`nvidia-smi topo -m` as data; None when it has no matrix. A cell that is not a known link is `unknown`."""
    devices: list[str] = []
    rows: dict[int, list[str]] = {}
    for line in text.splitlines():
        words = _ANSI.sub("", line).split()
        if len(words) < 2 or not re.fullmatch(r"GPU\d+", words[0]):
            continue
        if not devices and not _LINK.fullmatch(words[1]):  # the head: names of devices, then words like CPU Affinity
            devices = list(itertools.takewhile(_DEVICE.fullmatch, words))
        elif devices:
            rows[int(words[0][3:])] = words[1:]
    gpus = [place for place, name in enumerate(devices) if name.startswith("GPU")]
    if not gpus or not rows:
        return None
    links = {}
    for i, j in itertools.combinations(range(len(gpus)), 2):
        cells = rows.get(i, [])
        cell = cells[gpus[j]] if gpus[j] < len(cells) else ""
        links[i, j] = cell if _LINK.fullmatch(cell) and cell != "X" else "unknown"
    return Topology(len(gpus), links)


def parse_acs(result: CommandResult) -> tuple[int, int] | None:
    """(PCI bridges with ACS on, bridges that say) of `lspci -vvv`; None when it is not there, or hides it from users.

    A bridge with SrcValid+ in its ACSCtl sends what one GPU writes to another up to the root, where it may be lost.
    """
    if result.code != 0:
        return None
    on = said_so = 0
    for block in re.split(r"\n(?=\S)", result.text):
        if "PCI bridge" not in block.partition("\n")[0]:
            continue
        control = re.search(r"ACSCtl:\s*(.*)", block)
        if control:
            said_so += 1
            on += "SrcValid+" in control[1] or "ReqRedir+" in control[1]
    hidden = "access denied" in result.text.lower()
    return None if hidden and not said_so else (on, said_so)


def iommu(probe: Probe) -> str:
    """`off`, `on`, `pass-through` or `unknown`, from the kernel's groups and its command line."""
    line = probe.read("/proc/cmdline")
    groups = probe.names("/sys/kernel/iommu_groups")
    if line is None and not probe.exists("/sys/kernel/iommu_groups"):
        return "unknown"
    if not groups:
        return "off"
    words = (line or "").split()
    return "pass-through" if "iommu=pt" in words or "iommu.passthrough=1" in words else "on"


def lines(probe: Probe, gpus: int) -> list[Finding]:
    """Topology, ACS and IOMMU as the doctor says them. Only asked where there are several GPUs."""
    result = probe.run("nvidia-smi", "topo", "-m")
    topology = parse_matrix(result.text) if result.code == 0 else None
    measure = "measure it: openrs doctor nccl (it finds a hang in a minute and keeps what works)"
    if topology is None:
        why = result.why or "nvidia-smi topo -m gave no matrix"
        found = [Finding("topology", "unknown", why, "how the GPUs are tied together", measure)]
    elif topology.gpus != gpus:
        text = f"the matrix has {topology.gpus} GPUs, nvidia-smi -q has {gpus}: {topology.words}"
        found = [Finding("topology", "unknown", text, "the same GPUs in both", measure)]
    else:
        found = [Finding("topology", "ok", topology.words)]
    switched = topology.switched if topology is not None else None
    acs, mapping = parse_acs(probe.run("lspci", "-vvv")), iommu(probe)
    if acs is None:
        hidden = "lspci hides ACS from users who are not root, or is not installed"
        found.append(
            Finding(
                "ACS", "unknown" if switched is not False else "info", hidden, "off under GPUs on one switch", measure
            )
        )
    elif acs[0] and switched is not False:
        text = f"on at {acs[0]} of {acs[1]} PCI bridges"
        needed = "off where GPUs share a PCIe switch, else they wait for each other forever"
        found.append(Finding("ACS", "warn", text, needed, "switch it off in the BIOS or with setpci; " + measure))
    else:
        text = f"on at {acs[0]} of {acs[1]} PCI bridges" + ("; no GPUs share a switch" if acs[0] else "")
        found.append(Finding("ACS", "ok", text))
    if mapping == "on" and switched is not False:
        needed = "off or pass-through (iommu=pt) where GPUs share a PCIe switch"
        found.append(Finding("IOMMU", "warn", "on", needed, "boot with iommu=pt; " + measure))
    else:
        found.append(Finding("IOMMU", "unknown" if mapping == "unknown" else "ok", mapping))
    return found
