"""The kinds of judge_pairs.py that are one number: fractions, decimals, units, times, bases and others."""

import random
from fractions import Fraction

Made = tuple[str, list[str], list[str]]
"""A reference answer, writings that are equal to it, and writings of something else that is close."""


def _fraction(rng: random.Random, most: int = 60) -> Fraction:
    return Fraction(rng.randint(1, most), rng.randint(2, most))


def fractions(rng: random.Random) -> Made:
    value = _fraction(rng)
    while value.denominator == 1:
        value = _fraction(rng)
    a, b, k = value.numerator, value.denominator, rng.randint(2, 9)
    sign = rng.choice(("", "-"))
    equal = [rf"\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", rf"\frac{{{a * k}}}{{{b * k}}}", rf"\tfrac {{{a}}} {{{b}}}"]
    if a < 10 and b < 10:
        equal += [rf"\frac{a}{b}", rf"\frac {a}{b}"]
    if a > b:
        equal += [rf"{a // b}\frac{{{a % b}}}{{{b}}}", rf"{a // b} {a % b}/{b}", rf"{a // b} \frac{{{a % b}}}{{{b}}}"]
    other = [rf"\frac{{{a + 1}}}{{{b}}}", rf"\frac{{{a}}}{{{b + 1}}}", f"{a}", f"{float(value):.4f}"]
    if Fraction(f"{float(value):.4f}") == value:
        other.pop()
    if a != b and a > 1:
        other.append(rf"\frac{{{b}}}{{{a}}}")
    return rf"{sign}\frac{{{a}}}{{{b}}}", [sign + text for text in equal], [sign + text for text in other]


def decimals(rng: random.Random) -> Made:
    places = rng.randint(1, 5)
    units = rng.randint(1, 10 ** (places + 2))
    text = f"{units // 10**places}.{units % 10**places:0{places}d}"
    value = Fraction(units, 10**places)
    equal = [
        text + "0",
        f"{text}00",
        rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
        rf"\text{{{text}}}",
        f"+{text}",
    ]
    if text.startswith("0."):
        equal.append(text[1:])
    step = text[:-1] + str((int(text[-1]) + rng.randint(1, 9)) % 10)
    return text, equal, [step, text + "1", "-" + text, text.replace(".", "", 1) if units >= 10**places else "7.5e9"]


def percents(rng: random.Random) -> Made:
    whole = rng.randint(2, 400)
    value = Fraction(whole, 100)
    share = f"{whole / 100:.2f}"
    equal = [
        rf"{whole}\%",
        f"{whole}%",
        f"{whole} percent",
        rf"{whole}\text{{ percent}}",
        rf"{whole} \text{{per cent}}",
    ]
    equal += [share, rf"\frac{{{value.numerator}}}{{{value.denominator}}}", rf"{whole}.0\%", str(whole)]
    other = [rf"{whole + 1}\%", f"{whole + 1}", rf"0.{whole:03d}\%", f"{(whole + 1) / 100:.2f}"]
    if rng.random() < 0.5:
        return share, [rf"{whole}\%", f"{whole} percent", share + "0"], [rf"{whole + 1}\%", rf"{whole}.5\%"]
    return rf"{whole}\%", equal, other


def scientific(rng: random.Random) -> Made:
    mantissa, power = rng.randint(11, 99), rng.choice((-1, 1)) * rng.randint(2, 40)
    m = f"{mantissa // 10}.{mantissa % 10}"
    equal = [rf"{m} \times 10^{{{power}}}", rf"{m}\cdot 10^{{{power}}}", f"{m}e{power}", f"{m}E{power:+d}"]
    equal += [
        rf"{mantissa}\times 10^{{{power - 1}}}",
        f"{m}*10^{{{power}}}",
        f"{m} x 10^{power}" if power > 0 else f"{m}e{power}",
    ]
    near = f"{mantissa // 10}.{mantissa % 10}{rng.randint(1, 9)}"
    other = [
        rf"{m} \times 10^{{{power + 1}}}",
        f"{m}e{power - 1}",
        rf"{near}\times 10^{{{power}}}",
        rf"{m}e{-power}",
        m,
    ]
    return rng.choice(equal[:5]), equal, other


