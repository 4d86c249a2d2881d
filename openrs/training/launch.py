"""Start what a recipe needs: this process alone, several by torchrun, a vLLM server next to them. All end together.

Never imports torch by itself, so that `openrs train exp3 --dry-run` answers on a laptop.
"""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

from openrs.config.checks import grpo_value, prompts_per_step
from openrs.config.load import load, to_yaml
from openrs.config.machine import cuda_visible_devices
from openrs.config.names import Layout, is_hub_name
from openrs.config.schema import Recipe
from openrs.doctor import nccl
from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, Interrupted, UserError
from openrs.run import checkpoints, manifest, processes, signals
from openrs.run.directory import Run, run_at
from openrs.run.progress import Progress
from openrs.run.units import format_duration
from openrs.run.vllm_env import vllm_environment
from openrs.training import train as grpo
from openrs.training import vllm_server
from openrs.training.preview import first_prompts
from openrs.training.train import Prepared
from openrs.training.vllm_server import Address, Server

WORKER = ("-m", "openrs.training.worker")
FINE = {EXIT_DONE, EXIT_INTERRUPTED}
STRAGGLERS = 20.0  # seconds for the others when one process has failed; most wait for it in a collective


def in_one_process(recipe: Recipe) -> bool:
    """Whether the recipe trains right here: one process, without ZeRO or vLLM, which need an environment of their own
    from the start and write to the terminal directly, and without fused kernels, which change transformers' modules.
    """
    hardware = recipe.hardware
    alone = hardware.world_size == 1 and not hardware.zero_stage and not hardware.fused_kernels
    return alone and not grpo_value(recipe, "use_vllm")


# --- which runs -------------------------------------------------------------------------------------------------------


def runs(
    name: str, overrides: Sequence[str], run: str | None, seeds: Sequence[int] = (), until: str | None = None
) -> list[tuple[Recipe, Run]]:
    """What `openrs train NAME` is asked for: one run, or one a seed, called <run>-seed<N>.

    `until`: a step, or `released` for the step whose weights the authors published; the schedule stays what it is.
    """
    changes = list(overrides)
    if until is not None:
        changes.append(f"training.stop_after={_step(load(name, overrides), name, until)}")
    called = Path(name).stem if run is None else run
    if not seeds:
        return [_asked(name, changes, called)]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds names one seed twice: {','.join(map(str, seeds))}", "two runs would be one")
    return [_asked(name, [*changes, f"grpo.seed={seed}"], f"{called.rstrip('/')}-seed{seed}") for seed in seeds]


def _asked(name: str, changes: Sequence[str], called: str) -> tuple[Recipe, Run]:
    run = run_at(called)
    return load(name, changes, begun=manifest.has_results(run)), run


def _step(recipe: Recipe, name: str, until: str) -> int:
    if until.isdigit() and int(until) > 0:
        return int(until)
    if until != "released":
        raise UserError(f"--until {until}: neither a step nor `released`", fix="--until released, or --until 100")
    if recipe.paper.released_step is None:
        raise UserError(f"--until released: {name} has no paper.released_step", fix="give the step: --until 100")
    return recipe.paper.released_step


def check_machine(recipe: Recipe, name: str) -> None:
    """Refuse, before anything is written, what cannot start here or would not train."""
    from openrs.doctor.doctor import require_gpus

    require_gpus(recipe, name)
    if grpo_value(recipe, "use_vllm") and find_spec("vllm") is None:
        raise UserError(
            f"{name} generates with vLLM, which is not installed here",
            fix="OPENRS_LOCK=cuda ./scripts/setup, or --set grpo.use_vllm=false, many times slower",
        )
    if recipe.hardware.fused_kernels and find_spec("liger_kernel") is None:
        raise UserError(
            f"{name} sets hardware.fused_kernels, but liger-kernel is not installed here",
            fix="OPENRS_LOCK=cuda ./scripts/setup, or --set hardware.fused_kernels=false",
        )
    if recipe.model.dtype != "float32" and not recipe.hardware.zero_stage and recipe.model.lora is None:
        raise UserError(
            f"{name} would train {recipe.model.dtype} weights in place (hardware.zero_stage is 0)",
            "a weight of 0.02 plus 1e-6 is 0.02 again in 8 bits: 99 of 100 weights would never move",
            "--set hardware.zero_stage=2 keeps float32 weights as well; or --set model.dtype=float32",
        )


