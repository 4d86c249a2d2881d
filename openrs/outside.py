"""The one boundary at which files of strangers are read: bytes, text, JSON, and whether values have the right shape.

Everything that can be wrong with such a file (absent, no file, too large, another encoding, cut off, nested without
end, numbers of a thousand digits, a text where a list belongs) ends as a UserError that names the file and the place.
YAML is read by openrs/config/yaml_lines.py and lines of JSONL by openrs/run/files.py, with the same limits.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any, NoReturn

from openrs.errors import UserError

MIB = 2**20
JSON_LIMIT = 16 * MIB  # a tree of empty lists takes 50 times as much memory as its text
TEXT_LIMIT = MIB // 16  # of a prompt or a chat template: it is written into a recipe, which must be read again
DEPTH = 64  # levels of nesting
DIGITS = 19  # a whole number with more is read as a float: its sums overflow nowhere, and 10**400 is Inf


def is_file(path: Path) -> bool:
    """Whether a name that somebody wrote is a file. False where Path.is_file raises: too long, a loop of links."""
    return os.path.isfile(path)  # noqa: PTH113


def exists(path: Path) -> bool:
    """The same for anything."""
    return os.path.exists(path)  # noqa: PTH110


def open_regular(path: Path) -> IO[bytes]:
    """A regular file to read. Raises OSError for anything else as well: a pipe or a device is never waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, limit: int, fix: str = "") -> bytes:
    """What is in a regular file of at most `limit` bytes. Raises UserError."""
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", fix=fix) from None
    if len(content) > limit:
        size = f"{limit // MIB} MiB" if limit >= MIB else f"{limit // 1024} KiB"
        raise UserError(f"{path} is larger than {size}", "nothing of its kind needs as much", fix)
    return content


def read_text(path: Path, limit: int = TEXT_LIMIT, fix: str = "") -> str:
    """The text of a file, byte for byte. Raises UserError for what is not UTF-8 as well, and for a NUL."""
    content = read_bytes(path, limit, fix)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8: {error.reason} at byte {error.start}", fix=fix) from None
    if "\0" in text:
        raise UserError(f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL byte", fix=fix)
    return text


def read_json(path: Path, fix: str = "") -> Any:
    """The JSON value in a file. Raises UserError."""
    text = read_text(path, JSON_LIMIT, fix).removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{path}: the file is empty", fix=fix)
    try:
        value = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= DIGITS else float(digits))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON, perhaps cut off: {error.msg}", fix=fix) from None
    except RecursionError:
        too_deep = True
    else:
        too_deep = text.count("[") + text.count("{") > DEPTH and deeper_than(value, DEPTH)
    if too_deep:
        raise UserError(f"{path}: nested more than {DEPTH} levels deep", fix=fix)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{path}: half of a surrogate pair, which no text can hold", fix=fix) from None
    return value


def read_object(path: Path, fix: str = "") -> dict[str, Any]:
    """The JSON object in a file. Raises UserError, also for any other value."""
    value = read_json(path, fix)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not a JSON object", fix=fix)
    return value


def read_shape(path: Path, shape: dict[str, Any], fix: str = "") -> dict[str, Any]:
    """The JSON object in a file, which has at least the parts of `shape` (see `check_shape`). Raises UserError."""
    value = read_object(path, fix)
    check_shape(value, shape, str(path), fix)
    return value


def check_shape(value: Any, shape: Any, where: str, fix: str = "", place: str = "") -> None:
    """Raises UserError naming the first place at which `value` is not as `shape` has it.

    A shape is a type or several (as for isinstance; bool is no int), [shape of each item], or {name: shape}, where
    `name?` may be absent or null and `*` is every key.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            _misshapen(value, "an object", where, place, fix)
        for name, part in shape.items():
            if name == "*":
                for key, item in value.items():
                    check_shape(item, part, where, fix, _below(place, key))
            elif value.get(name.removesuffix("?")) is not None or not name.endswith("?"):
                check_shape(value.get(name.removesuffix("?")), part, where, fix, _below(place, name.removesuffix("?")))
    elif isinstance(shape, list):
        if not isinstance(value, list):
            _misshapen(value, "a list", where, place, fix)
        for number, item in enumerate(value):
            check_shape(item, shape[0], where, fix, _below(place, number))
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape in (int, float, int | float)):
        _misshapen(value, "a " + str(getattr(shape, "__name__", shape)), where, place, fix)


def deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` levels deep."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _below(place: str, part: object) -> str:
    return f"{place}.{part}"[-200:] if place else str(part)[:200]


def _misshapen(value: Any, needed: str, where: str, place: str, fix: str) -> NoReturn:
    there = "is missing" if value is None else f"is a {type(value).__name__}, not {needed}"
    raise UserError(f"{where}: {place + ' ' if place else ''}{there}", fix=fix)
