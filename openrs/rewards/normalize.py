r"""Writings of one value made one writing, before math-verify reads it. Only the rule `corrected` uses this.

Each function takes and gives LaTeX text, changes one kind of writing, and reads the text once from left to right: a
text is hostile input, so no regular expression here can backtrack. The order that works is in `normalized`.
The kinds come from public bug reports; the numbers after "Math-Verify" and the like are those of the threads.
"""

import re
import unicodedata

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|[0-9]+|\s+|.", re.DOTALL)  # one alternative for each first character

SPACES = {"~", "\\ ", r"\,", r"\;", r"\:", r"\>", r"\quad", r"\qquad", r"\enspace", r"\enskip", r"\thinspace",
          r"\medspace", r"\thickspace", r"\nobreakspace"}  # fmt: skip
_SIZES = ("big", "Big", "bigg", "Bigg")
DROPPED = {f"\\{size}{side}" for size in _SIZES for side in ("", "l", "r")} | {
    r"\left", r"\right", r"\middle", r"\displaystyle", r"\textstyle", r"\scriptstyle", r"\limits", r"\nolimits", r"\!",
    r"\(", r"\)", r"\[", r"\]", r"\/", r"\mathbf", r"\boldsymbol", r"\bm", r"\mathit", r"\mathsf", r"\mathtt",
    r"\ensuremath", r"\underline", r"\boxed", r"\fbox", r"\mathstrut", r"\strut", r"\nonumber", r"\notag", r"\star",
}  # fmt: skip
SAME = {
    **dict.fromkeys((r"\dfrac", r"\tfrac", r"\cfrac"), r"\frac"),
    **dict.fromkeys((r"\dbinom", r"\tbinom"), r"\binom"),
    **dict.fromkeys((r"\leq", r"\leqslant", r"\leqq"), r"\le"),
    **dict.fromkeys((r"\geq", r"\geqslant", r"\geqq"), r"\ge"),
    **dict.fromkeys((r"\times", r"\ast", r"\bullet", "*"), r"\cdot"),
    r"\lbrace": r"\{", r"\{": r"\{", r"\rbrace": r"\}", r"\}": r"\}", r"\lbrack": "[", r"\rbrack": "]",
    **dict.fromkeys((r"\lparen", r"\langle"), "("),
    **dict.fromkeys((r"\rparen", r"\rangle"), ")"),
    **dict.fromkeys((r"\lvert", r"\rvert", r"\vert"), "|"),
    **dict.fromkeys((r"\dots", r"\cdots", r"\dotsc", r"\dotsb"), r"\ldots"),
    **dict.fromkeys((r"\land", r"\wedge"), r"\text{and}"),
    **dict.fromkeys((r"\lor", r"\vee"), r"\text{or}"),
    **dict.fromkeys((r"\approxeq", r"\simeq", r"\doteq"), r"\approx"),
    r"\neq": r"\ne", r"\lt": "<", r"\gt": ">", r"\degree": r"^\circ", r"\colon": ":", r"\setminus": r"\backslash",
    r"\varnothing": r"\emptyset", r"\infin": r"\infty", r"\lg": r"\log_{10}", r"\tg": r"\tan", r"\ctg": r"\cot",
    r"\arctg": r"\arctan", "%": r"\%", r"\percent": r"\%", r"\$": "", "$": "", r"\rm": "", r"\bf": "", r"\euro": "",
    r"\pounds": "", "pi": r"\pi", "sqrt": r"\sqrt", "infinity": r"\infty", "Infinity": r"\infty",
}  # fmt: skip
TEXTS = {r"\text", r"\textrm", r"\textbf", r"\textit", r"\textnormal", r"\textsf", r"\texttt", r"\textup", r"\mbox",
         r"\hbox", r"\mathrm", r"\operatorname", r"\emph"}  # fmt: skip
