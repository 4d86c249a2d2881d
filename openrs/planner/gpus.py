"""GPUs that the planner and the doctor know (gpus.yaml). One that is not there has its name and no figures."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from openrs.config.yaml_lines import read_yaml

TABLE = Path(__file__).with_name("gpus.yaml")


@dataclass(frozen=True, slots=True)
class Gpu:
    """memory in GiB, bandwidth and link in GB/s (1e9), tflops in bf16 dense, price in US dollars an hour for one.

    None stands for unknown. `measured_only` marks a CPU: its figures are only a scale that a measured run is laid on.
    """

    name: str
    memory: float | None = None
    bandwidth: float | None = None
    tflops: float | None = None
    link: float | None = None
    capability: float | None = None
    price: float | None = None
    measured_only: bool = False


CPU = Gpu("CPU", bandwidth=10.0, tflops=0.05, link=10.0, price=0.0, measured_only=True)


@functools.cache
def known() -> dict[str, Gpu]:
    rows = read_yaml(TABLE)[0]
    return {
        name: Gpu(name, **{key: value for key, value in row.items() if key != "names"}) for name, row in rows.items()
    }


@functools.cache
def _by_name() -> dict[str, Gpu]:
    rows = read_yaml(TABLE)[0]
    return {plain(alias): known()[name] for name, row in rows.items() for alias in (name, *row["names"])}


def plain(name: str) -> str:
    """A GPU's name without vendor, case and punctuation: `NVIDIA-A100-SXM4-80GB` is `a100 sxm4 80gb`."""
    words = re.sub(r"[^a-z0-9.]+", " ", name.lower()).split()
    return " ".join(word for word in words if word not in {"nvidia", "tesla", "quadro"})


def find(name: str) -> Gpu:
    """The GPU called so by the recipe, nvidia-smi or Kubernetes; an unknown one has only its name. `none` is a CPU."""
    if plain(name) in {"none", "cpu", ""}:
        return CPU
    return _by_name().get(plain(name), Gpu(name))
