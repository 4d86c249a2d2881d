"""A model as a folder on this disk, whatever its recipe calls it."""

from pathlib import Path
from typing import Any

from openrs.config.names import is_hub_name
from openrs.errors import UserError
from openrs.outside import read_shape
from openrs.run.files import sha256
from openrs.run.folders import Kind, declaration, kind_of
from openrs.run.terminal import say

WEIGHTS = "model.safetensors"


def local_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the hub's files at `revision`, from the cache or fetched and checked.

    A hub name without a revision is taken as it is pinned (openrs/hub/pins.yaml), else as the hub has it today.
    Raises UserError for a folder that is not there, is not a model, or declares contradictory things, and when the hub
    cannot give it.
    """
    if is_hub_name(name):
        return _of_hub(name, revision)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no model folder {name}", fix="give a folder, a hub repository (owner/name), or a run's name"
        )
    kind_of(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} is not a model folder: it has no config.json", fix="give the folder that has it")
    return folder


def _of_hub(name: str, revision: str | None) -> Path:
    from openrs.hub import cache, fetch
    from openrs.hub import download as hub
    from openrs.hub.cache import hub_cache
    from openrs.hub.pins import reference

    ref = reference("model", name, "model", revision, allow_unpinned=True)
    folder = cache.snapshot(ref)
    if folder is None or (cache.problems(ref, hashes=False) and not (cache.offline() and _whole(folder))):
        fetch.fetch([ref], hub.Hub(hub_cache(), say=say))
        folder = cache.snapshot(ref)
    assert folder is not None
    kind_of(folder)
    return folder


def _whole(folder: Path) -> bool:
    """Offline, what another tool brought is better than nothing; its weights' SHA-256 are in every result."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def commit_of(folder: Path) -> str | None:
    """The hub's commit that a folder of its cache holds; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model that a loader reads: model.safetensors, or those that its index names.

    Raises UserError when there are none, and when it would depend on the loader which ones they are.
    """
    there = {path.name for path in folder.glob("*.safetensors")}
    if not there:
        raise UserError(
            f"{folder} has no weights as safetensors",
            "other forms of weights can run code when they are loaded",
            "convert them, or give another folder",
        )
    index = folder / "model.safetensors.index.json"
    named = {WEIGHTS}
    if index.is_file():
        if WEIGHTS in there:
            raise UserError(
                f"{folder} has {WEIGHTS} and {index.name}",
                "engines differ in which of them they load",
                "take the one away that does not belong there",
            )
        listed = read_shape(index, {"weight_map": {"*": str}}, "fetch or copy the model anew")
        named = set(listed["weight_map"].values())
    elif there != named:
        odd = ", ".join(sorted(there - named))
        raise UserError(
            f"{folder} has {odd} and no index that names the weights",
            f"transformers loads {WEIGHTS} alone, vLLM every safetensors file",
            "take away what does not belong to the model",
        )
    absent = sorted(str(name) for name in named - there)
    if absent:
        raise UserError(f"{folder} lacks {', '.join(absent[:3])}, which its index names", fix="fetch or copy it anew")
    return [folder / name for name in sorted(named)]


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of the weight files that are loaded.

    Raises UserError as weight_files does, and when an export declares others. The files of an export are those of its
    checkpoint, except where an adapter was merged into its base.
    """
    hashes = {path.name: sha256(path) for path in weight_files(folder)}
    declared = declaration(folder, Kind.EXPORT).get("weights") if kind_of(folder) is Kind.EXPORT else None
    if isinstance(declared, dict):
        for name, digest in hashes.items():
            if declared.get(name, digest) != digest:
                raise UserError(
                    f"{folder / name} has SHA-256 {digest[:12]}, its openrs.json says {str(declared[name])[:12]}",
                    "these are not the weights that were exported",
                    "export the checkpoint again, or copy the folder anew",
                )
    return hashes


def config_of(folder: Path) -> dict[str, Any]:
    """config.json. Raises UserError when it is damaged."""
    return read_shape(folder / "config.json", {"text_config?": {}}, "fetch or copy the model anew")


def context_of(folder: Path) -> int | None:
    """Tokens that fit into the model's window, prompt and completion together; None when it does not say."""
    config = config_of(folder)
    window = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return int(window) if isinstance(window, int) and window > 0 else None
