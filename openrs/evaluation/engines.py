"""Which engine, on how many GPUs, and how it is loaded: here, or in a process of its own for each GPU."""

import contextlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from openrs.config.schema import Evaluation
from openrs.data.tokenizer import ChatEncoder
from openrs.errors import UserError
from openrs.evaluation.sampling import Engine, EngineSettings
from openrs.hub.loading import check_weights
from openrs.outside import read_object
from openrs.run.gpus import visible_gpus


@dataclass(frozen=True, slots=True)
class EngineLayout:
    """engine: vllm or transformers. devices: one process each; a number for CUDA_VISIBLE_DEVICES, None for a CPU."""

    engine: str
    devices: tuple[str | None, ...]

    @property
    def here(self) -> bool:
        """One transformers engine can run in this very process: it holds no GPU afterwards."""
        return self.engine == "transformers" and len(self.devices) == 1


def layout_of(settings: Evaluation) -> EngineLayout:
    """Raises UserError for an engine that is not installed, and for more vLLM engines than GPUs."""
    gpus = visible_gpus()
    installed = importlib.util.find_spec("vllm") is not None
    engine = settings.engine
    if engine == "auto":
        engine = "vllm" if gpus and installed else "transformers"
    if engine == "vllm" and not installed:
        raise UserError("vllm is not installed", fix="pip install 'openrs[cuda]', or take --engine transformers")
    count = settings.processes or max(1, len(gpus))
    if engine == "vllm" and len(gpus) < count and gpus:
        raise UserError(
            f"{count} vLLM engines for {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}",
            "each takes most of a GPU's memory",
            f"set --processes to at most {len(gpus)}",
        )
    return EngineLayout(engine, tuple(gpus[number % len(gpus)] if gpus else None for number in range(count)))


def warm(engine: str) -> None:
    """Import what `load` will need of it, seconds of it. What is missing is said by `load`."""
    with contextlib.suppress(ImportError):
        if engine == "vllm":
            from openrs.evaluation import vllm_engine

            vllm_engine.libraries()
        else:
            from openrs.evaluation import transformers_engine

            transformers_engine.libraries()


def load(settings: EngineSettings) -> Engine:
    """Load a model into this process. Raises UserError for one that cannot be used.

    What it says is decoded by tokenizer.json itself: transformers would build a tokenizer of its own for some models
    (openrs/data/tokenizer.py).
    """
    folder = Path(settings.model)
    encoder = ChatEncoder.from_folder(folder)
    if settings.engine == "vllm":
        check_weights(folder, trust_remote_code=settings.trust_remote_code)  # vLLM's start takes minutes
        from openrs.evaluation.vllm_engine import VllmEngine

        return VllmEngine(settings, encoder, stop_token_ids(encoder, folder))
    from openrs.evaluation.transformers_engine import TransformersEngine

    return TransformersEngine(settings, encoder, stop_token_ids(encoder, folder))


def stop_token_ids(encoder: ChatEncoder, folder: Path) -> frozenset[int]:
    """Tokens that end a completion: the tokenizer's EOS, and those of generation_config.json (chat models have two), or
    of config.json where that names none."""
    named = _configured_stop_ids(folder / "generation_config.json") or _configured_stop_ids(folder / "config.json")
    eos = encoder.token_id("eos_token")
    return frozenset(named if eos is None else [eos, *named])


def _configured_stop_ids(file: Path) -> list[int]:
    try:
        named = read_object(file).get("eos_token_id")
    except UserError:
        return []
    return [token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)]
