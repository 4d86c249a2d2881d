r"""Writings of a number made one: thousands marks, recurring decimals, powers of ten. As in normalize.py, of text."""

from openrs.rewards.normalize import tokens

LONGEST_NUMBER = 4000  # digits; Python converts no more than 4300


def thousands(text: str, commas: bool = True) -> str:
    r"""Marks between groups of three digits go: `12,345`, `12{,}345`, `12\,345`, `12 345`, `12'345`.

    `{,}` before other than three digits is a decimal comma. commas: whether `123,456` is a number, and not 123 and 456;
    `12,345` outside of brackets always is.
    """
    parts = tokens(text.replace("{,}", "\0"))
    out: list[str] = []
    place = depth = 0
    while place < len(parts):
        part = parts[place]
        out.append(part)
        place += 1
        depth += (part in {"(", "[", r"\{"}) - (part in {")", "]", r"\}"})
        if not part.isdigit() or (len(out) > 1 and out[-2] in {".", "_", "^"}):
            continue
        mark = parts[place] if place < len(parts) else ""
        if mark not in {",", "\0", " ", "'"} or (mark == "," and not commas and (depth or len(part) > 2)):
            continue
        grouped = len(part) <= 3 and part[0] != "0"
        begun = place
        while (
            grouped and parts[place : place + 1] == [mark] and _digit(parts, place + 1) and len(parts[place + 1]) == 3
        ):
            out.append(parts[place + 1])
            place += 2
        whole = place == len(parts) or not (parts[place] in {",", "\0"} and _digit(parts, place + 1) and mark != " ")
        if place > begun and not whole and mark == ",":  # 100,200,30 are three numbers
            del out[-((place - begun) // 2) :]
            out += parts[begun:place]
    return "".join(out).replace("\0", ".")


def _digit(parts: list[str], place: int) -> bool:
    return place < len(parts) and parts[place].isdigit()


def recurring(text: str) -> str:
    r"""`0.\overline{6}`, `0.1\dot{6}`, `0.\dot{1}2\dot{3}`, `0.(6)` and `0.666\ldots` as fractions."""
    if "." not in text:
        return text
    parts = tokens(text)
    out: list[str] = []
    place = 0
    while place < len(parts):
        point = place + 1 if parts[place].isdigit() else place
        if point < len(parts) and parts[point] == "." and (point == place or point + 1 < len(parts)):
            whole = parts[place] if point > place else "0"
            fixed = parts[point + 1] if _digit(parts, point + 1) else ""
            after = point + 1 + bool(fixed)
            period, end, used = _period(parts, after, fixed)
            if period and len(whole) + len(fixed) + len(period) < LONGEST_NUMBER:
                fixed = fixed[: len(fixed) - used]
                low = int(whole + fixed)
                nines = 10 ** len(period) - 1
                out.append(rf"\frac{{{low * nines + int(period)}}}{{{nines * 10 ** len(fixed)}}}")
                place = end
                continue
            out += parts[place:after]
            place = max(after, place + 1)
            continue
        out.append(parts[place])
        place += 1
    return "".join(out)


def _period(parts: list[str], place: int, fixed: str) -> tuple[str, int, int]:
    """The digits that recur from `place` on, the place after them, and how many of `fixed` they are."""
    first = parts[place] if place < len(parts) else ""
    if first in {r"\overline", r"\bar", r"\dot"} and parts[place + 1 : place + 2] == ["{"]:
        if _digit(parts, place + 2) and parts[place + 3 : place + 4] == ["}"]:
            digits, end = parts[place + 2], place + 4
            if first == r"\dot":
                between = parts[end] if _digit(parts, end) else ""
                last = end + bool(between)
                if parts[last : last + 2] == [r"\dot", "{"] and _digit(parts, last + 2):
                    digits, end = digits + between + parts[last + 2], last + 4
            return digits, end, 0
    elif first == "(" and place and _digit(parts, place + 1) and parts[place + 2 : place + 3] == [")"]:
        if parts[place - 1] == "." or place + 3 == len(parts):
            return parts[place + 1], place + 3, 0
    elif first == r"\ldots" or parts[place : place + 3] == [".", ".", "."]:
        end = place + (1 if first == r"\ldots" else 3)
        for size in (1, 2, 3):
            times = 3 if size == 1 else 2
            if len(fixed) >= size * times and fixed.endswith(fixed[-size:] * times):
                return fixed[-size:], end, size
    return "", place, 0


def scientific(text: str) -> str:
    r"""`1.6e-19`, `3E8`, `3e+8`, `3x10^8` as `1.6\cdot 10^{-19}`: a digit on both sides of the e, no blank."""
    parts = tokens(text)
    out: list[str] = []
    place = 0
    while place < len(parts):
        part = parts[place]
        digit = bool(out) and (out[-1].isdigit() or (out[-1] == "." and len(out) > 1 and out[-2].isdigit()))
        sign = place + 1 < len(parts) and parts[place + 1] in {"+", "-"}
        number = place + 1 + sign
        if part in {"e", "E"} and digit and _digit(parts, number) and len(parts[number]) <= 6:
            out.append(rf"\cdot 10^{{{'-' if parts[place + 1] == '-' else ''}{parts[number]}}}")
            place = number + 1
            continue
        if (part in {"x", "X"} and parts[place + 1 : place + 3] == ["10", "^"] and digit) or (
            part in {"x", "X"} and parts[place + 1 : place + 4] == [" ", "10", "^"] and out[-1:] == [" "]
        ):
            part = r"\cdot "
        out.append(part)
        place += 1
    return "".join(out)
