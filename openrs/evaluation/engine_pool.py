"""Engines side by side: one plain process for each GPU, all of them taking work from one queue.

The processes die with this one, however it ends. Whoever reads the samples may take his time (the judge does): reading
and handing out work happen in a thread for each process, so no GPU ever waits for it.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrs.errors import RunFailure, UserError
from openrs.evaluation.engine_process import batch_line
from openrs.evaluation.engines import EngineLayout
from openrs.evaluation.sampling import EngineSettings, NextBatch, OnTokens, Sample
from openrs.run.confined import make_folder, open_appending
from openrs.run.files import last_lines


class EngineProcess:
    """One engine's process as its parent sees it. It imports its libraries at once, and then waits for `load`."""

    def __init__(self, number: int, device: str | None, engine: str) -> None:
        self.number, self.name, self.log = number, f"engine {number}", Path(os.devnull)
        gpu = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "openrs.evaluation.engine_process", str(os.getpid()), engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # until it gets its log
            start_new_session=True,  # Ctrl-C is for us
            env={**os.environ, **gpu},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answer = self._process.stdin, self._process.stdout

    def load(self, settings: EngineSettings, log: Path) -> None:
        self.log = log
        os.close(open_appending(log))
        self.give(json.dumps({"log": str(log.resolve()), "settings": asdict(settings)}).encode("ascii") + b"\n")

    def give(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # its death is heard at the other pipe
            self._ask.write(line)
            self._ask.flush()

    def hear(self) -> dict[str, Any]:
        """Its next message. Raises UserError for a model that cannot be used, RunFailure when it died."""
        line = self._answer.readline()
        if not line:
            status = self._process.wait()
            output = "".join(f"\n  | {line}" for line in last_lines(self.log))
            raise RunFailure(
                f"{self.name} ended with status {status}{output}",
                "it ran out of memory, perhaps, or the GPU failed",
                f"the same command generates only what is missing; all that it said: {self.log}",
            )
        message: dict[str, Any] = json.loads(line)
        if "refused" in message:
            raise UserError(*message["refused"])
        return message

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._ask, self._answer):
            with contextlib.suppress(OSError):
                pipe.close()


class EnginePool:
    """Starts the engines' processes: they import while the caller plans, and wait for `load`. To be closed."""

    def __init__(self, layout: EngineLayout) -> None:
        self._at_hand = 0
        self._engines: list[EngineProcess] = []
        try:
            for number, device in enumerate(layout.devices):
                self._engines.append(EngineProcess(number, device, layout.engine))
        except BaseException:
            self.close()
            raise

    def load(self, settings: EngineSettings, at_hand: int, logs: Path) -> None:
        """Have the model loaded by all of them, and wait until they have.

        Args:
            at_hand: batches that an engine has at the same time; more wait here, for whichever engine comes first.
            logs: folder for engine-0.log ...

        Raises UserError for a model that cannot be used, RunFailure when an engine dies while it loads.
        """
        self._at_hand = at_hand
        make_folder(logs)
        for engine in self._engines:
            engine.load(settings, logs / f"engine-{engine.number}.log")
        for engine in self._engines:
            engine.hear()

    def generate(self, next_batch: NextBatch, on_tokens: OnTokens) -> Iterator[list[Sample]]:
        """Raises RunFailure when an engine dies; what was finished before has been handed over."""
        lock = threading.Lock()
        arrived: queue.SimpleQueue[list[Sample] | Exception | None] = queue.SimpleQueue()

        def one_at_a_time() -> Any:
            with lock:
                return next_batch()

        for engine in self._engines:
            work = (engine, one_at_a_time, on_tokens, arrived)
            threading.Thread(target=self._serve, args=work, daemon=True).start()
        at_work = len(self._engines)
        while at_work:
            samples = arrived.get()
            if isinstance(samples, Exception):
                raise samples
            if samples is None:
                at_work -= 1
            else:
                yield samples

    def _serve(
        self, engine: EngineProcess, next_batch: NextBatch, on_tokens: OnTokens, arrived: "queue.SimpleQueue[Any]"
    ) -> None:
        batches: list[set[tuple[str, str, int]]] = []  # given, and not yet wholly answered
        try:
            while True:
                while len(batches) < self._at_hand and (batch := next_batch()) is not None:
                    batches.append({request.key for request in batch})
                    engine.give(batch_line(batch))
                if not batches:
                    return arrived.put(None)
                message = engine.hear()
                if "tokens" in message:
                    on_tokens(message["tokens"])
                    continue
                samples = [Sample(**row) for row in message["samples"]]
                for sample in samples:
                    for keys in batches:
                        keys.discard(sample.key)
                batches = [keys for keys in batches if keys]
                arrived.put(samples)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that reads
            arrived.put(error)

    def close(self) -> None:
        while self._engines:
            self._engines.pop().end()
