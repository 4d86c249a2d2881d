"""Letters of a text by script, for the monitor of language drift."""

import re

# LaTeX is left out: formulas and the names of commands. Lengths are bounded and an opening one ends at the next of its
# kind, so that hostile text costs no square time.
_LATEX = re.compile(
    r"\$\$.{0,2000}?\$\$|\$[^$\n]{0,500}\$|\\\[(?:(?!\\\[).){0,2000}?\\\]|\\\((?:(?!\\\().){0,1000}?\\\)"
    r"|\\begin\{(?:(?!\\begin).){0,2000}?\\end\{[a-z*]{0,20}\}|\\[A-Za-z]+",
    re.DOTALL,
)


_NO_LETTERS = re.compile(r"[\W\d_]+")


# Latin with its extensions and forms; Greek and mathematical letters are symbols here (pi, a real-number R).
_LATIN = re.compile(
    "[A-Za-z\u00aa\u00b5\u00ba\u00c0-\u02ff\u0370-\u03ff\u1d00-\u1dbf\u1e00-\u1fff\u2071-\u209c\u2100-\u218f"
    "\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f\ufb00-\ufb06\uff21-\uff5a\U0001d400-\U0001d7ff]+"
)


def letters(text: str) -> tuple[int, int]:
    """Letters outside LaTeX, and how many of them are of a script that is not Latin (Greek counts as mathematics)."""
    found = _NO_LETTERS.sub("", _LATEX.sub(" ", text))
    rest = _LATIN.sub("", found)
    foreign = sum(map(str.isalpha, rest))
    return len(found) - len(rest) + foreign, foreign