# --- what is started --------------------------------------------------------------------------------------------------


class LaunchPlan(NamedTuple):
    """Commands and what their environments have beyond ours. `server` is None but in the split layout."""

    trainers: list[str]
    environment: dict[str, str]
    server: list[str] | None
    server_environment: dict[str, str]


def plan(
    recipe: Recipe, run: Run, attempt: Path, model: str, *, start: Path | None, ports: Sequence[int | str]
) -> LaunchPlan:
    """What training in several processes starts. `ports`: of the vLLM server, and for the weights."""
    split = recipe.hardware.layout is Layout.SPLIT
    # The first of the GPUs that we were given, as CUDA_VISIBLE_DEVICES names them.
    devices = (cuda_visible_devices() or [*map(str, range(recipe.hardware.gpus))])[: recipe.hardware.gpus]
    words = [str(run.path), "--attempt", str(attempt)]
    if start is not None:
        words += ["--from-checkpoint", str(start)]  # torchrun takes --start for its own --start-method
    if split:
        words += ["--server", str(ports[0]), "--group-port", str(ports[1])]
    torchrun = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", str(recipe.hardware.world_size)]
    return LaunchPlan(
        trainers=[sys.executable, "-m", "torch.distributed.run", *torchrun, *WORKER, *words],
        environment=_environment(recipe, run, devices[:-1] if split else devices),
        server=vllm_server.command(recipe, model, ports[0]) if split else None,
        server_environment=vllm_server.environment(devices[-1] if devices else None) | _nccl(recipe, run)
        if split
        else {},
    )


def _environment(recipe: Recipe, run: Run, devices: Sequence[str]) -> dict[str, str]:
    """For the training processes on this machine. What a user has set stays, but for what must fit together."""
    usual = {
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",  # one machine: no name needs to be resolved
        "VLLM_HOST_IP": vllm_server.HOST,
    }
    fixed = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if recipe.hardware.gpus else {}
    return {name: os.environ.get(name, value) for name, value in usual.items()} | environment(recipe, run) | fixed


def environment(recipe: Recipe, run: Run) -> dict[str, str]:
    """For the training processes on any machine."""
    usual = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    own = {name: os.environ.get(name, value) for name, value in usual.items()} | vllm_environment(os.environ)
    return own | {"DS_ACCELERATOR": "cuda" if recipe.hardware.gpus else "cpu"} | _nccl(recipe, run)


def _nccl(recipe: Recipe, run: Run) -> dict[str, str]:
    """What OPENRS_NCCL asks for (docs/doctor.md): measured, safe, or nothing; trainers and generator alike."""
    return nccl.environment(run.path, os.environ) if recipe.hardware.gpus > 0 else {}


# --- a dry run --------------------------------------------------------------------------------------------------------


def describe(recipe: Recipe, run: Run) -> str:
    """The exact commands, environment and settings of a launch, without starting or writing anything."""
    hardware, number = recipe.hardware, len(run.attempts()) + 1
    attempt = run.path / "attempts" / f"{number:02d}"
    model = recipe.model.name
    if recipe.model.toy is not None:
        model = str(run.path / "base")
    elif is_hub_name(model):
        model = f"<folder of {model} at {recipe.model.revision}>"
    problems, group = prompts_per_step(recipe), grpo_value(recipe, "num_generations")
    head = f"{recipe.title}\nrun: {run.path}, attempt {number}; recipe sha256 {recipe.hash[:12]}\n"
    parts = [head + f"a step: {problems} problems x {group} completions; {recipe.last_step} steps\n"]
    if in_one_process(recipe):
        parts.append("training: in this process\n")
    else:
        started = plan(recipe, run, attempt, model, start=None, ports=["<free port>", "<free port>"])
        if started.server is not None:
            parts.append(
                _command("generation: a vLLM server on the last GPU", started.server, started.server_environment)
            )
        where = ", vLLM inside each" if hardware.layout is Layout.COLOCATE else ""
        zero = f", ZeRO-{hardware.zero_stage}" if hardware.zero_stage else ""
        title = f"training: {hardware.world_size} processes (layout {hardware.layout}){where}{zero}"
        parts.append(_command(title, started.trainers, started.environment))
    parts.append(first_prompts(recipe))
    weights = [reward.weight for reward in recipe.rewards.functions]
    settings = grpo.grpo_settings(recipe, run.checkpoints / ".staging", weights)
    parts.append("what TRL's GRPOConfig gets:\n" + _indented(yaml.safe_dump(settings, sort_keys=False, width=1000)))
    parts.append("recipe, resolved:\n" + _indented(to_yaml(recipe)))
    return "\n".join(parts)


