"""A model loaded by transformers. One place decides which weights are accepted, and whether a model's code may run."""

from pathlib import Path
from typing import Any

from openrs.errors import UserError


def load_model(folder: Path, *, trust_remote_code: bool, pickle_weights: bool = False, **settings: Any) -> Any:
    """The causal language model in `folder`. `settings` go to from_pretrained.

    Raises UserError when it has no weights, damaged ones, or code of its own that was not allowed.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=None if pickle_weights else True,
            trust_remote_code=trust_remote_code,
            **settings,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise not_loaded(folder, error) from None


def not_loaded(folder: Path, error: Exception) -> UserError:
    """What is said of a model that a library cannot load."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "trust_remote_code" in str(error):
        fix = "--trust-remote-code (in a recipe of your own: model.trust_remote_code) runs that code: read it first"
    else:
        fix = "give a folder with safetensors"
    return UserError(f"the model {folder} cannot be loaded: {reason}", fix=fix)
