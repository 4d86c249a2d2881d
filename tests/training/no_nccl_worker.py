"""openrs.training.worker for the split layout on a CPU: TRL's weight transfer, which is NCCL and so needs CUDA, does
nothing. Generation by the server and everything else are the real thing.
"""

import os
from collections.abc import Iterator
from typing import Any

from trl.generation.vllm_client import VLLMClient

from openrs.config import checks as recipe_checks
from openrs.training import worker


def nothing(self: VLLMClient, *_: Any, **__: Any) -> None:
    """In the place of init_communicator."""


def swallow(self: VLLMClient, metadata: Any, named: Iterator[Any]) -> None:
    """In the place of update_named_params."""
    for _ in named:
        pass


VLLMClient.init_communicator = nothing
VLLMClient.update_named_params = swallow
recipe_checks._machine = lambda _: []  # it refuses the split layout without GPUs

if __name__ == "__main__":
    code = worker.main()
    os._exit(code)
