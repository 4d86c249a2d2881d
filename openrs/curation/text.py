"""When two problems are the same: their text as tokens, without the typing that changes nothing.

`$\\dfrac{1}{2}$` and `$\\frac12$`, `≤` and `\\leq`, capitals, spaces, dollars and full stops: all one. Numbers,
operators and the words that turn a question into another one (`largest` and `smallest`) are what a copy must share: a
problem with other numbers is another problem.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

# What is typed in several ways and read in one. Applied in this order to the NFKC form (so that x² is x2).
_SAME = (
    (re.compile(r"\\(?:left|right|displaystyle|limits|quad|qquad|bigl?|bigr?|Bigl?|Bigr?|,|;|!|:|\s)"), " "),
    (
        re.compile(
            r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|bb|cal|sf)?|operatorname|mbox|emph|bf|it|rm)(?![a-zA-Z])\*?"
        ),
        " ",
    ),
    (re.compile(r"\\tag\*?\s*\{[^{}]*\}"), " "),
    (re.compile(r"\\[dt]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:frac|sqrt)\s*(?=\d)"), lambda m: m[0].strip() + " "),
    (re.compile(r"(\\frac )(\d)(\d)"), r"\1\2 \3"),
    (re.compile(r"\\(?:leq?|leqslant)(?![a-zA-Z])|≤|⩽"), " <= "),
    (re.compile(r"\\(?:geq?|geqslant)(?![a-zA-Z])|≥|⩾"), " >= "),
    (re.compile(r"\\neq?(?![a-zA-Z])|≠"), " != "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])|[×·⋅]"), " * "),
    (re.compile(r"\\lt(?![a-zA-Z])"), " < "),
    (re.compile(r"\\gt(?![a-zA-Z])"), " > "),
    (re.compile(r"\\(?:ldots|cdots|dots|dotsc|dotsb)(?![a-zA-Z])|…|\.{3,}"), " ... "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°"), " degrees "),
    (re.compile(r"π"), r" \\pi "),
    (re.compile(r"−|–|—"), "-"),
    (re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))"), ""),
    (re.compile(r"<br\s*/?>|\[/?[ib]\]|\\(?:begin|end)\{(?:align\*?|equation\*?|gather\*?|center)\}|\\[\[\]()]"), " "),
)
_PICTURE = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)|\\begin\{(asy|tikzpicture)\}.*?(?:\\end\{\1\}|\Z)", re.DOTALL)
_MATHS = re.compile(r"\$\$?[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
# Letters that stand together in a formula are factors: abc is a b c. Not so a command, or what \text{...} holds.
_GLUED = re.compile(r"(\\(?:text[a-z]*|mbox|operatorname|mathrm|begin|end)\s*\{[^{}]*\})|(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_LETTERS = str.maketrans("0123456789", "ghijklmnop")  # so that a picture's name is one token, and no number
_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:\.\d+)?|<=|>=|!=|\.\.\.|[+\-*/=<>|!%()\[\]]")
_TO_TWENTY = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_TO_TWENTY.split())} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "hundred": "100",
    "thousand": "1000",
}
_BRACKETS = frozenset("()[]")
_OPERATORS = frozenset(["+", "-", "*", "/", "=", "<", ">", "<=", ">=", "!=", "!", "%", "|"])
# Words that make another question of the same sentence.
_DECIDING = frozenset(Path(__file__).with_name("deciding_words.txt").read_text(encoding="ascii").split())


def tokens(text: str) -> list[str]:
    """Words, LaTeX commands, numbers and operators of a problem, in lower case; brackets and punctuation fall away."""
    text = unicodedata.normalize("NFKC", text).replace("\\$", " ")  # a dollar sign that opens no formula
    text = _PICTURE.sub(lambda found: f" picture{fingerprint(''.join(found[0].split())).translate(_LETTERS)} ", text)
    text = _MATHS.sub(lambda found: f" {_GLUED.sub(_apart, found[0])} ", text)
    for pattern, instead in _SAME:
        text = pattern.sub(instead, text)
    found = (token.lstrip("\\") for token in _TOKEN.findall(text.lower()))
    return [_NUMBER_WORDS.get(token, token) for token in found if token not in _BRACKETS]


def _apart(found: re.Match[str]) -> str:
    return found[0] if found[1] else " ".join(found[0])


def signature(words: Sequence[str]) -> tuple[str, ...]:
    """What a copy must share with its original: numbers, operators and deciding words, sorted."""
    return tuple(sorted(w for w in words if w[0].isdigit() or w in _OPERATORS or w in _DECIDING or w[:7] == "picture"))


def numbers(words: Sequence[str]) -> list[str]:
    return [word for word in words if word[0].isdigit()]


def shingles(words: Sequence[str], n: int) -> set[str]:
    """The n-grams of a text; one of all of it where it is shorter."""
    return {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def digest(text: str) -> int:
    """64 bits of BLAKE2b. Two of a million different texts are equal with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, for people."""
    return text if len(text) <= most else text[: most - 1] + "…"


def fingerprint(*texts: str) -> str:
    """A name for texts, 16 hexadecimal digits: the same on every machine."""
    joined = "\0".join(texts)
    return hashlib.blake2b(joined.encode("utf-8"), digest_size=8).hexdigest()
