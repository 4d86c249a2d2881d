"""How the heavy libraries are loaded: one thread each, quiet, and never asking the network for what nobody asked.

Call `quiet()` before the first import of torch, transformers, trl, datasets or lighteval.
"""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from openrs.config.machine import has_nvidia_gpu
from openrs.run.signals import block_signals
from openrs.run.terminal import clean

# Read by the libraries when they are imported; what a user has set stays.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # two OpenMP pools that spin on one core made a step 8 to 40 times slower (docs/stack.md)
    "TOKENIZERS_PARALLELISM": "false",  # the tokenizers' own threads and our child processes do not go together
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
# transformers imports it where it is installed, for one kind of assisted generation that nothing here uses: with scipy
# and pandas a fifth of an engine's start.
UNUSED = ("sklearn",)
# It imports these as well, and needs none of them for a tokenizer: three quarters of the import.
NOT_FOR_TOKENIZERS = ("torch", "accelerate", "deepspeed")


def quiet(log: Path | None = None) -> None:
    """Prepare the environment; warnings and log records of libraries go to the file `log`, or nowhere."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not has_nvidia_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else deepspeed warns at every import that it found no GPU
    handler: logging.Handler = logging.FileHandler(log, encoding="utf-8") if log is not None else logging.NullHandler()
    handler.setFormatter(_Clean("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, logging.NullHandler | logging.FileHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    warnings.simplefilter("once")
    hand_over("transformers", "huggingface_hub", "datasets", "trl", "accelerate", "lighteval", "DeepSpeed")


@contextmanager
def hidden(names: Sequence[str]) -> Iterator[None]:
    """Packages that are not imported yet are as if they were not installed."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # None: for whoever asks
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def for_tokenizers() -> Iterator[None]:
    """Where transformers is first imported for a tokenizer alone. It will not find torch later in this process either,
    so this is for a command that ends then."""
    there = any(name in sys.modules for name in ("transformers", *NOT_FOR_TOKENIZERS))
    with hidden(() if there else NOT_FOR_TOKENIZERS):
        yield


@contextmanager
def importing() -> Iterator[None]:
    """Around the first import of transformers and what stands on it. Without the garbage collector, which finds nothing
    then and takes an eighth of the time, and without UNUSED; and their progress bars are off afterwards. A signal waits
    until the import is over: TRL and torch turn an exception in the middle of it into a RuntimeError of their own."""
    gc.disable()
    try:
        with hidden(UNUSED), block_signals():
            yield
    finally:
        gc.enable()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # no variable does it
    hand_over("transformers", "huggingface_hub", "datasets", "trl", "accelerate", "lighteval", "DeepSpeed")


class _Clean(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


def hand_over(*names: str) -> None:
    """Let the libraries' own loggers write through the root logger only, not to the terminal as well."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
