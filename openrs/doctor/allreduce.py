"""A timed all-reduce over processes of their own, with a hard limit: what hangs is killed, and named."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from openrs.doctor.probe import end_group

SPEND = 4.0  # seconds of all-reduces in one try
START = 180.0  # seconds for imports, CUDA contexts and the rendezvous: a cold disk or node is slow, and no hang
LIMIT = 30.0  # seconds for the all-reduces of one try, from the moment in which all ranks are in the first
STALL = 20.0  # seconds of these without a word from any rank that are called a hang
BEGUN = b'"all-reduce"'
PROGRAM = (sys.executable, "-m", "openrs.doctor.allreduce")  # runs this module as one rank


@dataclass(frozen=True, slots=True)
class Try:
    """One try. name: defaults or safe. outcome: ok, slow (to start), hang, wrong (sums) or error; detail: in words.

    begun: all ranks came to an all-reduce, so that the outcome says something of NCCL.
    bandwidth: of the largest size in GB/s on the bus, as nccl-tests gives it: 2 (n - 1) / n x bytes / seconds.
    """

    name: str
    env: Mapping[str, str]
    outcome: Literal["ok", "slow", "hang", "wrong", "error"]
    begun: bool
    seconds: float
    bandwidth: float | None
    sizes: list[dict[str, Any]]
    detail: str


def attempt(
    name: str,
    env: Mapping[str, str],
    *,
    ranks: int,
    sizes: Sequence[int],
    backend: str = "nccl",
    program: Sequence[str] = PROGRAM,
    spend: float = SPEND,
    start: float = START,
    limit: float = LIMIT,
    stall: float = STALL,
) -> Try:
    """All-reduce over `ranks` processes, each a session of its own.

    They are killed when they have not all come to the first all-reduce after `start` seconds; from then on after
    `limit` seconds, or when nothing has moved for `stall` seconds.
    """
    begin = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openrs-nccl-")))
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        for rank in range(ranks):
            out = stack.enter_context((folder / f"{rank}.out").open("wb"))
            words = [backend, str(folder / "rendezvous"), str(rank), str(ranks), str(spend), ",".join(map(str, sizes))]
            settings = {**os.environ, **env, "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)}
            for name_of_torchrun in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
                settings.pop(name_of_torchrun, None)
            process = subprocess.Popen(
                [*program, *words], env=settings, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            processes.append(process)
        paths = [folder / f"{rank}.out" for rank in range(ranks)]
        late = _wait(processes, paths, start=start, limit=limit, stall=stall)
        seconds = time.monotonic() - begin
        codes = [process.poll() for process in processes]  # before those that still wait are ended
        _end(processes)
        outputs = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        begun = _begun(paths)
    return _verdict(name, env, outputs, codes, late=late, begun=begun, seconds=seconds)


def _wait(
    processes: Sequence["subprocess.Popen[bytes]"],
    outputs: Sequence[Path],
    *,
    start: float,
    limit: float,
    stall: float,
) -> Literal["slow", "hang"] | None:
    """Until all have ended, or one has failed (the others then wait for ever): None. Else what took too long."""
    began = moved = time.monotonic()
    reducing: float | None = None
    printed = 0
    while any(process.poll() is None for process in processes):
        clock = time.monotonic()
        now = sum(output.stat().st_size for output in outputs)
        if now != printed:
            moved, printed = clock, now
        if reducing is None and _begun(outputs):
            reducing = clock
        if reducing is None and clock - began > start:
            return "slow"
        if reducing is not None and (clock - reducing > limit or clock - moved > stall):
            return "hang"
        if any(process.poll() not in (None, 0) for process in processes):
            return None
        time.sleep(0.1)
    return None


def _begun(outputs: Sequence[Path]) -> bool:
    """Whether all ranks have come to an all-reduce: one that waits for a rank that still starts has not begun."""
    return all(BEGUN in output.read_bytes() for output in outputs)


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Kill the ranks and what they started; one stuck in the kernel's driver is left behind after a moment."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        end_group(process.pid)
    deadline = time.monotonic() + 5
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))


def _verdict(
    name: str,
    env: Mapping[str, str],
    outputs: Sequence[str],
    codes: Sequence[int | None],
    *,
    late: Literal["slow", "hang"] | None,
    begun: bool,
    seconds: float,
) -> Try:
    events = [_events(text) for text in outputs]
    keys = ("bytes", "seconds", "rounds", "right")
    sizes = [{key: event[key] for key in keys} for event in events[0] if event.get("at") == "measured"]
    ranks = len(outputs)
    largest = max(sizes, key=lambda size: int(size["bytes"]), default=None)
    speed = 2 * (ranks - 1) / ranks * largest["bytes"] / largest["seconds"] / 1e9 if largest else None
    if any(event.get("at") == "wrong" for rank in events for event in rank) or not all(size["right"] for size in sizes):
        return Try(name, env, "wrong", begun, seconds, speed, sizes, "an all-reduce gave wrong sums")
    if late is not None:
        where = [f"rank {rank} {_where(rank_events)}" for rank, rank_events in enumerate(events)]
        stopped = f"{'stuck' if late == 'hang' else 'still starting'} after {seconds:.0f} s: {', '.join(where)}"
        return Try(name, env, late, begun, seconds, None, sizes, stopped)
    if any(codes):
        failed, code = next((rank, code) for rank, code in enumerate(codes) if code)
        last = [line for line in outputs[failed].splitlines() if line.strip() and not line.startswith("{")]
        ended = f"ended by signal {-code}" if code < 0 else f"ended with {code}"
        text = f"rank {failed}: {last[-1][:300] if last else ended}"
        return Try(name, env, "error", begun, seconds, None, sizes, text)
    return Try(
        name, env, "ok", begun, seconds, speed, sizes, f"{speed:.1f} GB/s between {ranks} ranks" if speed else ""
    )


def _events(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        if line.startswith('{"at"'):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn by the kill
    return found


def _where(events: Sequence[Mapping[str, Any]]) -> str:
    last = events[-1] if events else {"at": "starting"}
    size = f" of {last['bytes']:,} bytes" if "bytes" in last else ""
    return {"joining": "waits to join", "starting": "has not started", "done": "is done"}.get(
        str(last["at"]), f"in the all-reduce{size}"
    )


def say(word: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"at": word, **facts}) + "\n")
    sys.stdout.flush()


def rank_main(backend: str, rendezvous: str, rank: int, ranks: int, *, seconds: float, sizes: list[int]) -> None:
    """One rank: join, then all-reduce each size until its share of the seconds is over, and check every sum.

    Rank 0 prints a line of JSON per size; every rank prints where it is, so that a hang names who stays behind.
    """
    import torch
    import torch.distributed as dist

    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    say("joining")
    dist.init_process_group(
        backend,
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(minutes=10),  # the parent's limit comes first
    )

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for size in sizes:
        values = torch.full((max(1, size // 2),), float(rank + 1), dtype=torch.bfloat16, device=device)
        say("all-reduce", bytes=size)
        dist.all_reduce(values)  # the first builds rings and buffers: not timed
        wait()
        right = bool((values == ranks * (ranks + 1) / 2).all())
        rounds, spent = 0, 0.0
        go_on = torch.ones(1, dtype=torch.int32, device=device)
        while go_on.item():
            dist.barrier(device_ids=[rank] if device.type == "cuda" else None)
            begin = time.perf_counter()
            dist.all_reduce(values)
            wait()
            spent += time.perf_counter() - begin
            rounds += 1
            go_on.fill_(int(spent < seconds / len(sizes) and rounds < 20))
            dist.broadcast(go_on, 0)  # rank 0's clock decides for all
        if rank == 0:
            say("measured", bytes=size, seconds=spent / rounds, rounds=rounds, right=right)
        elif not right:
            say("wrong", bytes=size)
    dist.destroy_process_group()
    say("done")


if __name__ == "__main__":
    words = sys.argv[1:]
    lengths = [int(size) for size in words[5].split(",")]
    rank_main(words[0], words[1], int(words[2]), int(words[3]), seconds=float(words[4]), sizes=lengths)
