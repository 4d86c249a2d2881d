"""The published JSON schemas, and what is wrong with a value by one of them."""

import json
from importlib import resources
from typing import Any

import jsonschema

NAMES = ("scores", "report", "manifest", "metrics")


def schema(name: str) -> dict[str, Any]:
    """As the installed package has it."""
    tree: dict[str, Any] = json.loads(resources.files("openrs").joinpath(f"schemas/{name}.schema.json").read_text())
    return tree


def faults_in(name: str, value: Any, part: str = "") -> list[str]:
    """part: a name in its $defs, for an excerpt."""
    whole = schema(name)
    judged = {"$defs": whole["$defs"], "$ref": f"#/$defs/{part}"} if part else whole
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(judged).iter_errors(value)
    ]
