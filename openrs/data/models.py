"""A model as a folder on this disk, whatever its recipe calls it."""

from pathlib import Path

from openrs.errors import Refusal
from openrs.recipe_checks import is_hub_name

WANTED = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "LICENSE*"]


def local_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the hub's snapshot at `revision`, from the cache or the network.

    Raises Refusal for a folder that is not there or is no model, and when the hub cannot give it.
    """
    if not is_hub_name(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise Refusal(f"there is no model folder {name}", mend="give a folder, or a hub repository (owner/name)")
        if not (folder / "config.json").is_file():
            raise Refusal(f"{name} is no model folder: it has no config.json", mend="give the folder that has it")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except Exception as error:  # noqa: BLE001 - the hub is a named fault boundary: it fails in dozens of ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refusal(
            f"model {name} at {revision or 'main'} cannot be had: {reason}",
            mend="check name, revision and network; with HF_HUB_OFFLINE=1 it must have been fetched before",
        ) from None
