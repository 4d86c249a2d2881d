"""What keeps a run alive: it stops where it can resume, keeps the right checkpoints, and never hangs for long."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from openrs.config.schema import Recipe
from openrs.errors import EXIT_FAILED, Interrupted
from openrs.run import checkpoints, manifest, processes, signals
from openrs.run.directory import Run
from openrs.run.processes import Outcome
from openrs.run.progress import Progress
from openrs.run.signals import Deadline
from openrs.run.units import format_duration
from openrs.training.trainer import Trainer
from openrs.training.watchdog import Watchdog

DEADLINE = 1_000  # no signal has this number
CONSTRUCTION = 900.0  # seconds to load models and start vLLM, and again to start DeepSpeed; NCCL itself waits for 1,800


@contextmanager
def watched(recipe: Recipe, run: Run, progress: Progress) -> Iterator[Watchdog]:
    """Around all that may hang in a training process, from the trainer's construction to the last step: the first
    collective of all is in the construction, where vLLM is started."""
    attempt = run.attempts()[-1]

    def record_hang(text: str) -> None:
        progress.say(text)
        if recipe.hardware.world_size > 1:
            processes.write_outcome(attempt, Outcome(processes.rank(), EXIT_FAILED, text))
        else:
            manifest.end(run, EXIT_FAILED, text)

    watchdog = Watchdog(
        attempt,
        rank=processes.rank(),
        siblings=processes.worker_pids(attempt),
        factor=recipe.training.watchdog_factor,
        least=recipe.training.watchdog_least,
        say=record_hang,
    )
    watchdog.expect(CONSTRUCTION)
    try:
        yield watchdog
    finally:
        watchdog.stop()  # however training ended, no watchdog stays behind


@contextmanager
def run_with_lifecycle(
    trainer: Trainer, recipe: Recipe, run: Run, progress: Progress, watchdog: Watchdog
) -> Iterator[None]:
    """Around `trainer.train()`, on every process. Raises Interrupted when the run was asked to stop and has."""
    lifecycle = Lifecycle(trainer, recipe, run, progress, watchdog)
    trainer.add_callback(lifecycle)
    with signals.defer():
        yield
    if lifecycle.why is not None:
        raise Interrupted(f"{lifecycle.why}; the same command resumes from there")


class Lifecycle(TrainerCallback):  # type: ignore[misc]
    """On every process: the same decision at the same step. On the main one: retention, and the log about it.

    why: the reason to stop before the last step; None while there is none.
    """

    def __init__(self, trainer: Trainer, recipe: Recipe, run: Run, progress: Progress, watchdog: Watchdog) -> None:
        self._trainer, self._recipe, self._run, self._progress = trainer, recipe, run, progress
        self._last = recipe.last_step
        self._deadline = Deadline(recipe.training.max_hours, recipe.training.must_save_by, manifest.started(run))
        self._step_began = time.monotonic()
        self._watchdog = watchdog
        self.why: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            manifest.record_attempt(self._run, from_step=state.global_step)
            if state.global_step:
                self._progress.say(f"resuming from the checkpoint of step {state.global_step}")
        here = os.uname().nodename
        self._watchdog.siblings = [pid for node, pid in gather_object([(here, os.getpid())]) if node == here]
        self._watchdog.alive()
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._watchdog.beat()
        now = time.monotonic()
        self._deadline.stepped(now - self._step_began)
        self._step_began = now
        mine = signals.pending_signal() or (DEADLINE if self._deadline.near() else 0)
        accelerator = self._trainer.accelerator  # when one process has to stop, all do, at the same step
        request = int(accelerator.gather(torch.tensor([mine], device=accelerator.device)).max())
        if request == DEADLINE and state.global_step < self._last:
            self.why = "the deadline is near (training.max_hours or must_save_by)"
        elif request and request != DEADLINE:
            self.why = signals.name(request)
        if state.global_step >= self._last or self.why is not None:
            control.should_training_stop = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._deadline.saved(self._trainer.checkpoint_seconds)
        self._watchdog.alive()
        self._step_began = time.monotonic()
        took = f"{self._trainer.checkpoint_seconds:.2f} s"
        if self.why is not None:
            since = f", {format_duration(signals.seconds_since())} after the signal" if signals.pending_signal() else ""
            self.why += f": the checkpoint of step {state.global_step} is complete{since} (written in {took})"
        if not state.is_world_process_zero:
            return
        self._progress.note(f"checkpoint of step {state.global_step} is complete, in {took}")
        complete = checkpoints.list_complete(self._run.checkpoints)
        scored = [place for place in complete if (self._run.evaluation(place.name) / "scores.json").is_file()]
        for folder in checkpoints.prune(self._run.checkpoints, self._recipe, [*map(checkpoints.step_of, scored)]):
            self._progress.note(f"{folder.name} deleted: newer ones are complete")