def thousands(rng: random.Random) -> Made:
    value = rng.randint(1000, 10 ** rng.randint(4, 12))
    text = f"{value:,}"
    equal = [text] + [
        text.replace(",", mark) for mark in ("{,}", r",\!", r"\,", r"\;", "~", " ", "\u202f", "\u2009", r"\ ")
    ]
    equal += [str(value), rf"\${text}", f"{text}.00"]
    wrong = str(value)
    place = rng.randrange(1, len(wrong))
    wrong = wrong[:place] + str((int(wrong[place]) + rng.randint(1, 9)) % 10) + wrong[place + 1 :]
    other = [wrong, f"{int(wrong):,}", str(value)[:-1] or "0", f"{value}0"]
    if len(text.partition(",")[0]) < 3:
        other.append(text.replace(",", ", "))
    return rng.choice((str(value), text)), equal, other


UNITS = ("cm", "meters", "dollars", "apples", "miles per hour", "cm}^2\\text{", "square units", "kg", "people", "years")


def units(rng: random.Random) -> Made:
    value, unit = rng.randint(2, 500), rng.choice(UNITS)
    said = rf"{value} \text{{ {unit}}}"
    equal = [str(value), said, rf"{value}\,\mathrm{{{unit.replace(' ', '~')}}}" if "}" not in unit else said]
    plain = rng.choice(("cm", "km", "kg", "inches", "miles"))
    equal += [f"{value} {plain}", rf"{value}\mbox{{ {unit}}}"] if unit == "apples" else [said]
    other = [
        rf"{value + 1} \text{{ {unit}}}",
        str(value * 10),
        rf"-{value} \text{{ {unit}}}",
        rf"\frac{{{value}}}{{7}}\text{{ {unit}}}",
    ]
    big, small, factor = rng.choice((("m", "cm", 100), ("km", "m", 1000), ("hours", "minutes", 60), ("kg", "g", 1000)))
    if rng.random() < 0.3:
        return (
            rf"{value}\text{{ {big}}}",
            [rf"{value * factor} \text{{ {small}}}", str(value)],
            [rf"{value} \text{{ {small}}}", rf"{value * factor + 1}\text{{ {small}}}"],
        )
    return rng.choice((str(value), said)), equal, other


def degrees(rng: random.Random) -> Made:
    value = rng.randint(1, 359)
    turn = Fraction(value, 180)
    radians = rf"\frac{{{turn.numerator}\pi}}{{{turn.denominator}}}"
    equal = [
        str(value),
        f"{value}^\\circ",
        f"{value}°",
        rf"{value}^{{\circ}}",
        rf"{value}\text{{ degrees}}",
        rf"{value}\degree",
    ]
    other = [rf"{value + 1}^\circ", str(value + 10), rf"\frac{{{turn.numerator + 1}\pi}}{{{turn.denominator}}}"]
    return rf"{value}^\circ", [*equal, radians], other


def times(rng: random.Random) -> Made:
    hour, minute = rng.randint(1, 11), rng.randint(0, 59)
    text = f"{hour}:{minute:02d}"
    equal = [text, rf"{text} \text{{ p.m.}}", f"{text} pm", rf"{text}\text{{ PM}}"]
    other = [
        f"{hour % 12 + 1}:{minute:02d}",
        f"{hour}:{(minute + 1) % 60:02d}",
        rf"{hour % 12 + 1}:{minute:02d} \text{{ p.m.}}",
    ]
    # and what is no time at all
    other += [str(hour), str(1000 + hour * 60 + minute), f"1/{minute + 61}", rf"\frac{{{minute + 61}}}{{{hour}}}"]
    if rng.random() < 0.5:
        return rf"{text}\text{{ p.m.}}", [*equal, f"{hour + 12}:{minute:02d}"], [*other, rf"{text}\text{{ a.m.}}"]
    return text, equal, other


