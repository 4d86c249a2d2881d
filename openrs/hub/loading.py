"""A model loaded by transformers. One place decides which weights are accepted, and whether a model's code may run."""

import pickle
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.outside import read_text
from openrs.run.libraries import importing


def load_model(folder: Path, *, trust_remote_code: bool, pickle_weights: bool = False, **settings: Any) -> Any:
    """The causal language model in `folder`. `settings` go to from_pretrained.

    Raises UserError when it has no weights, damaged ones, other ones than its configuration needs, or code of its own
    that was not allowed.
    """
    with importing():
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=not pickle_weights,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **settings,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise not_loaded(folder, error) from None
    shapes = [f"{name}: {list(there)} instead of {list(asked)}" for name, there, asked in info["mismatched_keys"]]
    refuse_other_tensors(
        folder, info["missing_keys"], info["unexpected_keys"], [*shapes, *map(str, info.get("error_msgs", ()))]
    )
    return model


def check_weights(folder: Path, *, trust_remote_code: bool, pickle_weights: bool = False) -> None:
    """Ask the loader whether it finds every tensor of the model in `folder`; reads names and shapes, and no weights.

    For whoever loads the model elsewhere afterwards (vLLM, TRL, who gets an export). Raises UserError as load_model.
    """
    load_model(folder, trust_remote_code=trust_remote_code, pickle_weights=pickle_weights, device_map="meta")


# What DeepSpeed's files of a checkpoint hold besides tensors, numbers and containers.
DEEPSPEED_STATE = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}


def refuse_code(checkpoint: Path) -> None:
    """Raises UserError when a file of DeepSpeed's in a checkpoint names anything but data: it unpickles them whole, and
    the run may be a stranger's. Nothing is unpickled to find out. (All others are read with weights_only.)"""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    fix = "resume only runs that you made; the model can still be exported and evaluated"
    latest = checkpoint / "latest"  # names the folder that DeepSpeed reads
    if latest.is_file() and read_text(latest).strip() not in {path.name for path in checkpoint.iterdir()}:
        raise UserError(f"{latest} names another folder", "DeepSpeed would read what lies outside", fix)
    there = sorted(checkpoint.rglob("*"))  # does not look behind links
    for path in there:
        if path.is_symlink() and path.is_dir():
            raise UserError(f"{path} is a link to another folder", "DeepSpeed would read what is there", fix)
    inner = [path for path in there if path.is_file() and path.parent != checkpoint]
    for path in (path for path in inner if path.suffix != ".jinja"):  # a tokenizer's other chat templates
        try:
            names = set(get_unsafe_globals_in_checkpoint(path)) - DEEPSPEED_STATE
        except (
            OSError,
            RuntimeError,
            ValueError,
            EOFError,
            LookupError,
            struct.error,
            pickle.UnpicklingError,
        ) as error:
            raise UserError(f"{path} is not a file of tensors as torch writes it: {error}", fix=fix) from None
        if names:
            what = f"{path} would run code when it is read: {_some(names)}"
            raise UserError(what, "a checkpoint of openrs holds tensors and numbers only", fix)


def refuse_other_tensors(
    folder: Path, missing: Collection[str], unexpected: Collection[str], misshapen: Collection[str] = ()
) -> None:
    """Raises UserError when a folder's tensors are not those of its model. Tied weights are not missing."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if faults:
        raise UserError(
            f"the weights in {folder} are not those of its model: {', '.join(faults)}",
            "a tensor that is missing would be drawn at random",
            "fetch or copy the model anew",
        )


def not_loaded(folder: Path, error: Exception) -> UserError:
    """What is said of a model that a library cannot load."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "trust_remote_code" in str(error):
        fix = "--trust-remote-code (in a recipe of your own: model.trust_remote_code) runs that code: read it first"
    else:
        fix = "give a folder with safetensors"
    return UserError(f"the model {folder} cannot be loaded: {reason}", fix=fix)


def _some(names: Collection[str]) -> str:
    return ", ".join(name[:100] for name in sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
