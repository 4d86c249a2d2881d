"""Files that may be half-written or hostile, their values, and how numbers are put into words. Raises nothing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from openrs.config.yaml_lines import read_yaml
from openrs.errors import UserError
from openrs.outside import read_json
from openrs.run.files import json_lines
from openrs.run.units import format_duration

# Characters that are not shown as they are: controls (not newline and tab), marks that turn the direction of a line
# around, and lone surrogates, which no file can hold.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


LARGEST = 1e100


def number(value: Any) -> float | None:
    """A number, or None for everything else (null, NaN, text, true, what is so large that sums of it overflow)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < LARGEST else None


def whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def share(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def text(value: Any, longest: int = 200) -> str:
    """A stranger's text fit to be shown: one that is too long is cut in its middle, unseen characters are named."""
    found = value if isinstance(value, str) else "" if value is None else str(value)
    if len(found) > longest:
        head, tail = longest * 2 // 3, longest // 3
        found = f"{found[:head]} [... {len(found) - head - tail:,} characters left out ...] {found[-tail:]}"
    return _UNSEEN.sub(_name, found)


def _name(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of control characters
    return (
        "\N{REPLACEMENT CHARACTER}"
        if 0xD800 <= code <= 0xDFFF
        else f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{code:04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
    )


def below(tree: Any, *keys: str) -> Any:
    """What stands under these keys, or None when a step on the way is no mapping or has no such key."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def mapping(tree: Any, *keys: str) -> dict[str, Any]:
    """The mapping under these keys, or an empty one."""
    found = below(tree, *keys)
    return found if isinstance(found, dict) else {}


def fields_of(value: Any, *but: str) -> dict[str, Any]:
    """The fields of a dataclass as they are, but these."""
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name not in but}


def spread(entries: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly from the first to the last."""
    if len(entries) <= most:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most)]


# --- files ------------------------------------------------------------------------------------------------------------


def tree_in(path: Path, notes: list[str]) -> Any:
    """The value in a JSON or YAML file; None with a note where it cannot be read, and without one where none is."""
    if not path.is_file():
        return None
    try:
        return read_yaml(path)[0] if path.suffix == ".yaml" else read_json(path)
    except UserError as error:
        notes.append(f"{path.parent.name}/{path.name} is left out: {text(error.what, 160)}")
        return None


def jsonl_rows(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, in use, damaged or absent: a line that is no object is left out, and how many is noted."""
    damaged = 0
    try:
        for line in json_lines(path) if path.is_file() else ():
            if line.row is not None:
                yield line.row
            else:
                damaged += 1
    except OSError as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}")
    if damaged:
        notes.append(f"{path.parent.name}/{path.name}: {damaged} damaged or unfinished lines left out")


# --- words ------------------------------------------------------------------------------------------------------------

ABSENT = "\N{EN DASH}"


def percent(value: float | None, digits: int = 1) -> str:
    """A proportion in percent, without the sign: 0.4667 -> 46.7."""
    return ABSENT if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of proportions in points, with its sign: 0.031 -> +3.1."""
    return ABSENT if value is None else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def span(interval: Any, show: Any = percent) -> str:
    """An interval: [0.28, 0.47] -> 28.0 to 47.0."""
    if not isinstance(interval, list | tuple) or len(interval) != 2 or any(number(end) is None for end in interval):
        return ABSENT
    return f"{show(interval[0])} to {show(interval[1])}"


def point_span(interval: Any) -> str:
    """An interval of a difference, in points: [-0.005, 0.163] -> -0.5 to +16.3."""
    return span(interval, points)


def short(value: float | None, digits: int = 3) -> str:
    """A number with at most `digits` significant digits and separators: 12345.6 -> 12,346; 0.01234 -> 0.0123."""
    if value is None:
        return ABSENT
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def probability(value: float | None) -> str:
    """A p-value: 0.0004 -> < 0.001."""
    return ABSENT if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_said(value: float | None, name: str = "p") -> str:
    """A p-value in a sentence: p = 0.031, p < 0.001."""
    said = probability(value)
    return f"{name} {said}" if said.startswith("<") else f"{name} = {said}"


def duration(seconds: float | None) -> str:
    """As in every message, with a decimal below 10 s; absent for None."""
    if seconds is None:
        return ABSENT
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)


def dollars(value: float | None) -> str:
    if value is None:
        return ABSENT
    return (
        f"${value:,.0f}" if abs(value) >= 1000 else f"${value:.2f}" if abs(value) >= 0.01 or value == 0 else "< $0.01"
    )
