"""YAML that remembers where each key stood, so that a message about a wrong setting can name file and line."""

import re
from pathlib import Path
from typing import Any

import yaml

from openrs.errors import UserError

OCTAL = re.compile(r"[-+]?0[0-7_]+$")
Key = tuple[str | int, ...]
Lines = dict[Key, str]
"""Path of a key in the tree -> where it was written, e.g. ("grpo", "beta") -> "exp3.yaml:31" or "--set"."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-6 as a number: YAML 1.1, which PyYAML follows, calls it a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def dump_yaml(tree: Any, width: int = 1000) -> str:
    """A tree as YAML, in the order of its keys; where a character cannot be shown, all but ASCII is escaped."""
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=width)
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=False, width=width)
    return text


def parse_value(text: str) -> Any:
    """One YAML value, as written on a command line: numbers, true/false, null, lists and mappings in braces."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more number format


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML file whose top is a mapping.

    Returns the tree, and for every key in it the file and line where it stands.
    Raises UserError for a missing file, broken YAML, a top that is not a mapping, or a key written twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", fix="give the path of a YAML file, or a name from: openrs recipe list"
        ) from None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: Lines = {}
        if node is not None:
            _walk(node, (), path.name, lines)
        tree = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise UserError(
            f"{where}: not YAML: {getattr(error, 'problem', error)}", fix="indent with spaces, one `key: value` a line"
        ) from None
    finally:
        loader.dispose()
    if not isinstance(tree, dict):
        raise UserError(f"{path.name}:1: the top of the file is a {type(tree).__name__}, not `key: value` lines")
    return tree, lines


def _walk(node: yaml.Node, key: Key, file: str, lines: Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            here = (*key, str(name.value))
            where = f"{file}:{name.start_mark.line + 1}"
            if here in lines:
                raise UserError(
                    f"{where}: `{name.value}` is written twice (first at {lines[here]})", fix="keep one of them"
                )
            lines[here] = where
            _walk(value, here, file, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*key, index] = f"{file}:{value.start_mark.line + 1}"
            _walk(value, (*key, index), file, lines)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        _refuse_octal(node.value, lines.get(key, file))


def _refuse_octal(text: str, where: str) -> None:
    """010 is 8 in YAML 1.1, and whoever writes it means 10."""
    if OCTAL.match(text):
        raise UserError(
            f"{where}: {text} would be octal, {int(text.replace('_', ''), 8)}",
            "a zero in front makes a whole number octal in YAML",
            f"write {text.lstrip('+-0_') or '0'}, or quote it where it is a text",
        )


def place_of(loc: Key, lines: Lines) -> str:
    """Where a key was written, or the nearest one above it."""
    return next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), "the recipe")


def override(change: str, tree: dict[str, Any], lines: Lines, *, example: str, false_is_empty: bool = False) -> None:
    """Apply `--set KEY=VALUE` to a tree. Something can be set inside a key that holds null, and inside one that holds
    false where `false_is_empty`. Raises UserError for a text of another form, and for what has no inside."""
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise UserError(f"--set {change}: not KEY=VALUE", fix=f"e.g. --set {example}")
    _refuse_octal(text, f"--set {name}")
    try:
        value = parse_value(text)
    except yaml.YAMLError:
        value = text  # a text that is not YAML is meant as it stands
    key: Key = tuple(name.split("."))
    here = tree
    for part in key[:-1]:
        below = here.setdefault(str(part), {})
        if below is None or (false_is_empty and below is False):
            below = here[str(part)] = {}
        if not isinstance(below, dict):
            raise UserError(f"--set {change}: {part} holds {below!r}, nothing can be set inside it")
        here = below
    here[str(key[-1])] = value
    for old in [line for line in lines if line[: len(key)] == key]:
        del lines[old]
    for n in range(1, len(key) + 1):
        lines.setdefault(key[:n], f"--set {name}")


def text_of(file: Path, where: str) -> str:
    """The text of a file that the key at `where` names, byte for byte. Raises UserError when it cannot be read."""
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: {file} cannot be read: {error}", fix="give a path relative to the recipe file"
        ) from None
