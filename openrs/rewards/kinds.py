r"""Kinds of reference answers that judges are known to misread, and a safe form for those that have one.

`e-notation` is the worst: math-verify and lighteval read `4.5e33` as 4.5 e + 33, so the right answer 4.5 \times 10^{33}
is wrong and 2e9 passes for 3e6... as long as both are written with e. 58 of Minerva's 272 references are of that kind.
"""

from openrs.rewards.extraction import gold_in
from openrs.rewards.normalize import characters, commands, normalized, tokens
from openrs.rewards.numerals import recurring, scientific, thousands
from openrs.rewards.reading import read
from openrs.rewards.values import Grid, Items, Ratio, Region, Relation

KINDS = ("e-notation", "time", "base", "percent", "multi-part", "thousands marks", "recurring", "other characters")
SAFE = ("e-notation", "thousands marks", "recurring", "other characters")  # those that `safe_form` rewrites
LONGEST = 4000


def reference_kinds(reference: str) -> list[str]:
    """Which of KINDS a reference answer is of, as training or an evaluation gives it. Never raises; linear."""
    text = gold_in(reference)
    if not text or len(text) > LONGEST:
        return []
    plain = normalized(text)
    found = {
        "e-notation": scientific(plain) != plain,
        "thousands marks": thousands(plain, commas=False) != plain,  # 100,200 may be two numbers
        "recurring": recurring(plain) != plain,
        "other characters": characters(text) != text,
        "percent": r"\%" in plain,
        "multi-part": _multi(thousands(plain)),
    }
    value = read(scientific(thousands(recurring(plain))))
    found["time"] = getattr(value, "time", None) is not None
    found["base"] = bool(getattr(value, "base", 0))
    return [kind for kind in KINDS if found[kind]]


def _multi(plain: str) -> bool:
    """Several values: a list, a point, a matrix, an interval, an inequality, a ratio."""
    value = read(plain)
    if isinstance(value, Relation):
        value = value.sides[-1]
    return isinstance(value, Items | Region | Grid | Ratio)


def safe_form(answer: str, kinds: tuple[str, ...] = SAFE) -> str:
    r"""The answer with these kinds written as every judge reads them: `1.6e-19` as `1.6\times 10^{-19}`, `11,\! 111` as
    11111, `0.\overline{6}` as a fraction, full-width characters as ASCII. Unchanged where it is of none of them."""
    present = set(reference_kinds(answer)) & set(kinds)
    if not present or len(answer) > LONGEST:
        return answer
    text = characters(answer) if "other characters" in present else answer
    if "thousands marks" in present:
        text = thousands(commands(text), commas=False)
    if "recurring" in present:
        text = recurring(normalized(text))
    if "e-notation" in present:
        text = "".join(r"\times" if part == r"\cdot" else part for part in tokens(scientific(text)))
    return text.strip()
