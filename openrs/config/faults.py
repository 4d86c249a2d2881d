"""Messages about wrong settings: file, line, and the name that was probably meant. Never imports torch."""

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from openrs.config.yaml_lines import Key, Lines, place_of
from openrs.errors import UserError
from openrs.secrets import secrets_in


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """'did you mean NAME?', or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else ""


def refuse_secrets(tree: dict[str, Any], lines: Lines) -> None:
    """Raises UserError naming every setting with a token or a password in it, and not the secret."""
    faults = [
        f"{place_of(key, lines)}: {'.'.join(map(str, key))} holds a token or a password" for key in secrets_in(tree)
    ]
    if faults:
        why = "settings are written into the run, its manifest, reports, cards and uploads"
        fix = "take it out, and give it in the environment (HF_TOKEN); a token that was in a file should be revoked"
        raise UserError("\n".join(faults[:10]), why, fix)


def setting_faults(error: ValidationError, model: type[BaseModel], lines: Lines, prefix: Key = ()) -> list[str]:
    """One line for each fault that pydantic found in a tree of `model`, which stands at `prefix` in the file."""
    return [
        _fault(item, (*prefix, *item["loc"]), known_keys(model, item["loc"][:-1]), lines) for item in error.errors()
    ]


def _fault(item: ErrorDetails, loc: Key, known: list[str], lines: Lines) -> str:
    loc = tuple(part for part in loc if part not in ("str", "list[str]"))  # pydantic's names for members of a union
    where, name = place_of(loc, lines), ".".join(map(str, loc))
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(str(loc[-1]), known, "".join(f"{part}." for part in loc[:-1]))
        return f"{where}: there is no setting {name}" + (f"; {hint}" if hint else "")
    if item["type"] == "missing":
        return f"{where}: {name} is missing"
    shown = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {name}{shown}: {message[0].lower()}{message[1:]}"


def known_keys(model: type[BaseModel], loc: Key) -> list[str]:
    """The keys that the section at `loc` has. Indices of lists and keys of free mappings are passed over."""
    for part in loc:
        if part in model.model_fields:
            model = _section(model.model_fields[str(part)].annotation) or model
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The settings section inside an annotation like `Lora | None`, `list[Reward]` or `dict[str, Source]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _section(part))), None)