REMOVED = {r"\color", r"\textcolor", r"\hspace", r"\vspace", r"\phantom"}  # with their argument
PLAIN = {"<": r"\le ", ">": r"\ge ", "!": r"\ne "}  # before an equals sign: <=, >=, !=
WITH_ARGUMENTS = {
    r"\frac": 2, r"\sqrt": 1, r"\binom": 2, r"\overline": 1, r"\bar": 1, r"\dot": 1, r"\hat": 1, r"\vec": 1, "^": 1,
    "_": 1,
}  # fmt: skip
DEEPEST = 60  # nested arguments without braces (\sqrt\sqrt...): nobody writes more, and we recurse

# Not NFKC for everything: it would make x^2 of x² into x2, and letters of mathematics are none of our business.
CHARACTERS = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
        **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f", "\\,"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202b\u202c\u202d\u202e", ""),
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63", "-"),
        "、": ",", "。": ".",
        **dict.fromkeys("\u2018\u2019\u02bc", "'"),
        **dict.fromkeys("£€¥₹", ""),
        "\u3000": " ", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "\\div ", "∕": "/", "⁄": "/", "±": "\\pm ",
        "∓": "\\mp ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ",
        "∞": "\\infty ", "°": "^\\circ ", "º": "^\\circ ", "℃": "^\\circ ", "√": "\\sqrt ", "∪": "\\cup ",
        "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "…": "\\ldots ", "⟨": "(", "⟩": ")",
        "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
        "π": "\\pi ", "α": "\\alpha ", "β": "\\beta ", "θ": "\\theta ", "λ": "\\lambda ",
        "∶": ":",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")


def tokens(text: str) -> list[str]:
    r"""Commands (`\frac`, `\,`), words, numbers, runs of blanks, and every other character alone."""
    return TOKEN.findall(text)


def characters(text: str) -> str:
    """Full-width forms, signs and blanks of Unicode as ASCII and LaTeX; digits of every script as 0-9.

    Models answer in Chinese punctuation and with signs that a keyboard lacks (lighteval and verl threads).
    """
    text = _RAISED.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text.translate(CHARACTERS))
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)


def commands(text: str) -> str:
    r"""One command for commands that mean the same; those that only change the look go (`\left`, `\displaystyle`).

    `,\!` and `{,}` are a comma inside a number (MATH's golds have `11,\! 111`), so they stay one token, `{,}`.
    """
    out: list[str] = []
    parts = tokens(text)
    for place, part in enumerate(parts):
        if part == r"\!" and out and out[-1] == ",":
            out[-1] = "{,}"
        elif part.isspace() and out and out[-1] == "{,}":
            continue
        elif part == "*" and place and parts[place - 1] == "*":
            out[-1:] = ["^"] if out and out[-1] == r"\cdot " else []
        elif part == "=" and out and out[-1] in PLAIN:
            out[-1] = PLAIN[out[-1]]
        elif part in SPACES or part.isspace():
            out.append(" ")
        elif part in SAME:
            out.append(SAME[part] + (" " if SAME[part][:1] == "\\" and SAME[part][-1:].isalpha() else ""))
        elif part not in DROPPED:
            out.append(part)
    return "".join(out).replace("\\not =", "\\ne ").replace("\\not=", "\\ne ")


def pairs_of(parts: list[str], opening: str = "{", closing: str = "}") -> dict[int, int]:
    """Index of the closing bracket for that of each opening one; unbalanced ones are left out."""
    opened: list[int] = []
    pairs: dict[int, int] = {}
    for place, part in enumerate(parts):
        if part == opening:
            opened.append(place)
        elif part == closing and opened:
            pairs[opened.pop()] = place
    return pairs


