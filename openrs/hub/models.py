"""A model as a folder on this disk, whatever its recipe calls it."""

import json
from pathlib import Path
from typing import Any

from openrs.config.names import is_hub_name
from openrs.errors import UserError


def local_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the hub's files at `revision`, from the cache or fetched and checked.

    A hub name without a revision is taken as it is pinned (openrs/hub/pins.yaml), else as the hub has it today.
    Raises UserError for a folder that is not there or is no model, and when the hub cannot give it.
    """
    if is_hub_name(name):
        return _of_hub(name, revision)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no model folder {name}", fix="give a folder, a hub repository (owner/name), or a run's name"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} is no model folder: it has no config.json", fix="give the folder that has it")
    return folder


def _of_hub(name: str, revision: str | None) -> Path:
    from openrs.hub import cache, fetch
    from openrs.hub import download as hub
    from openrs.hub.cache import hub_cache
    from openrs.hub.pins import reference

    ref = reference("model", name, "model", revision, allow_unpinned=True)
    folder = cache.snapshot(ref)
    if folder is None or (cache.problems(ref, hashes=False) and not (cache.offline() and _whole(folder))):
        fetch.fetch([ref], hub.Hub(hub_cache(), say=lambda line: print(line, flush=True)))  # noqa: T201 - minutes pass
        folder = cache.snapshot(ref)
    assert folder is not None
    return folder


def _whole(folder: Path) -> bool:
    """Offline, what another tool brought is better than nothing; its weights' SHA-256 are in every result."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def commit_of(folder: Path) -> str | None:
    """The hub's commit that a folder of its cache holds; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def config_of(folder: Path) -> dict[str, Any]:
    """config.json. Raises UserError when it is damaged."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} is no JSON object")
    return config


def context_of(folder: Path) -> int | None:
    """Tokens that fit into the model's window, prompt and completion together; None when it does not say."""
    config = config_of(folder)
    window = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(window) if isinstance(window, int) and window > 0 else None
