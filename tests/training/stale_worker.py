"""openrs.training.worker whose weight sync is broken as the first argument says: `none` does nothing, `partly` leaves a
layer out."""

import os
import sys
from collections.abc import Iterator
from typing import Any

from trl.generation.vllm_generation import VLLMGeneration

from openrs.training import worker

how = sys.argv.pop(1)
whole = VLLMGeneration._iter_named_params


def partly(self: Any) -> Iterator[tuple[str, Any]]:
    return ((name, weights) for name, weights in whole(self) if ".layers.1." not in name)


if how == "none":
    VLLMGeneration.sync_weights = lambda self: None
else:
    VLLMGeneration._iter_named_params = partly

if __name__ == "__main__":
    code = worker.main()
    os._exit(code)