NAMES = {2: "two", 3: "three", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 12: "twelve", 16: "sixteen"}


def bases(rng: random.Random) -> Made:
    base = rng.choice(sorted(NAMES))
    first = rng.randint(1, min(base, 10) - 1)
    digits = str(first) + "".join(str(rng.randrange(min(base, 10))) for _ in range(rng.randint(2, 6)))
    equal = [
        f"{digits}_{base}" if base < 10 else f"{digits}_{{{base}}}",
        f"{digits}_{{{base}}}",
        rf"({digits})_{{{base}}}",
    ]
    equal += [rf"{digits}_{{\text{{{NAMES[base]}}}}}", rf"{digits}_{{({base})}}", rf"{digits}_{{\text{{base }}{base}}}"]
    other_base = rng.choice([b for b in NAMES if b != base])
    changed = digits[:-1] + str((int(digits[-1]) + 1) % min(base, 10))
    other = [f"{digits}_{{{other_base}}}", f"{changed}_{{{base}}}", str(int(digits, base)), f"{digits}0_{{{base}}}"]
    return rf"{digits}_{{{base}}}", equal, [text for text in other if text != digits]


def recurring(rng: random.Random) -> Made:
    fixed = "".join(str(rng.randrange(10)) for _ in range(rng.randint(0, 2)))
    period = "".join(str(rng.randrange(10)) for _ in range(rng.randint(1, 3)))
    whole = rng.randint(0, 12)
    if len(set(period)) == 1 and period[0] in "09":
        period = "36"
    value = Fraction(
        int(f"{whole}{fixed}{period}") - int(f"{whole}{fixed}"), 10 ** len(fixed) * (10 ** len(period) - 1)
    )
    ratio = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    equal = [
        rf"{whole}.{fixed}\overline{{{period}}}",
        rf"{whole}.{fixed}\overline{{{period * 2}}}",
        ratio,
        f"{whole}.{fixed}({period})",
    ]
    equal.append(
        rf"{whole}.{fixed}\bar{{{period}}}" if len(period) == 1 else rf"{whole}.{fixed}{period}\overline{{{period}}}"
    )
    if len(period) > 1:
        equal.append(rf"{whole}.{fixed}\dot{{{period[0]}}}{period[1:-1]}\dot{{{period[-1]}}}")
    other = [
        f"{whole}.{fixed}{period}",
        f"{whole}.{fixed}{period * 2}",
        rf"\frac{{{value.numerator + 1}}}{{{value.denominator}}}",
    ]
    return rng.choice([*equal[:1], ratio]), equal, other


def tiny(rng: random.Random) -> Made:
    base, power = rng.choice((2, 3, 5, 7)), rng.randint(30, 400)
    n = rng.randint(15, 300)
    if rng.random() < 0.5:
        equal = [
            rf"{base}^{{-{power}}}",
            rf"\left(\frac{{1}}{{{base}}}\right)^{{{power}}}",
            rf"\frac{{{base}}}{{{base}^{{{power + 1}}}}}",
        ]
        return (
            rf"\frac{{1}}{{{base}^{{{power}}}}}",
            equal,
            [rf"\frac{{1}}{{{base}^{{{power + 1}}}}}", rf"{base}^{{-{power - 1}}}", "0"],
        )
    equal = [rf"\frac{{{n + 1}}}{{{n + 1}!}}", rf"\frac{{1}}{{{n}\cdot {n - 1}!}}"]
    return rf"\frac{{1}}{{{n}!}}", equal, [rf"\frac{{1}}{{{n + 1}!}}", rf"\frac{{2}}{{{n}!}}", "0", "10^{-40}"]