def words(text: str) -> str:
    r"""`\mathrm{...}`, `\textbf{...}` and the like as `\text{...}`; what only holds a number or e, i, d is mathematics.

    `\mathrm{e}` is how careful golds write e (Math-Verify 14), `\text{13}` how MATH writes a number (Math-Verify 37).
    """
    parts = tokens(text)
    pairs = pairs_of(parts)
    out: list[str] = []
    place = 0
    while place < len(parts):
        start = place + 1
        while start < len(parts) and parts[start].isspace():
            start += 1
        if parts[place] in TEXTS and start in pairs:
            inside = "".join(parts[start + 1 : pairs[start]]).strip()
            if inside in {"e", "i"} or (any(c.isdigit() for c in inside) and not any(c.isalpha() for c in inside)):
                out += [" ", inside, " "]
            elif inside and "\\" not in inside:
                out += [r"\text{", "".join(parts[start + 1 : pairs[start]]), "}"]
            elif inside:
                place = start + 1  # formulas inside a text: what is in it counts
                parts[pairs[start]] = " "
                continue
            place = pairs[start] + 1
        elif parts[place] in REMOVED:
            place = pairs.get(start, place) + 1
        elif parts[place] in TEXTS:
            place += 1
        else:
            out.append(parts[place])
            place += 1
    return "".join(out)


def arguments(text: str) -> str:
    r"""Braces where TeX needs none: `\frac12`, `\sqrt3`, `x^2`, `\frac\pi2` (all over MATH's golds)."""
    parts = tokens(text)
    pairs = pairs_of(parts) | pairs_of(parts, "(", ")")
    out: list[str] = []
    place = 0
    while place < len(parts):
        place = _copy(parts, pairs, place, out, 0)
    return "".join(out)


def _copy(parts: list[str], pairs: dict[int, int], place: int, out: list[str], depth: int) -> int:
    """Write the token at `place` and, for a command with arguments, these in braces. Returns the next place."""
    part = parts[place]
    place += 1
    out.append(part)
    if depth > DEEPEST:
        return place
    for _ in range(WITH_ARGUMENTS.get(part, 0)):
        start = _next(parts, place)
        if part == r"\sqrt" and parts[start : start + 1] == ["["]:
            place = start
            while place < len(parts) and (place == start or parts[place - 1] != "]"):
                out.append(parts[place])
                place += 1
            start = _next(parts, place)
        if start == len(parts) or parts[start] in {"}", "&", r"\\"}:
            return place
        place = _argument(parts, pairs, start, out, depth, whole=part in {"^", "_", r"\sqrt"})
    return place


def _next(parts: list[str], place: int) -> int:
    while place < len(parts) and parts[place].isspace():
        place += 1
    return place


def _argument(parts: list[str], pairs: dict[int, int], place: int, out: list[str], depth: int, *, whole: bool) -> int:
    """Write one argument in braces. whole: a number is taken whole, not its first digit as TeX does: who writes 10^12
    means 10^{12}."""
    out.append("{")
    first, stop = parts[place], pairs.get(place)
    if stop is not None and (first == "{" or (whole and first == "(")):  # 2^(10), sqrt(3)
        place += 1
        while place < stop:
            place = _copy(parts, pairs, place, out, depth + 1)
        place += 1
    elif whole and first in {"-", "+"} and parts[place + 1 : place + 2] and parts[place + 1].isdigit():  # 10^-19
        out += [first, parts[place + 1]]
        place += 2
    elif len(first) > 1 and first[0].isalnum() and not (whole and first.isdigit()):
        out.append(first[0])
        parts[place] = first[1:]
    else:
        place = _copy(parts, pairs, place, out, depth + 1)
    out.append("}")
    return place


def percents(text: str) -> str:
    r"""The word as the sign: `35 percent`, `35 \text{ per cent}` (Math-Verify 61)."""
    if "ercent" not in text and "er cent" not in text:
        return text
    for word in ("percentage points", "percentage point", "percentage", "per cent", "percent"):
        for shape in (word, word.capitalize()):
            text = text.replace(shape, r"\%")
    out: list[str] = []
    for part in tokens(text):
        if part == "}" and out and out[-1] == r"\%" and r"\text" in out[-4:]:
            while out[-1] != r"\text":
                out.pop()
            out[-1] = r"\%"
        else:
            out.append(part)
    return "".join(out)


def normalized(text: str) -> str:
    """All of it but the marks in numbers (numerals.py)."""
    return arguments(percents(words(commands(characters(text))))).strip()
