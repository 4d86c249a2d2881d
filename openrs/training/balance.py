"""Micro-batches dealt out to the processes by length (hardware.deal_by_length), so that none waits for the one with the
longest completions. The gradient is a mean over all micro-batches of the step, so whose they are does not change it but
for the order of its sums.
"""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device

Batch = dict[str, torch.Tensor | Any]  # a generation batch or micro-batch as TRL hands it on: B rows a tensor


def deal_by_length(parts: list[Batch], accelerator: Accelerator) -> list[Batch]:
    """As many whole micro-batches as this process had, of all processes', each of them dealt to one process.

    In the order of their tokens, back and forth: the processes' sums are alike, and so are the micro-batches that they
    compute at the same time (ZeRO-2 waits after each). Every process sorts the same numbers, so they agree.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    every: list[Batch] = gather_object(send_to_device(parts, "cpu"))
    order = sorted(range(len(every)), key=lambda index: tokens_of(every[index]))
    turns = (order[turn * world : (turn + 1) * world] for turn in range(len(parts)))
    mine = [turn[rank if number % 2 else -1 - rank] for number, turn in enumerate(turns)]
    return send_to_device([every[index] for index in mine], accelerator.device)  # type: ignore[no-any-return]


def tokens_of(part: Batch) -> int:
    return int(part["prompt_mask"].sum() + part["completion_mask"].sum())
