r"""One value without commas and equals signs: a number with its percent sign, unit, degree, base, or a time of day."""

import functools
import re
from dataclasses import dataclass, field
from fractions import Fraction

from openrs.rewards.normalize import tokens

_BASES = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
          "fourteen", "fifteen", "sixteen"]  # fmt: skip
BASES = {name: number for number, name in enumerate(_BASES, start=2)} | {"binary": 2, "octal": 8, "hexadecimal": 16}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
# Words around a number that change its meaning: with one of them the text is compared as words.
DECIDING = {"not", "no", "less", "more", "least", "most", "greater", "fewer", "except", "under", "over", "above",
            "below", "than", "between", "nor"}  # fmt: skip
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
SYMBOLS = {"m", "s", "h", "km", "cm", "mm", "kg", "g", "hr", "min", "mi", "ft", "in", "N", "J", "W", "mol", "L", "K",
           "rad"}  # fmt: skip
LETTERS = set("msghLlJNVWKACF")  # alone beside a number: a unit, or a variable
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
    rest = _Rest(tokens(text))
    while rest.parts and (rest.text_group() or rest.sign() or rest.bare_word()):
        _strip(rest.parts)
    rest.texts_before()
    if any(word in DECIDING for phrase in rest.spoken for word in phrase.lower().split()):
        return Quantity(text, text)
    core = "".join(rest.parts).strip()
    if rest.scale != 1 and core:
        core = rf"{core}\cdot {rest.scale}" if not _is_number(core) else str(_value(core) * rest.scale)
    return Quantity(text, core, rest.percent, rest.degree, rest.unit, symbol=rest.symbol)


@dataclass(slots=True)
class _Rest:
    """The tokens that are left of a quantity, and what was taken from their end. Each method takes one thing away, and
    says whether there was one."""

    parts: list[str]
    percent: bool = False
    degree: bool = False
    unit: str = ""
    symbol: str = ""
    scale: int = 1
    spoken: list[str] = field(default_factory=list)

    def text_group(self) -> bool:
        r"""`\text{cm}^{2}`, `\text{million}`; a text that is all there is stays."""
        start = _text_group(self.parts)
        if start is None:
            return False
        word = "".join(self.parts[start:]).partition("{")[2].partition("}")[0].strip()
        self.spoken.append(word)
        if start == 0:
            return False
        self._word(word, powered="^" in self.parts[start:])
        del self.parts[start:]
        return True

    def sign(self) -> bool:
        """`\\%` and `^{\\circ}`; an angle inside of sin and the like belongs to the expression."""
        if self.parts[-1] == r"\%":
            self.percent = True
            self.parts.pop()
            return True
        end = _degree(self.parts) if len(self.parts) > 4 and not TRIGONOMETRIC.intersection(self.parts) else 0
        if end:
            self.degree = True
            del self.parts[-end:]
        return bool(end)

    def bare_word(self) -> bool:
        """`35 cm`, `3 million`, `5 m` without \\text."""
        if len(self.parts) < 2:
            return False
        last = self.parts[-1]
        if _bare_unit(self.parts) or (last.lower() in SCALES and self.parts[-2] == " "):
            self._word(self.parts.pop())
            return True
        if last.isalpha() and len(last) > 2 and _only_words_after_a_number(self.parts):
            self.spoken.append(last)
            self._word(self.parts.pop())
            return True
        if (start := _compound(self.parts)) is not None:
            del self.parts[start:]
            return True
        if last in LETTERS and not self.symbol and _is_number("".join(self.parts[:-1])):
            self.symbol = self.parts.pop()
            return True
        return False

    def texts_before(self) -> None:
        r"""`\text{about } 5`."""
        while self.parts and self.parts[0] == r"\text" and "}" in self.parts:
            end = self.parts.index("}") + 1
            if end == len(self.parts):
                break
            self.spoken.append("".join(self.parts[2 : end - 1]))
            del self.parts[:end]
            _strip(self.parts)

    def _word(self, word: str, *, powered: bool = False) -> None:
        if word.lower() in SCALES:
            self.scale *= SCALES[word.lower()]
        elif not powered:
            self.unit = self.unit or _known(word)
        self.degree = self.degree or word.lower().startswith(("deg", "°"))


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
    if not parts[-1].isalpha():
        return False
    word = parts[-1] if parts[-1] in BARE_UNITS else parts[-1].lower()
    before = parts[-2] if not parts[-2].isspace() else parts[-3] if len(parts) > 2 else ""
    return (word in BARE_UNITS or word.removesuffix("s") in BARE_UNITS) and (before.isdigit() or before == "}")


def _only_words_after_a_number(parts: list[str]) -> bool:
    """`12 students`, `5 square units`: a number, a blank, and nothing but words of more than two letters."""
    start = _after_number(parts)
    plain = all(part.isspace() or (part.isalpha() and len(part) > 2) or part == "of" for part in parts[start:])
    return start > 1 and parts[start - 1].isspace() and plain


def _compound(parts: list[str]) -> int | None:
    """Where a unit of symbols begins, after a number: `5 m/s`, `9.8 m/s^{2}`, `12 cm^{2}`."""
    start = _after_number(parts)
    tail = parts[start:]
    shape = "/" in tail or "^" in tail
    known = all(part in SYMBOLS for part in tail if part.isalpha())
    marks = all(part.isalpha() or part.isdigit() or part in {"/", "^", "{", "}", " ", r"\cdot"} for part in tail)
    return start if start and shape and known and marks else None


def _after_number(parts: list[str]) -> int:
    """Where the words after a number begin; 0 where it is no number that stands before them."""
    start = next((place for place, part in enumerate(parts) if part.isalpha()), 0)
    return start if _is_number("".join(parts[:start])) else 0


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
