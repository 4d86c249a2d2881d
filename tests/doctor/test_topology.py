"""Topology, ACS and nvidia-smi as their tools print them (typed after their documentation and public logs)."""

import random
from pathlib import Path

import pytest

from openrs.doctor import nvidia, topology
from openrs.doctor.probe import CommandResult
from openrs.doctor.topology import parse_acs, parse_matrix

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


def test_gpus_behind_root_ports() -> None:
    """With the escape codes that newer drivers underline the head with."""
    found = parse_matrix(recorded("topo_a40x4_roots.txt"))
    assert found is not None
    assert found.links == {(0, 1): "NODE", (0, 2): "SYS", (0, 3): "SYS", (1, 2): "SYS", (1, 3): "SYS", (2, 3): "PHB"}
    assert not found.switched
    assert found.words.startswith("4 pairs over SYS (the link between CPUs), 1 pair over NODE")


def test_gpus_under_a_switch_with_a_network_card() -> None:
    found = parse_matrix(recorded("topo_a40x4_switch.txt"))
    assert found is not None
    assert found.gpus == 4
    assert found.switched
    assert (found.links[0, 1], found.links[1, 2], found.links[2, 3]) == ("PIX", "PXB", "PIX")


def test_nvlink_bridges_and_blanks_for_tabs() -> None:
    found = parse_matrix(recorded("topo_nvlink_bridges.txt"))
    assert found is not None
    assert (found.links[0, 1], found.links[0, 2]) == ("NV4", "SYS")
    assert "2 pairs over NV4 (NVLink)" in found.words


def test_one_gpu_has_no_pairs() -> None:
    found = parse_matrix("\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t0-19\t0\t\tN/A\n")
    assert found is not None
    assert (found.gpus, found.links) == (1, {})


def test_cells_nobody_knows_are_unknown() -> None:
    text = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \tWARP\tX\nGPU2\tSYS\n"
    found = parse_matrix(text)
    assert found is not None
    assert set(found.links.values()) == {"unknown"}


@pytest.mark.parametrize("text", ["", "NVIDIA-SMI has failed", "GPU0", "\tGPU0\tGPU1\tCPU Affinity\n", "\0\xff GPU0 X"])
def test_no_matrix(text: str) -> None:
    assert parse_matrix(text) is None


def test_acs() -> None:
    assert parse_acs(CommandResult(0, recorded("lspci_acs_on.txt"))) == (1, 2)
    assert parse_acs(CommandResult(0, recorded("lspci_acs_off.txt"))) == (0, 2)
    assert parse_acs(CommandResult(0, recorded("lspci_user.txt"))) is None  # hidden from users
    assert parse_acs(CommandResult(None, "", "lspci is not installed")) is None
    assert parse_acs(CommandResult(0, "")) == (0, 0)


def test_four_a40() -> None:
    found = nvidia.parse(CommandResult(0, recorded("a40x4.xml")))
    assert nvidia.driver_version(found.driver) == (580, 95, 5)
    assert len(found.gpus) == 4
    card = found.gpus[0]
    assert (card.name, card.free) == ("NVIDIA A40", 45467)
    assert (card.gen, card.gen_max, card.width, card.width_max) == (1, 4, 16, 16)
    assert (card.uncorrected, card.remap_pending, card.remap_failed) == (0, False, False)
    assert (card.slowed, card.persistence, card.mig, card.processes) == ((), True, None, ())


def test_an_older_driver_with_older_names() -> None:
    card = nvidia.parse(CommandResult(0, recorded("rtx4090_driver535.xml"))).gpus[0]
    assert card.slowed == ("hw slowdown", "hw thermal slowdown")
    assert (card.uncorrected, card.persistence, card.width, card.gen_card) == (None, False, 8, 4)
    assert card.processes == (nvidia.Process(4242, "python3"),)


def test_what_a_driver_does_not_say_is_unknown() -> None:
    found = nvidia.parse(CommandResult(0, recorded("unknown_gpu.xml")))
    assert found.driver is None
    card = found.gpus[0]
    assert card.name == "NVIDIA GB10"
    assert {card.free, card.gen_max, card.width, card.uncorrected, card.slowed, card.persistence} == {None}


FAILURES = [
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest ...\n",
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n",
    "Unable to determine the device handle for GPU0: 0000:C3:00.0: Unknown Error\n",
    "No devices were found\n",
    "",
    "<nvidia_smi_log><gpu>",
    "\x00\x01\x02",
]


@pytest.mark.parametrize("text", FAILURES)
def test_failures_of_nvidia_smi_are_quoted(text: str) -> None:
    found = nvidia.parse(CommandResult(9, text))
    assert found.gpus == ()
    assert found.why.startswith("nvidia-smi says: ")
    first = text.splitlines()[0][:40] if text.strip() else "nothing"
    assert first.strip("\x00\x01\x02") in found.why


@pytest.mark.parametrize("name", ["a40x4.xml", "rtx4090_driver535.xml", "topo_a40x4_switch.txt", "lspci_acs_on.txt"])
def test_torn_and_garbled_outputs_never_crash(name: str) -> None:
    text, rng = recorded(name), random.Random(7)
    for _ in range(300):
        broken = list(text[: rng.randrange(len(text))] if rng.random() < 0.5 else text)
        for _ in range(rng.randrange(6)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.choice("<>&\t\n x0é\0")
        said = CommandResult(rng.choice([0, 9]), "".join(broken))
        nvidia.parse(said)
        topology.parse_matrix(said.text)
        topology.parse_acs(said)
