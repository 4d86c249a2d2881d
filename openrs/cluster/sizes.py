"""How much a recipe's Job asks for, by the planner: GPUs, CPUs, memory, disk, time. Never imports torch."""

import math
from dataclasses import dataclass, field

from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.planner.memory import GIB
from openrs.planner.plan import ResourcePlan, plan

CPUS_PER_GPU = 4  # a trainer, a judge, and their loaders
SHM_PER_GPU = 4  # GiB of /dev/shm: NCCL's buffers, and vLLM's
SLOWEST_DISK = 50e6  # bytes a second that a checkpoint may be written with, and still be whole before the end
LONGEST_STEP = 172.0  # seconds: the authors' own
SLACK = 3.0  # of the deadline, over what is planned


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
    """What the recipe needs. Where nobody knows the model's sizes: what its GPUs say, the manifest's for the rest."""
    gpus = recipe.hardware.gpus
    cpu = str(CPUS_PER_GPU * gpus) if gpus else None
    shm = SHM_PER_GPU * gpus
    try:
        planned = plan(recipe)
    except UserError as error:
        note = f"memory and disk are those of the manifest, the plan is unknown: {error.what}"
        return Sizes(gpus, cpu, shm=f"{shm}Gi" if gpus else None, notes=[note])
    notes = []
    if planned.fits is False:
        notes.append(f"the plan says that it does not fit on {gpus} x {recipe.hardware.gpu}: openrs plan tells more")
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
    """GiB. /dev/shm counts, and so do pages that a checkpoint leaves behind: they can be dropped, but only in time."""
    host = planned.host / GIB
    return _up(1.4 * (host + shm), 8) if planned.job.gpus else _up(1.1 * host, 2)


def _storage(planned: ResourcePlan) -> int:
    """GiB for the run at its fullest, what is fetched, and a third for evaluations and for what was not foreseen."""
    whole = 1.35 * (planned.disk.run + planned.disk.cache) / GIB
    return _up(whole, 50) if planned.job.gpus else _up(whole, 1)


def _deadline(planned: ResourcePlan) -> int | None:
    """Training and as much again for evaluation, and three times that: it counts waiting for GPUs, too."""
    return None if planned.hours is None else math.ceil(SLACK * 2 * planned.hours) * 3600


def _grace(planned: ResourcePlan) -> int:
    """Seconds to end a step and to write a checkpoint to a slow disk, and half as much again, in minutes."""
    step = max(planned.step or 0.0, LONGEST_STEP if planned.job.gpus else 0.0)
    return _up(1.2 * (step + planned.disk.checkpoint / SLOWEST_DISK), 60)


def _up(value: float, step: int) -> int:
    return max(step, math.ceil(value / step) * step)
