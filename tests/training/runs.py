"""Whole training runs in processes of their own, cheaply: a fork of a process that has imported everything."""

import atexit
import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import forked

from openrs.run import checkpoints
from openrs.run.files import read_jsonl, sha256

RECIPE = """
extends: demo
title: a tiny run that survives
model: {{toy: {{seed: 0, layers: 1, hidden: 32, heads: 1, steps: 2, learning_rate: 6e-3}}}}
data: {{source: toy-sums, limit: 12}}
rewards:
  mode: corrected
  workers: 1
  functions: [{{name: "toy_rewards:{reward}", weight: 1.0}}]
grpo:
  max_steps: 20
  warmup_steps: 2
  per_device_train_batch_size: 12
  max_completion_length: 8
  save_steps: 5
evaluation: {{benchmarks: [demo], samples: 1, max_tokens: 8}}
"""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["training_imports"])


def recipe_in(folder: Path, reward: str = "spread") -> Path:
    """The tiny recipe as a file: 2 problems x 6 completions a step, 12 problems, so an epoch is 6 steps."""
    path = folder / f"tiny-{reward}.yaml"
    path.write_text(RECIPE.format(reward=reward))
    return path


@dataclass
class Launched:
    """A launch of the command line that runs, or has run."""

    process: ForkServerProcess
    said: Path

    def wait(self) -> int:
        """Its exit code; of one that a signal killed, minus the signal."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.said.read_text() if self.said.is_file() else ""

    def wait_for(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds; fails when the process ends before."""
        while not holds():
            assert self.process.is_alive() or holds(), f"ended before\n{self.text}"
            time.sleep(0.01)


def _fork_server() -> None:
    """Python before 3.11.10 does not give the fork server our import path, and it leaves out without a word what it
    cannot import."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before.get("PYTHONPATH")])])
    if shim := broken_calls():
        os.environ["LD_PRELOAD"] = str(shim)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def broken_calls() -> Path | None:
    """broken_calls.c as a library that is loaded before all others; None where nothing compiles it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return None
    library = Path(tempfile.mkdtemp(prefix="openrs-shim-")) / "broken_calls.so"
    atexit.register(shutil.rmtree, library.parent, ignore_errors=True)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("broken_calls.c"), "-ldl"]
    return library if subprocess.run(command, check=False).returncode == 0 else None


def start(argv: Sequence[object], fault: Callable[[], None] | None = None, **environment: str) -> Launched:
    """Start `openrs ARGV` in a fork; `fault` runs in it first, and may break whatever it likes."""
    run = argv[argv.index("--run") + 1] if "--run" in argv else argv[1] if argv[0] == "report" else None
    said = Path(f"{str(run).rstrip('/')}.said") if run is not None else Path(os.devnull)
    said.parent.mkdir(parents=True, exist_ok=True)
    _fork_server()
    # a daemon: one that a failed test left behind is ended with pytest, which would wait for it for ever
    process = _context.Process(target=_in_child, args=([str(a) for a in argv], said, fault, environment), daemon=True)
    process.start()
    return Launched(process, said)


def openrs(argv: Sequence[object], fault: Callable[[], None] | None = None, **environment: str) -> tuple[int, str]:
    """Run `openrs ARGV` to its end; returns its exit code and all it said."""
    launched = start(argv, fault, **environment)
    return launched.wait(), launched.text


def _in_child(argv: list[str], said: Path, fault: Callable[[], None] | None, environment: dict[str, str]) -> None:
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.pop("LD_PRELOAD", None)  # for this process only, not for those that it starts
    os.environ.update(environment)
    assert "openrs.training.trainer" in sys.modules, "the fork server has not imported training_imports"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from openrs.cli.main import main
    from openrs.evaluation import engine_pool

    engine_pool.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": forked.Popen})  # type: ignore[assignment]
    if fault is not None:
        fault()
    code = main(argv)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


def fork_ranks() -> None:
    """A fault for `start`: the training processes are forks instead of torchrun's, with the environment that it gives
    them. Saves 20 s of imports; the soak tests use torchrun itself."""
    from openrs.training import launch

    launch.follow = _forked  # type: ignore[assignment]


def _forked(asked: Any, attempt: Path, server: object = None) -> None:
    from openrs.run import processes
    from openrs.training import worker

    words = asked.trainers[asked.trainers.index("openrs.training.worker") + 1 :]
    size = asked.trainers[asked.trainers.index("--nproc_per_node") + 1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(processes.free_port()), "WORLD_SIZE": size}
    pids = []
    for rank in map(str, range(int(size))):
        pid = os.fork()
        if pid == 0:
            os.environ.update({**asked.environment, **meeting, "RANK": rank, "LOCAL_RANK": rank})
            code = 1
            try:
                code = worker.main(words)
            finally:
                os._exit(code)
        pids.append(pid)
    codes = []
    for _ in pids:
        pid, status = os.wait()
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1] not in (0, 75):  # as torchrun does
            for other in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
    processes.raise_first(attempt, max(codes, key=abs), attempt / "processes.log")


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock measured."""
    timed = ("time/", "step_time", "judge/seconds")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_jsonl(run / "metrics.jsonl")]


def final_state(run: Path) -> dict[str, str]:
    """SHA-256 of the last checkpoint's weights, optimizer, schedule and random numbers."""
    folder = checkpoints.list_complete(run / "checkpoints")[-1]
    kinds = ("model*.safetensors", "optimizer*", "scheduler*", "rng_state*", "position.json", "batch-*")
    return {f.name: sha256(f) for kind in kinds for f in sorted(folder.glob(kind))} | {"step": folder.name}


def samples(run: Path) -> dict[str, dict[str, list[Any]]]:
    """The saved completions, by file."""
    import pyarrow.parquet as pq

    return {path.name: pq.read_table(path).to_pydict() for path in sorted((run / "completions").glob("*.parquet"))}


def everything(run: Path) -> dict[str, Any]:
    """All that must be equal between a run that was disturbed and one that was not."""
    return {"rows": rows(run), "final": final_state(run), "samples": samples(run)}


def attempts(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "manifest.json").read_text())["attempts"]
    return found


def sha256_of(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()
