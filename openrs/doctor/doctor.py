"""`openrs doctor [RECIPE]`: what this machine has, what the recipe needs, and how to fix what is missing.

Never imports torch: what needs it runs in child processes with a time limit. Exit 0, or 2 when a line failed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from openrs.config.schema import Recipe
from openrs.doctor import checks_cache, checks_gpu, checks_system, checks_torch, nccl, nvidia
from openrs.doctor.finding import Finding
from openrs.doctor.probe import Probe
from openrs.errors import EXIT_DONE, EXIT_REFUSED, UserError
from openrs.planner.plan import plan
from openrs.planner.render import wrapped

QUICK_LIMIT = 1.2  # seconds for a tool under --quick, which answers in under two
SLOW_LIMIT = 120.0  # seconds for torch to be loaded from a cold disk
MARKS = {"ok": "ok  ", "info": "--  ", "warn": "warn", "fail": "FAIL", "unknown": "?   "}
ANYWHERE = "reproduce demo, report, curate, inputs, results, grade, plan, recipe, fetch, cluster"


def examine(recipe: Recipe | None, runs: Path, probe: Probe, *, quick: bool) -> list[Finding]:
    """All lines. recipe None: the machine alone. quick: only what answers at once, for health checks."""
    mine, unplanned = None, []
    if recipe is not None:
        try:
            mine = plan(recipe)
        except UserError as error:  # a model whose sizes nobody knows yet: the rest can still be looked at
            unplanned = [Finding("plan", "unknown", error.what, "what the recipe takes", error.fix)]
    gpus = mine.workload.gpus if mine is not None else 0
    devices = nvidia.look(probe)
    found = [checks_system.python(), checks_system.packages(), *unplanned]
    found += checks_gpu.lines(probe, devices, mine, quick=quick)
    there = gpus or len(checks_gpu.visible(devices.gpus))
    found += checks_system.limits(there)
    found += [checks_system.processors(probe, mine), checks_system.memory(probe, mine)]
    found += checks_system.volumes(mine, runs)
    patient = replace(probe, limit=SLOW_LIMIT)
    if not quick:
        found += checks_torch.lines(patient, len(devices.gpus))
    cached, hub_time = checks_cache.lines(patient, recipe, quick=quick)
    if not quick:
        found.append(checks_system.writing(runs, mine.disk.checkpoint if mine is not None else 0.0))
    return [*found, checks_system.clock(hub_time), *cached, checks_system.container(probe)]


def code(lines: Sequence[Finding]) -> int:
    return EXIT_REFUSED if any(line.state == "fail" for line in lines) else EXIT_DONE


def render(lines: Sequence[Finding], name: str | None) -> str:
    """The lines as a person reads them, what must be fixed below, and what runs here last."""
    width = max(len(line.name) for line in lines) + 2
    text = [wrapped(f"{MARKS[line.state]}  {line.name:{width}s}{line.found}", " " * (width + 6)) for line in lines]
    for state, head in (
        ("fail", "to be fixed:"),
        ("warn", "slower or risky:"),
        ("unknown", "could not be found out:"),
    ):
        those = [line for line in lines if line.state == state]
        if those:
            text += ["", head]
        for line in those:
            needed = f" needed: {line.needed}." if line.needed else ""
            fix = f" fix: {line.fix}" if line.fix else ""
            text.append(wrapped(f"  {line.name}: {line.found}.{needed}{fix}", "    "))
    return "\n".join([*text, "", verdict(lines, name)]) + "\n"


def verdict(lines: Sequence[Finding], name: str | None) -> str:
    """One line: what runs here, and what does not."""
    failed = [line.name for line in lines if line.state == "fail"]
    if any(line.name == "GPUs" and line.found.startswith("none") for line in lines):
        here = f"No GPU here. What runs: {ANYWHERE}."
        if name is None:
            return f"{here} What does not: exp1 to exp3, and evaluation with vLLM."
        if not failed:
            return f"{name}: ready. {here}"
        if "GPUs" in failed:
            return f"{here} {name} does not: it needs {next(line.needed for line in lines if line.name == 'GPUs')}."
    subject = name or "this machine"
    if failed:
        return f"{subject}: not yet; {', '.join(failed)} must be fixed first"
    return f"{subject}: ready"


def diagnose(recipe: Recipe | None, name: str | None, runs: Path, *, quick: bool, as_json: bool) -> tuple[str, int]:
    """What `openrs doctor` prints, and its exit code."""
    lines = examine(recipe, runs, Probe(QUICK_LIMIT if quick else Probe().limit), quick=quick)
    if as_json:
        document = {"exit": code(lines), "verdict": verdict(lines, name), "lines": [asdict(line) for line in lines]}
        return json.dumps(document, indent=1) + "\n", code(lines)
    return render(lines, name), code(lines)


def require_gpus(recipe: Recipe, name: str) -> None:
    """Refuse, in one line, to start a recipe on a machine that has not its GPUs; does nothing for a CPU recipe."""
    wanted = recipe.hardware.gpus
    if not wanted:
        return
    devices = nvidia.look(Probe())
    here = len(checks_gpu.visible(devices.gpus))
    if here < wanted:
        have = f"{here} GPU{'s' if here > 1 else ''}" if here else f"none ({devices.why})"
        raise UserError(
            f"{name} needs {wanted} x {recipe.hardware.gpu}, this machine has {have}; here run:"
            f" openrs train {name} --dry-run, openrs doctor {name}, openrs reproduce demo"
        )


def measure_nccl(recipe: Recipe | None, run_dir: Path, say: Callable[[str], None]) -> None:
    """`openrs doctor nccl`: see openrs.doctor.nccl."""
    nccl.run(recipe, run_dir, len(checks_gpu.visible(nvidia.look(Probe()).gpus)), say)
