"""Mirrors of metrics.jsonl for those who like to look at curves elsewhere: TensorBoard, wandb, trackio.

metrics.jsonl is the truth. A mirror is written anew from it when training starts or resumes, then a row a step; nothing
that a mirror does can stop a training, and none of them talks to the network while it runs. `openrs track RUN --to
wandb` makes one whenever it is wanted, then with the network as that tool does it.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

from openrs.errors import ExplainedError, RunFailure, UserError
from openrs.run import manifest
from openrs.run.directory import Lock, Run
from openrs.run.files import now, step_rows
from openrs.secrets import redact

Row = Mapping[str, Any]
KINDS = ("tensorboard", "wandb", "trackio")


class Tracker(Protocol):
    """A mirror that is open. It may raise anything."""

    def write(self, row: Row, seconds: float) -> None:
        """Mirror one row, that of the moment `seconds` (since 1970)."""

    def close(self) -> None: ...


class TensorBoard:
    """An event file in the run's tensorboard/, one event a step with all its numbers. Written at once and by ourselves:
    TensorBoard's own writer is a thread, which would meet a full disk where nobody can catch it."""

    def __init__(self, run: Run, *, live: bool) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = run.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._writer = RecordWriter((folder / "events.out.tfevents.0.openrs").open("wb"))
        began = manifest.started(run, first=True)
        self._writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())

    def write(self, row: Row, seconds: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers(row).items()]
        event = Event(wall_time=seconds, step=row["step"], summary=Summary(value=values))
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A wandb run of its own for each mirror: wandb cannot take back what it was told. Live ones are offline, under the
    run's wandb/ (`wandb sync` uploads them)."""

    def __init__(self, run: Run, *, live: bool) -> None:
        import wandb

        quietly: dict[str, Any] = {"settings": wandb.Settings(console="off", silent=True)}
        mode = {"mode": "offline", **quietly} if live else {}
        self._run = wandb.init(
            project="openrs", name=_name(run, live=live), dir=str(run.path), config=_about(run), **mode
        )

    def write(self, row: Row, seconds: float) -> None:
        self._run.log({**numbers(row), "_timestamp": seconds}, step=row["step"])

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A trackio run of its own for each mirror, in its local database."""

    def __init__(self, run: Run, *, live: bool) -> None:
        if live:  # its database would else lie in the home folder, outside of the run
            os.environ.setdefault("TRACKIO_DIR", str((run.path / "trackio").resolve()))
        import trackio

        self._trackio = trackio
        # The machine's load, which trackio would log by itself, says nothing of the run when this is made afterwards.
        quietly = {"auto_log_gpu": False, "auto_log_cpu": False}
        trackio.init(project="openrs", name=_name(run, live=live), config=_about(run), resume="never", **quietly)

    def write(self, row: Row, seconds: float) -> None:
        self._trackio.log(numbers(row), step=row["step"])

    def close(self) -> None:
        self._trackio.finish()


MAKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


def numbers(row: Row) -> dict[str, float]:
    """What a curve can be drawn of."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _name(run: Run, *, live: bool) -> str:
    return f"{run.path.resolve().name}-{f'attempt{len(run.attempts())}' if live else now()}"


def _about(run: Run) -> dict[str, Any]:
    known = manifest.read(run)
    return {"recipe": known.get("recipe"), "model": known.get("model"), "seeds": known.get("seeds")}


def require(kinds: Iterable[str]) -> None:
    """Raises UserError for a tracker that is not installed."""
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise UserError(
                f"the tracker {kind} is not installed",
                fix=f"pip install 'openrs[{kind}]', or take it out of training.trackers",
            )


class Mirrors:
    """The trackers of a training. Opening them writes what metrics.jsonl has; each is given up when it first fails."""

    def __init__(self, run: Run, kinds: Iterable[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._clock = Clock(run)
        self._open: dict[str, Tracker] = {}
        for kind in kinds:
            self._guarded(kind, partial(self._start, kind, run))
        for row in step_rows(run.metrics):
            self.write(row)

    def write(self, row: Row) -> None:
        seconds = self._clock.after(row)
        for kind, tracker in list(self._open.items()):
            self._guarded(kind, partial(tracker.write, row, seconds))

    def close(self) -> None:
        for kind, tracker in list(self._open.items()):
            self._guarded(kind, tracker.close)
        self._open.clear()

    def _start(self, kind: str, run: Run) -> None:
        self._open[kind] = MAKERS[kind](run, live=True)

    def _guarded(self, kind: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - trackers are a named fault boundary: they fail in their own ways
            self._open.pop(kind, None)
            reason = redact(f"{type(error).__name__}: {error}".splitlines()[0])
            self._say(
                f"the tracker {kind} broke ({reason}): training continues without it; afterwards"
                f" `openrs track RUN --to {kind}` makes it anew from metrics.jsonl"
            )


class Clock:
    """The moment of each row: the run's first start and the seconds of the steps since. So a mirror made afterwards is
    equal to the live one, and a pause between attempts leaves no gap in its curves."""

    def __init__(self, run: Run) -> None:
        self._seconds = manifest.started(run, first=True)

    def after(self, row: Row) -> float:
        self._seconds += float(row.get("time/step") or 0.0)
        return self._seconds


def rebuild(run: Run, kind: str) -> int:
    """Make a mirror of a run's metrics.jsonl anew; returns the number of steps in it.

    Raises UserError when the tracker is not installed or there are no metrics, RunFailure when the tracker breaks.
    """
    require([kind])
    rows, clock = list(step_rows(run.metrics)), Clock(run)
    if not rows:
        raise UserError(f"{run.path} has no metrics yet", fix="train first")
    try:
        with Lock(run) if kind == "tensorboard" else nullcontext():  # whoever trains has its files open
            tracker = MAKERS[kind](run, live=False)
            for row in rows:
                tracker.write(row, clock.after(row))
            tracker.close()
    except ExplainedError:
        raise
    except Exception as error:
        raise RunFailure(
            f"the tracker {kind} broke: {redact(str(error))}", fix="metrics.jsonl is whole: try again"
        ) from error
    return len(rows)
