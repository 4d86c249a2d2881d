"""One rank of the timed all-reduce; `openrs doctor nccl` starts one of these per GPU. Run as python -m, never imported.

Arguments: backend, rendezvous file, rank, ranks, seconds to spend, sizes in bytes (comma-separated). Rank 0 prints a
line of JSON per size; every rank prints where it is, so that a hang names the rank that stays behind.
"""

import json
import sys
import time
from typing import Any


def say(word: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"at": word, **facts}) + "\n")
    sys.stdout.flush()


def main(backend: str, rendezvous: str, rank: int, ranks: int, *, seconds: float, sizes: list[int]) -> None:
    """Join, then all-reduce each size until its share of the seconds is over, and check every sum."""
    import datetime

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
        timeout=datetime.timedelta(minutes=10),  # the parent's limit comes first
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
    main(words[0], words[1], int(words[2]), int(words[3]), seconds=float(words[4]), sizes=lengths)
