"""What a folder is: a run, a checkpoint, an export or a model, by what the folder itself declares and by nothing else.

A recipe.yaml is no declaration: exports and strangers' models have one, too.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.outside import read_json, read_object


class Kind(StrEnum):
    RUN = "run"
    CHECKPOINT = "checkpoint"
    EXPORT = "export"
    MODEL = "model"


DECLARATION = {
    Kind.RUN: "manifest.json",  # with attempts in it: curated data sets have a manifest.json of their own
    Kind.CHECKPOINT: "checkpoint.json",
    Kind.EXPORT: "openrs.json",
    Kind.MODEL: "config.json",
}
ADAPTER = "adapter_config.json"


def kind_of(folder: Path) -> Kind | None:
    """What `folder` declares itself to be; None when it declares nothing, or is not there.

    Checkpoints and exports hold a model, so they may have a config.json beside their own declaration. Raises UserError
    for any other two declarations: which of them holds would depend on who reads the folder; and for one that is a
    pipe, a folder, or a link to either or to nothing.
    """
    declared = [kind for kind, name in DECLARATION.items() if os.path.lexists(folder / name)]
    for kind in declared:
        if not (folder / DECLARATION[kind]).is_file():
            raise UserError(
                f"{folder / DECLARATION[kind]} is not a file, but it is what says whether the folder is a {kind.value}",
                fix="remove it, or give another folder",
            )
    if Kind.RUN in declared and not _has_attempts(folder / DECLARATION[Kind.RUN]):
        declared.remove(Kind.RUN)
    if not declared:
        return None
    kind = declared[0]
    names = [DECLARATION[one] for one in declared]
    if len(declared) > 1 and not (kind in (Kind.CHECKPOINT, Kind.EXPORT) and declared[1:] == [Kind.MODEL]):
        raise _contradiction(folder, names, "each of them declares the folder to be something else")
    if (folder / ADAPTER).is_file() and (kind in (Kind.RUN, Kind.EXPORT) or Kind.MODEL in declared):
        raise _contradiction(folder, [*names, ADAPTER], "an adapter belongs to the model that it was trained on")
    return kind


def declaration(folder: Path, kind: Kind) -> dict[str, Any]:
    """The file by which `folder` declares to be a `kind`. Raises UserError when it is not a JSON object."""
    return read_object(folder / DECLARATION[kind])


def _has_attempts(manifest: Path) -> bool:
    """Whether it is the manifest of a run. A damaged one counts: the folder is a broken run and nothing else."""
    try:
        content = read_json(manifest)
    except UserError:
        return True
    return isinstance(content, dict) and isinstance(content.get("attempts"), list)


def _contradiction(folder: Path, names: list[str], why: str) -> UserError:
    return UserError(
        f"{folder} has {' and '.join(names)}",
        why,
        "take away the file that does not belong there",
    )