def _command(title: str, words: Sequence[str], environment: dict[str, str]) -> str:
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return f"{title}\n" + _indented(" \\\n".join([*settings, shlex.join(words)]) + "\n")


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


# --- a run ------------------------------------------------------------------------------------------------------------


def train(recipe: Recipe, run: Run, progress: Progress, prepared: Prepared | None = None) -> Path:
    """Train in as many processes as the recipe needs; returns the last checkpoint. `prepared`: when the caller has it.

    The caller holds the run's lock and an attempt. What ends a training process ends the call in the same way:
    UserError, Interrupted, RunFailure.
    """
    prepared = prepared or grpo.prepare(recipe, run, progress)
    if prepared.done and prepared.start is not None:
        progress.say(f"training is done: {prepared.start.name} is complete")
        return prepared.start
    if in_one_process(recipe):
        return grpo.train_from(recipe, run, progress, prepared)
    nccl.measure_once(recipe, run.path, progress.say)
    attempt = run.attempts()[-1]
    address = Address(processes.free_port(), processes.free_port())
    ports = [address.port, address.group_port]
    started = plan(recipe, run, attempt, str(prepared.model), start=prepared.start, ports=ports)
    server = None
    chosen = _nccl(recipe, run)
    if chosen:
        progress.say("NCCL: " + " ".join(f"{name}={value}" for name, value in chosen.items()))
    try:
        if started.server is not None:
            progress.say("starting the vLLM server")
            server = Server(started.server, started.server_environment, address, attempt / "server.log")
            took = server.wait_healthy(grpo_value(recipe, "vllm_server_timeout"))
            progress.say(f"the vLLM server is ready after {format_duration(took)}")
        progress.say(f"training in {recipe.hardware.world_size} processes")
        follow(started, attempt, server)
    finally:
        if server is not None:
            server.stop()
    return checkpoints.folder_of(run.checkpoints, recipe.last_step)


def follow(started: LaunchPlan, attempt: Path, server: Server | None = None) -> None:
    """Run the training processes to their end, and raise what ended them. A signal that comes is theirs: they take a
    checkpoint. A dead server, or one dead among them, ends the others."""
    log = attempt / "processes.log"
    trainers = processes.Child(started.trainers, started.environment, log)
    signalled: set[int] = set()  # workers that have got the signal
    code, failed_at = None, None
    try:
        with signals.defer():
            while (code := trainers.wait(0.5)) is None:
                if server is not None:
                    server.check()
                if signals.pending_signal():
                    signalled |= processes.signal_workers(attempt, signals.pending_signal(), signalled)
                if failed_at is None and any(end.code not in FINE for end in processes.outcomes(attempt)):
                    failed_at = time.monotonic()
                if failed_at is not None and time.monotonic() - failed_at > STRAGGLERS:
                    break
    finally:
        trainers.stop()  # the workers die with torchrun (worker.py)
    if signals.pending_signal() and not processes.outcomes(attempt):
        raise Interrupted(
            f"{signals.name(signals.pending_signal())} before the first step; the same command starts again"
        )
    processes.raise_first(attempt, code if code is not None else 1, log)
