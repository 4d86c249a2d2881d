r"""One value without commas and equals signs: a number with its percent sign, unit, degree, base, or a time of day."""

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

from openrs.rewards.normalize import tokens

_BASES = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
BASES = {name: number for number, name in enumerate(_BASES, start=2)} | {"binary": 2, "octal": 8, "hexadecimal": 16}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
# Words around a number that change its meaning: with one of them the text is compared as words.
DECIDING = set(
    [
        "not",
        "no",
        "less",
        "more",
        "least",
        "most",
        "greater",
        "fewer",
        "except",
        "under",
        "over",
        "above",
        "below",
        "than",
        "between",
        "nor",
    ]
)
_TABLE = {
    "length": {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "meter": "1", "metre": "1", "km": "1000",
               "centimeter": "1/100", "millimeter": "1/1000", "kilometer": "1000", "inch": "127/5000", "in": "127/5000",
               "inche": "127/5000", "foot": "381/1250", "feet": "381/1250", "ft": "381/1250", "yard": "1143/1250",
               "mile": "201168/125", "nm": "1/1000000000"},
    "time": {"s": "1", "sec": "1", "second": "1", "min": "60", "minute": "60", "h": "3600", "hr": "3600",
             "hour": "3600", "day": "86400", "week": "604800", "ms": "1/1000"},
    "mass": {"g": "1", "gram": "1", "kg": "1000", "kilogram": "1000", "mg": "1/1000", "ton": "1000000",
             "tonne": "1000000", "pound": "45359237/100000", "lb": "45359237/100000", "ounce": "45359237/1600000"},
    "money": {"dollar": "1", "cent": "1/100", "usd": "1"},
    "volume": {"l": "1", "liter": "1", "litre": "1", "ml": "1/1000"},
}  # fmt: skip
UNITS = {name: (kind, Fraction(size)) for kind, table in _TABLE.items() for name, size in table.items()}
# Units that may stand beside a number without \text; shorter ones could be variables.
BARE_UNITS = {*(name for name in UNITS if len(name) > 1 and name not in {"in", "min"}), "mph", "kmh", "degree", "unit"}
BARE_UNITS |= {"Hz", "kHz", "MHz", "eV", "keV", "MeV", "kJ", "Pa", "kPa", "AU", "mol", "pc", "kpc", "rad"}
TRIGONOMETRIC = {r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc"}  # an angle inside is part of the expression
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?([ap]m)?")
_DIGITS = re.compile(r"[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`core` is the LaTeX of the number or expression alone. unit: a known one without power, with its size in the
    unit of its kind. symbol: a single letter beside a number that is a unit or a variable; `core` has lost it."""

    text: str
    core: str
    percent: bool = False
    degree: bool = False
    unit: str = ""
    base: int = 0
    symbol: str = ""
    time: tuple[int, int, int, str] | None = None


@functools.lru_cache(maxsize=64)
def quantity(text: str) -> Quantity:
    """Take a text apart (normalized, see normalize.py). Never raises: what is not understood stays in `core`."""
    text = text.strip()
    if (time := _time(text)) is not None:
        return Quantity(text, text, time=time)
    if (based := _based(text)) is not None:
        return Quantity(text, based[0], base=based[1])
    parts = tokens(text)
    percent = degree = False
    unit = symbol = ""
    scale = 1
    spoken: list[str] = []
    while parts:
        _strip(parts)
        if (start := _text_group(parts)) is not None:
            word = "".join(parts[start:]).partition("{")[2].partition("}")[0].strip()
            powered = "^" in parts[start:]
            spoken.append(word)
            if word.lower() in SCALES:
                scale *= SCALES[word.lower()]
            elif not powered and start and not unit:
                unit = _known(word)
            degree = degree or word.lower().startswith(("deg", "°"))
            if start == 0:
                break
            del parts[start:]
        elif parts and parts[-1] == r"\%":
            percent = True
            parts.pop()
        elif len(parts) > 4 and (end := _degree(parts)) and not TRIGONOMETRIC.intersection(parts):
            degree = True
            del parts[-end:]
        elif _bare_unit(parts):
            word = parts.pop()
            if word == "degrees" or word == "degree":
                degree = True
            unit = unit or _known(word)
        elif len(parts) > 1 and parts[-1].lower() in SCALES and parts[-2] == " ":
            scale *= SCALES[parts.pop().lower()]
        elif (
            len(parts) > 1
            and parts[-1] in {"m", "s", "g", "h", "L", "l", "J", "N", "V", "W", "K", "A", "C", "F"}
            and (_is_number("".join(parts[:-1])))
        ):
            symbol = parts.pop()
        else:
            break
    while parts and parts[0] == r"\text" and "}" in parts:
        end = parts.index("}") + 1
        if end == len(parts):
            break
        spoken.append("".join(parts[2 : end - 1]))
        del parts[:end]
        _strip(parts)
    if any(word in DECIDING for phrase in spoken for word in phrase.lower().split()):
        return Quantity(text, text)
    core = "".join(parts).strip()
    if scale != 1 and core:
        core = rf"{core}\cdot {scale}" if not _is_number(core) else str(_value(core) * scale)
    return Quantity(text, core, percent, degree, unit, symbol=symbol)


def _strip(parts: list[str]) -> None:
    while parts and parts[-1].isspace():
        parts.pop()
    while parts and parts[0].isspace():
        del parts[0]


def _text_group(parts: list[str]) -> int | None:
    r"""Where a last `\text{...}`, perhaps with a power, begins."""
    end = len(parts) - 1
    if len(parts) > 7 and parts[-1] == "}" and parts[-3] == "{" and parts[-4] == "^":
        end -= 4
    if end < 2 or parts[end] != "}":
        return None
    start = end
    while start >= 0 and parts[start] != "{":
        start -= 1
    return start - 1 if start >= 1 and parts[start - 1] == r"\text" else None


def _degree(parts: list[str]) -> int:
    r"""How many tokens `^{\circ}` (with C or F behind it) has at the end; 0 where it is not there."""
    tail = 1 if parts[-1] in {"C", "F", "K"} else 0
    return 4 + tail if parts[len(parts) - 4 - tail : len(parts) - tail] == ["^", "{", r"\circ", "}"] else 0


def _bare_unit(parts: list[str]) -> bool:
    if len(parts) < 2 or not parts[-1].isalpha():
        return False
    word = parts[-1] if parts[-1] in BARE_UNITS else parts[-1].lower()
    before = parts[-2] if not parts[-2].isspace() else parts[-3] if len(parts) > 2 else ""
    return (word in BARE_UNITS or word.removesuffix("s") in BARE_UNITS) and (before.isdigit() or before == "}")


def _known(word: str) -> str:
    word = word.lower().strip(" .")
    return word if word in UNITS else word.removesuffix("s") if word.removesuffix("s") in UNITS else ""


def _is_number(text: str) -> bool:
    bare = text.strip().lstrip("+-")
    return bool(bare) and all(c.isdigit() or c == "." for c in bare) and bare.count(".") < 2 and len(bare) < 100


def _value(text: str) -> Fraction | int:
    value = Fraction(text.replace(" ", ""))
    return value.numerator if value.denominator == 1 else value


def _time(text: str) -> tuple[int, int, int, str] | None:
    if ":" not in text or " :" in text or len(text) > 40:  # 1 : 14 is a ratio
        return None
    tight = text.replace(r"\text", "").translate(str.maketrans("", "", "{} .~")).lower()
    found = _TIME.fullmatch(tight)
    if found is None or int(found[1]) > 24 or int(found[2]) > 59:
        return None
    return int(found[1]), int(found[2]), int(found[3] or 0), found[4] or ""


def _based(text: str) -> tuple[str, int] | None:
    r"""Digits and base of `2516_{8}`, `(2516)_{8}`, `2516_{\text{eight}}`, `2516 \text{ base 8}`, `0x1F` is none."""
    if len(text) > 300:
        return None
    tight = text.replace(" ", "")
    before, mark, after = tight.rpartition("_{")
    if not mark:
        before, mark, after = tight.partition("base")
        before = before.replace(r"\text{", "").rstrip("{(").removesuffix("in")
    digits = before.removeprefix("(").removesuffix(")") if before.startswith("(") else before
    digits = digits.removeprefix(r"\text{").removesuffix("}")
    name = after.replace(r"\text", "").strip("{}() ").removeprefix("base").strip("{}() ").lower()
    base = int(name) if name.isdigit() and len(name) < 3 else BASES.get(name, 0)
    if not mark or base < 2 or not _DIGITS.fullmatch(digits):
        return None
    return digits.lstrip("0").lower() or "0", base
