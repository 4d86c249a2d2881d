"""NCCL, measured instead of guessed: a timed all-reduce with the defaults and with the settings known to be safe.

The one table of what is set stands in docs/doctor.md; SYSTEM and SAFE below are it. NCCL's documentation calls its
transport variables debugging aids that must not stay in scripts: none but SAFE's is ever set, and that only when it
was measured to be better, or asked for (OPENRS_NCCL=safe).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from openrs.config.schema import Recipe
from openrs.doctor.allreduce import START, Try, attempt
from openrs.errors import RunFailure, UserError
from openrs.outside import read_shape
from openrs.planner.gpus import find
from openrs.planner.workload import workload_of
from openrs.run.confined import refuse_links_out
from openrs.run.files import now, write_json

Mode = Literal["auto", "safe", "off"]
MODES: tuple[Mode, ...] = ("auto", "safe", "off")
RESULT = "nccl.json"

# Between A40s on PCIe: GPUs do not write to each other, everything goes through shared memory. What ACS and IOMMU hang
# is exactly the writing; where GPUs hang behind different root ports NCCL does the same by itself, so it costs nothing.
SAFE: Mapping[str, str] = {"NCCL_P2P_DISABLE": "1"}

BETTER = 1.05  # the safe settings must be this much faster to be taken when both work


def system(run_dir: Path) -> dict[str, str]:
    """System configuration, the same in every mode: what NCCL says, and what it leaves when it hangs.

    The flight recorder keeps the last 2,000 collectives and writes them into the run when one times out
    (torch 2.13, torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp; tools/flight_recorder reads them).
    """
    return {
        "NCCL_DEBUG": "WARN",
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": str(run_dir.absolute() / "nccl-trace-rank-"),
    }


def mode_of(environ: Mapping[str, str]) -> Mode:
    """OPENRS_NCCL, auto when unset. Raises UserError for another word."""
    word = environ.get("OPENRS_NCCL", "").strip().lower() or "auto"
    if word not in MODES:
        raise UserError(
            f"OPENRS_NCCL={word} is not a mode", fix="auto (measured), safe (no P2P), or off (NCCL's own defaults)"
        )
    return word


def environment(run_dir: Path, given: Mapping[str, str]) -> dict[str, str]:
    """What `train` sets for trainers and generator alike, and logs. What stands in `given`, the process's environment,
    is left alone.

    auto takes the winner that `openrs doctor nccl` wrote into the run; without one, NCCL's own defaults.
    Raises UserError when that file is damaged.
    """
    mode = mode_of(given)
    measured = read(run_dir) if mode == "auto" else None
    chosen = SAFE if mode == "safe" else measured["env"] if measured is not None else {}
    return {name: value for name, value in {**system(run_dir), **chosen}.items() if name not in given}


def read(run_dir: Path) -> dict[str, Any] | None:
    """The run's nccl.json: {"mode", "winner", "env", "evidence", ...}, or None when nothing was measured.

    Raises UserError when it is damaged, and when it says that nothing worked.
    """
    path = run_dir / RESULT
    fix = "measure again: openrs doctor nccl RECIPE --run RUN; or set OPENRS_NCCL=safe"
    try:
        found = read_shape(path, {"env": {"*": str}})
        whole = all(SAFE.get(name) == value for name, value in found["env"].items())
    except UserError:
        if not os.path.lexists(path):
            return None
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged, or sets what openrs never sets", fix=fix)
    if found.get("winner") is None:
        raise UserError(f"{path}: the GPUs could not talk to each other when it was measured", fix=fix)
    return found


def gradient_sizes(parameters: int, element: int) -> tuple[int, ...]:
    """Bytes of the messages of a run: a small one, and DeepSpeed's bucket (or all gradients when there are fewer)."""
    return 1 << 20, min(500_000_000, max(1, parameters)) * element


