"""What a recipe's Job requests, from the plan: GPUs, CPUs, memory, disk, time. Never imports torch."""

import math
from dataclasses import dataclass, field

from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.planner.plan import ResourcePlan, plan
from openrs.run.units import GIB

CPUS_PER_GPU = 4  # a trainer, a judge, and their loaders
SHM_PER_GPU = 4  # GiB of /dev/shm: NCCL's buffers, and vLLM's
SLOWEST_DISK = 50e6  # bytes a second: a checkpoint written this slowly still completes within the grace period
LONGEST_STEP = 172.0  # seconds: the authors' own
SLACK = 3.0  # deadline / planned time


@dataclass(frozen=True, slots=True)
class Sizes:
    """Quantities as Kubernetes writes them; None: as in the manifest. deadline and grace in seconds."""

    gpus: int
    cpu: str | None = None
    memory: str | None = None
    shm: str | None = None
    storage: str | None = None
    deadline: int | None = None
    grace: int | None = None
    notes: list[str] = field(default_factory=list)


def sizes_of(recipe: Recipe) -> Sizes:
    """What the recipe needs. For an unknown model: CPUs and shared memory by its GPUs, the rest from the manifest."""
    gpus = recipe.hardware.gpus
    cpu = str(CPUS_PER_GPU * gpus) if gpus else None
    shm = SHM_PER_GPU * gpus
    try:
        planned = plan(recipe)
    except UserError as error:
        note = f"memory and disk are the manifest's, because the recipe cannot be planned: {error.what}"
        return Sizes(gpus, cpu, shm=f"{shm}Gi" if gpus else None, notes=[note])
    notes = []
    if planned.fits is False:
        notes.append(f"by the plan the recipe does not fit on {gpus} x {recipe.hardware.gpu}; see openrs plan")
    return Sizes(
        gpus=gpus,
        cpu=cpu,
        memory=f"{_memory(planned, shm)}Gi",
        shm=f"{shm}Gi" if gpus else None,
        storage=f"{_storage(planned)}Gi",
        deadline=_deadline(planned),
        grace=_grace(planned),
        notes=notes,
    )


def _memory(planned: ResourcePlan, shm: int) -> int:
    """GiB. /dev/shm counts, and so does the page cache that a checkpoint fills."""
    host = planned.host / GIB
    return _up(1.4 * (host + shm), 8) if planned.workload.gpus else _up(1.1 * host, 2)


def _storage(planned: ResourcePlan) -> int:
    """GiB for the run at its fullest, what is fetched, and a third more for evaluations and slack."""
    whole = 1.35 * (planned.disk.run + planned.disk.cache) / GIB
    return _up(whole, 50) if planned.workload.gpus else _up(whole, 1)


def _deadline(planned: ResourcePlan) -> int | None:
    """Training and as much again for evaluation, times three: waiting for GPUs counts, too."""
    return None if planned.hours is None else math.ceil(SLACK * 2 * planned.hours) * 3600


def _grace(planned: ResourcePlan) -> int:
    """Seconds to end a step and to write a checkpoint to a slow disk, and half as much again, in minutes."""
    step = max(planned.step or 0.0, LONGEST_STEP if planned.workload.gpus else 0.0)
    return _up(1.2 * (step + planned.disk.checkpoint / SLOWEST_DISK), 60)


def _up(value: float, step: int) -> int:
    return max(step, math.ceil(value / step) * step)
