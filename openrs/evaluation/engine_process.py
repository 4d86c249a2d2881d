"""An engine in a process of its own: `python -m openrs.evaluation.engine_process`, started by engine_pool.py.

It imports what its engine needs. Then lines of JSON come in: its log and settings, then batches; lines of JSON go
out: {"ready": true} or {"refused": [what, why, fix]}, then {"tokens": n} and {"samples": [...]}. It ends when its
input ends.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrs.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, UserError, not_installed
from openrs.evaluation.sampling import Batch, EngineSettings, OnTokens, Request
from openrs.run.confined import open_appending
from openrs.run.processes import die_with_parent


def main(parent: int, engine: str) -> None:
    """Never returns: the process ends here, at once, whatever threads may still hold."""
    die_with_parent(parent)
    code = EXIT_FAILED
    try:
        code = serve(engine)
    except BaseException:  # noqa: BLE001 - the end of this process: its parent sees the log's last lines
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(name: str) -> int:
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        outbox.write(json.dumps(message).encode("ascii") + b"\n")
        outbox.flush()

    from openrs.evaluation import engines

    engines.warm(name)
    if not (line := inbox.readline()):
        return EXIT_DONE  # there was nothing to do
    asked = json.loads(line)
    log = open_appending(Path(asked["log"]))
    for output in (1, 2):  # what libraries print goes there from now on
        os.dup2(log, output)
    try:
        engine = engines.load(EngineSettings(**asked["settings"]))
    except (UserError, ModuleNotFoundError) as error:
        refusal = error if isinstance(error, UserError) else not_installed(error)
        if refusal is None:
            raise
        send({"refused": [refusal.what, refusal.why, refusal.fix]})
        return EXIT_REFUSED
    send({"ready": True})
    batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()

    def read() -> None:
        for line in inbox:
            batches.put(batch_from(json.loads(line)))
        os._exit(EXIT_DONE)  # whoever asked is gone or has all answers: nothing here is worth finishing

    threading.Thread(target=read, daemon=True).start()
    on_tokens = counting(send)
    while True:
        ahead = [batches.get()]

        def next_batch(ahead: list[Batch] = ahead) -> Batch | None:
            try:
                return ahead.pop() if ahead else batches.get_nowait()
            except queue.Empty:
                return None

        for samples in engine.generate(next_batch, on_tokens):
            send({"samples": [asdict(sample) for sample in samples]})


def counting(send: Callable[[dict[str, Any]], None]) -> OnTokens:
    """Adds up tokens and sends them, twice a second at most."""
    counted, sent = 0, 0.0

    def on_tokens(more: int) -> None:
        nonlocal counted, sent
        counted += more
        if time.monotonic() - sent > 0.5:
            send({"tokens": counted})
            counted, sent = 0, time.monotonic()

    return on_tokens


def batch_line(batch: Batch) -> bytes:
    rows = [[r.benchmark, r.problem, r.sample, r.seed, r.max_new_tokens, list(r.ids)] for r in batch]
    return json.dumps(rows).encode("ascii") + b"\n"


def batch_from(rows: list[list[Any]]) -> Batch:
    return [Request(name, problem, n, seed, limit, tuple(ids)) for name, problem, n, seed, limit, ids in rows]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