def measure(
    run_dir: Path,
    *,
    ranks: int,
    sizes: Sequence[int],
    say: Callable[[str], None] = lambda _: None,
    start: float = START,
    **options: Any,
) -> dict[str, Any]:
    """Try the defaults and the safe settings, and write the winner with its evidence to the run's nccl.json.

    torch is loaded once beforehand, perhaps from a cold disk. What works wins; of two that work the defaults, unless
    the safe settings are 5 % faster. start, options: see `attempt`.
    Raises UserError (after writing the evidence) when all-reduces began and neither works; RunFailure, and nothing is
    written, when the ranks did not come so far: that says nothing of NCCL, and the next start may be quicker.
    """
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):  # so that a slow disk does not look like a hang
        subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, timeout=start, check=False)
    tries: list[Try] = []
    for name, env in (("defaults", {}), ("safe", dict(SAFE))):
        one = attempt(name, env, ranks=ranks, sizes=sizes, start=start, **options)
        say(f"{name}: {one.outcome}, {one.detail} ({one.seconds:.0f} s)")
        tries.append(one)
        if one.outcome == "slow":
            break  # settings of NCCL make no start quicker
    winner = choose(tries)
    outcomes = "; ".join(f"{one.name}: {one.outcome}, {one.detail}" for one in tries)
    if winner is None and not all(one.begun for one in tries):
        raise RunFailure(
            f"the links between the GPUs could not be measured: {outcomes}",
            "not every process came to its first all-reduce; nothing is written",
            "the same command tries again; see why with: openrs doctor; OPENRS_NCCL=safe trains without a measurement",
        )
    found = {
        "mode": "auto",
        "winner": winner.name if winner else None,
        "env": dict(winner.env) if winner else {},
        "evidence": [asdict(one) for one in tries],
        "backend": options.get("backend", "nccl"),
        "ranks": ranks,
        "measured": now(),
    }
    write_json(run_dir / RESULT, found)
    if winner is None:
        raise UserError(
            f"GPUs cannot talk to each other: {outcomes}",
            "training would hang in its first step",
            "see /dev/shm, driver and topology in: openrs doctor; or take another node",
        )
    return found


def measure_once(recipe: Recipe, run_dir: Path, say: Callable[[str], None]) -> None:
    """Before training: measure, where several GPUs have to talk, OPENRS_NCCL is auto and nothing is measured yet."""
    if recipe.hardware.gpus > 1 and mode_of(os.environ) == "auto" and read(run_dir) is None:
        say("measuring the links between the GPUs")
        run(recipe, run_dir, recipe.hardware.gpus, say)


def choose(tries: Sequence[Try]) -> Try | None:
    """The try to keep, or None when none worked."""
    best = None
    for one in tries:
        if one.outcome == "ok" and (best is None or (one.bandwidth or 0.0) > BETTER * (best.bandwidth or 0.0)):
            best = one
    return best


def run(recipe: Recipe | None, run_dir: Path, gpus: int, say: Callable[[str], None]) -> None:
    """`openrs doctor nccl`: measure for a recipe (its gradient sizes, all its GPUs) or for all GPUs that are there.

    gpus: how many are visible. Under OPENRS_NCCL=safe or off it only says so, so that compose and the Job can always
    call it. Raises UserError where there are too few GPUs, or where nothing works.
    """
    mode = mode_of(os.environ)
    if mode != "auto":
        settings = ", ".join(SAFE) if mode == "safe" else "nothing"
        return say(f"OPENRS_NCCL={mode}: nothing is measured, {settings} is set")
    ranks = recipe.hardware.gpus if recipe is not None else gpus
    if recipe is not None and not ranks:
        return say("this recipe runs without GPUs: there is nothing to measure")
    if gpus < max(1, ranks):
        what = f"NCCL is to be measured between {ranks or 'some'} GPUs, this machine has {gpus or 'none'}"
        raise UserError(what, fix="see why with: openrs doctor")
    run_dir.mkdir(parents=True, exist_ok=True)
    refuse_links_out(run_dir)
    if ranks == 1:
        write_json(
            run_dir / RESULT, {"mode": "auto", "winner": "one GPU", "env": {}, "evidence": [], "measured": now()}
        )
        return say("one GPU: nobody to talk to")
    parameters, element = 1_500_000_000, 2
    if recipe is not None:
        job = workload_of(recipe, find(recipe.hardware.gpu))
        parameters, element = job.trained, job.element
    found = measure(run_dir, ranks=ranks, sizes=gradient_sizes(parameters, element), say=say)
    settings = ", ".join(f"{name}={value}" for name, value in found["env"].items()) or "NCCL's own defaults"
    return say(f"train will use {settings} (written to {run_dir / RESULT})")
