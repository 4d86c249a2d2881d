r"""Pairs of answers whose truth is known, because both are made from one value: equivalent writings, and near misses.

Each kind is a function of a random generator that returns a reference answer, writings that are equal to it, and
writings of something else that is close. `pairs` deals them out; tests/rewards/test_equivalence.py and
judge_accuracy.py count what the judge says of them. Truth comes from the construction (fractions, integers, sympy's
own rewriting), never from a judge.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from judge_numbers import (
    Made,
    bases,
    decimals,
    degrees,
    fractions,
    percents,
    recurring,
    scientific,
    thousands,
    times,
    tiny,
    units,
)  # fmt: skip

ENDINGS = (r"so $\boxed{%s}$.", r"thus \boxed{%s}", r"\[ \boxed{%s} \]", r"The final answer is $%s$.", r"$\fbox{%s}$")


@dataclass(frozen=True, slots=True)
class Pair:
    kind: str
    gold: str
    answer: str
    right: bool


def pairs(seed: int, count: int) -> Iterator[Pair]:
    """`count` pairs, the kinds in turn, half of them equivalent where a kind has enough of both."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        for kind, make in KINDS.items():
            gold, equal, other = make(rng)
            for right, writings in ((True, equal), (False, other)):
                for answer in rng.sample(writings, min(2, len(writings))):
                    if made < count and (right or answer != gold):
                        made += 1
                        yield Pair(kind, gold, answer, right)


def completion(pair: Pair, rng: random.Random) -> str:
    return "First, I think.\n</think>\n\nTherefore " + rng.choice(ENDINGS) % pair.answer


def _numbers(rng: random.Random, count: int) -> list[str]:
    return [str(n) for n in rng.sample(range(-50, 100), count)]


def lists(rng: random.Random) -> Made:
    items = _numbers(rng, rng.randint(2, 5))
    mixed = items[:]
    while mixed == items:
        rng.shuffle(mixed)
    last = rf"{', '.join(mixed[:-1])} \text{{ and }} {mixed[-1]}"
    equal = [", ".join(mixed), last, rf"\{{{','.join(mixed)}\}}", " or ".join(mixed), r" \text{ or } ".join(mixed)]
    equal += [
        f"x={', '.join(mixed)}",
        ", ".join(f"x = {item}" for item in mixed),
        r"\quad ".join(f"{m}," for m in mixed),
    ]
    changed = [*mixed[:-1], str(int(mixed[-1]) + 1000)]
    other = [", ".join(changed), ", ".join(mixed[:-1]), ", ".join([*mixed, "777"]), f"x={', '.join(changed)}"]
    return rng.choice((", ".join(items), f"x={', '.join(items)}", rf"\{{{', '.join(items)}\}}")), equal, other


def points(rng: random.Random) -> Made:
    items = _numbers(rng, rng.randint(2, 4))
    turned = items[1:] + items[:1]
    equal = [f"({','.join(items)})", rf"\left({', '.join(items)}\right)", rf"\langle {', '.join(items)}\rangle"]
    equal += [rf"\left( {items[0]}.0, {', '.join(items[1:])} \right)"]
    changed = [*items[:-1], str(int(items[-1]) + 1)]
    return (
        f"({', '.join(items)})",
        equal,
        [f"({', '.join(turned)})", f"({', '.join(changed)})", f"({', '.join([*items, '1'])})", items[0]],
    )


def intervals(rng: random.Random) -> Made:
    low = rng.randint(-20, 20)
    high = low + rng.randint(1, 20)
    a, b = str(low), rng.choice((str(high), f"{high}.5", rf"{high}\sqrt{{2}}" if low >= 0 else str(high)))
    left, right = rng.choice("(["), rng.choice(")]")
    below, above = "<" if left == "(" else r"\le", "<" if right == ")" else r"\leq"
    x = rng.choice("xymt")
    equal = [
        f"{left}{a},{b}{right}",
        f"{a} {below} {x} {above} {b}",
        rf"{x} \in {left}{a}, {b}{right}",
        rf"\left{left}{a}, {b}\right{right}",
    ]
    over, under = ">" if right == ")" else r"\ge", ">" if left == "(" else r"\geq"
    equal.append(f"{b} {over} {x} {under} {a}")
    flip = "[" if left == "(" else "("
    other = [
        f"{flip}{a},{b}{right}",
        f"{left}{a},{high + 3}{right}",
        f"{low - 1} {below} {x} {above} {b}",
        f"{x} > {a}",
        f"({b},{a})",
    ]
    return rng.choice(equal[:3]), equal, other


def rays(rng: random.Random) -> Made:
    end, x, kind = rng.randint(-30, 30), rng.choice("xmk"), rng.choice((">", r"\ge", "<", r"\le"))
    up, closed = kind in {">", r"\ge"}, kind.startswith("\\")
    bracket = (
        f"[{end}, \\infty)"
        if closed and up
        else f"({end}, +\\infty)"
        if up
        else f"(-\\infty, {end}{']' if closed else ')'}"
    )
    turned = {">": "<", r"\ge": r"\le", "<": ">", r"\le": r"\ge"}[kind]
    equal = [f"{x} {kind} {end}", bracket, f"{end} {turned} {x}", rf"{x} \in {bracket}", f"3{x} {kind} {3 * end}"]
    opened = {">": r"\ge", r"\ge": ">", "<": r"\le", r"\le": "<"}[kind]
    other = [f"{x} {opened} {end}", f"{x} {turned} {end}", f"{x} {kind} {end + 1}", str(end)]
    return rng.choice(equal[:2]), equal, other


def unions(rng: random.Random) -> Made:
    a = rng.randint(-20, 10)
    b = a + rng.randint(1, 15)
    equal = [
        rf"(-\infty,{a})\cup({b},\infty)",
        rf"x<{a} \text{{ or }} x>{b}",
        rf"x > {b} \text{{ or }} x < {a}",
        rf"({b},\infty) \cup (-\infty,{a})",
    ]
    other = [rf"(-\infty,{a}]\cup({b},\infty)", rf"x<{a} \text{{ or }} x>{b + 1}", f"({a},{b})", f"x<{a}"]
    return rng.choice(equal[:2]), equal, other


def matrices(rng: random.Random) -> Made:
    rows, columns = rng.randint(2, 3), rng.randint(2, 3)
    grid = [[rng.randint(-9, 9) for _ in range(columns)] for _ in range(rows)]
    grid[0][0] = 3

    def written(kind: str, values: list[list[int]], space: str = " ") -> str:
        body = rf"{space}\\{space}".join(f"{space}&{space}".join(map(str, row)) for row in values)
        return rf"\begin{{{kind}}}{body}\end{{{kind}}}"

    changed = [row[:] for row in grid]
    changed[-1][-1] += rng.randint(1, 5)
    equal = [
        written("bmatrix", grid),
        written("pmatrix", grid, ""),
        written("pmatrix", grid).replace("3", r"\frac{6}{2}", 1),
    ]
    turned = [list(row) for row in zip(*grid, strict=True)]
    other = [written("pmatrix", changed), written("pmatrix", grid[:-1])]
    return written("pmatrix", grid), equal, other + ([written("pmatrix", turned)] if turned != grid else [])


def both_signs(rng: random.Random) -> Made:
    a, b = rng.randint(1, 30), rng.choice((2, 3, 5, 7, 11))
    if rng.random() < 0.5:
        return (
            rf"\pm {a}",
            [f"{a}, -{a}", rf"-{a} \text{{ or }} {a}", f"x = \\pm {a}", f"±{a}"],
            [str(a), f"-{a}", rf"\pm {a + 1}"],
        )
    equal = [rf"{a} \pm \sqrt{{{b}}}", rf"{a}+\sqrt{{{b}}}, {a}-\sqrt{{{b}}}", rf"{a}-\sqrt{b}, {a}+\sqrt{b}"]
    return (
        rng.choice(equal[:2]),
        equal,
        [rf"{a}+\sqrt{{{b}}}", rf"{a + 1} \pm \sqrt{{{b}}}", rf"{a} \pm \sqrt{{{b + 2}}}"],
    )


def equations(rng: random.Random) -> Made:
    m, c, k = rng.randint(2, 9), rng.randint(1, 20), rng.randint(2, 5)
    equal = [f"y={m}x+{c}", f"{m}x-y+{c}=0", f"{k}y={k * m}x+{k * c}", f"y-{c}={m}x", f"{m}x + {c} = y"]
    other = [f"y={m + 1}x+{c}", f"y={m}x-{c}", f"{m}x+y+{c}=0", f"{k}y={k * m}x+{c}"]
    return rng.choice(equal[:2]), equal, other


def assignments(rng: random.Random) -> Made:
    value, name = rng.randint(2, 99), rng.choice(("x", "n", "f(2)", "a_{3}", r"\theta", "AB", r"\angle ABC", "S_n"))
    part = rng.randint(1, value - 1)
    equal = [
        f"{name} = {value}",
        f"{name}={value}.0",
        f"{part}+{value - part}={value}",
        f"{name} = {part} + {value - part} = {value}",
    ]
    equal.append(rf"\frac{{{value * 3}}}{{3}} = {value}")
    false = [
        rf"{value + 1}={value}",
        f"{part}+{value - part + 1}={value}",
        f"1=2={value}",
        f"{name}={value + 1}",
        rf"{name} = {value - 1} = {value}",
    ]
    return str(value), equal, false


def ratios(rng: random.Random) -> Made:
    a, b, k = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 5)
    while a == b:
        b = rng.randint(1, 9)
    equal = [f"{a}:{b}", f"{a} : {b}", f"{a * k}:{b * k}", rf"\frac{{{a}}}{{{b}}}", f"{a}/{b}"]
    equal = [text for text in equal if not (len(text.split(":")[-1]) == 2 and text.count(":") and " " not in text)]
    other = [f"{b}:{a}", f"{a + b}:{b}", f"{a}:{b + 9 - b}" if b != 9 else f"{a}:8"]
    return f"{a}:{b}", equal, other


def surds(rng: random.Random) -> Made:
    a, b, c = rng.randint(2, 12), rng.choice((2, 3, 5, 6, 7)), rng.randint(2, 9)
    equal = [
        rf"{a}\sqrt{{{b}}}",
        rf"\sqrt{{{a * a * b}}}",
        rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}",
        rf"{a}\sqrt{b}",
        rf"{a} \cdot {b}^{{1/2}}",
        f"{a}√{b}",
    ]
    other = [
        rf"{a + 1}\sqrt{{{b}}}",
        rf"\sqrt{{{a * a * b + 1}}}",
        rf"{a}\sqrt{{{b + 3}}}",
        f"{a * b**0.5:.3f}",
        f"{a * b}",
    ]
    if rng.random() < 0.4:
        return (
            rf"\frac{{{a}\pi}}{{{c}}}",
            [
                rf"\frac{{{a}}}{{{c}}}\pi",
                rf"{a}\pi/{c}",
                rf"\pi \cdot \frac{a}{c}" if a < 10 else rf"\frac{{\pi\cdot {a}}}{{{c}}}",
                rf"\frac{{{2 * a}π}}{{{2 * c}}}",
            ],
            [
                rf"\frac{{{a + 1}\pi}}{{{c}}}",
                f"{a * 3.14 / c:.2f}",
                rf"\frac{{{a}}}{{{c}}}",
                rf"-\frac{{{a}\pi}}{{{c}}}",
            ],
        )
    return rng.choice(equal[:2]), equal, other


def polynomials(rng: random.Random) -> Made:
    """An expression, sympy's rewritings of it, and the same with one coefficient changed."""
    import sympy

    x, y = sympy.symbols("x y")
    a, b, c = (rng.randint(1, 6) * rng.choice((-1, 1)) for _ in range(3))
    base = rng.choice(
        (
            (x + a) * (x + b),
            (x + a) ** 2 + c * y,
            (a * x + b) / (x + c + 7),
            x**3 + a * x + b,
            (x - y) * (a * x + b * y),
        )
    )
    latex = [
        str(sympy.latex(form))
        for form in (
            base,
            sympy.expand(base),
            sympy.factor(base),
            sympy.together(base),
            sympy.collect(sympy.expand(base), x),
        )
    ]
    changed = (base + 1, sympy.expand(base - x), -base, base.subs(x, 2 * x), sympy.expand(base + y))
    near = [str(sympy.latex(form)) for form in changed if sympy.simplify(form - base) != 0]
    return latex[0], latex, near


def functions(rng: random.Random) -> Made:
    a = rng.choice((2, 3, 4, 5, 6, 8, 9))
    equal, other = rng.choice(
        (
            (
                [rf"\ln {a} + \ln 3", rf"\ln({3 * a})", rf"\ln {3 * a}", rf"\frac{{\log {3 * a}}}{{\log e}}"],
                [rf"\ln {3 * a + 1}", rf"\log {3 * a}", f"{3 * a}"],
            ),
            (
                [rf"\sin^2 {a}x", rf"1-\cos^2 {a}x", rf"\frac{{1-\cos({2 * a}x)}}{{2}}"],
                [rf"\sin {a}x", rf"\cos^2 {a}x", rf"1+\cos^2 {a}x"],
            ),
            (
                [rf"e^{{{a}}}-1", rf"\mathrm{{e}}^{{{a}}}-1", rf"-1+\exp({a})"],
                [rf"e^{{{a}}}+1", rf"e^{{{a + 1}}}-1", f"2.718^{{{a}}}-1"],
            ),
            (
                [rf"{a}^{{x+1}}", rf"{a}\cdot {a}^x", rf"\frac{{{a}^{{x+2}}}}{{{a}}}"],
                [rf"{a}^x", rf"{a}^{{x-1}}", rf"{a + 1}^{{x+1}}"],
            ),
            (
                [rf"\binom{{{a + 5}}}{{2}}", rf"\frac{{({a + 5})!}}{{2!({a + 3})!}}", str((a + 5) * (a + 4) // 2)],
                [rf"\binom{{{a + 6}}}{{2}}", str((a + 5) * (a + 4))],
            ),
            ([rf"{a}-2i", rf"-2i+{a}", rf"{a} - 2 \mathrm{{i}}"], [rf"{a}+2i", rf"{a}-i", rf"-{a}-2i"]),
            (
                [rf"\log_{{{a}}} 7", rf"\frac{{\ln 7}}{{\ln {a}}}", rf"\log_{a}{{7}}"],
                [rf"\log_{{{a}}} 8", rf"\frac{{\ln {a}}}{{\ln 7}}"],
            ),
        )
    )
    return equal[0], equal, other


WORDS = (
    ("east", "west"),
    ("Monday", "Tuesday"),
    ("Yes", "No"),
    ("even", "odd"),
    ("Evelyn", "Briana"),
    ("parallelogram", "trapezoid"),
)


def words(rng: random.Random) -> Made:
    right, wrong = rng.sample(rng.choice(WORDS), 2)
    equal = [
        rf"\text{{{right}}}",
        rf"\text{{ {right} }}",
        rf"\textbf{{{right.lower()}}}",
        right,
        rf"\mathrm{{{right.capitalize()}}}",
        rf"\text{{{right}.}}",
    ]
    return rf"\text{{{right}}}", equal, [rf"\text{{{wrong}}}", wrong, rf"\text{{not {right}}}", right[:-1], "1"]


def choices(rng: random.Random) -> Made:
    letter, other = rng.sample("ABCDE", 2)
    number = rng.randint(1, 99)
    equal = [
        letter,
        rf"\text{{{letter}}}",
        f"({letter})",
        rf"\text{{({letter})}}",
        rf"\textbf{{({letter})}}",
        f"{letter}.",
        rf"\text{{{letter})}} {number}",
        rf"\textbf{{({letter}) }}{number}",
    ]
    return (
        rng.choice((letter, rf"\text{{({letter})}}")),
        equal,
        [other, rf"\text{{({other})}}", rf"\text{{{other})}} {number}", str(number)],
    )


def widths(rng: random.Random) -> Made:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    wide = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
    point = f"({a},{b})"
    equal = [point.translate(wide), f"（{a}，{b}）", f"( {a} ,{b} )".translate({0x20: 0x3000})]
    if rng.random() < 0.5:
        return (
            str(a),
            [str(a).translate(wide), f"{a}。", f"　{a}"],
            [str(b if b != a else b + 1).translate(wide), str(-a).translate(wide)],
        )
    return point, equal, [f"（{a}，{b + 1}）", f"({a + 1},{b})".translate(wide)]


KINDS: dict[str, Callable[[random.Random], Made]] = {
    function.__name__.replace("_", " "): function
    for function in (
        fractions, decimals, percents, scientific, thousands, units, degrees, times, bases, recurring, tiny, lists,
        points, intervals, rays, unions, matrices, both_signs, equations, assignments, ratios, surds, polynomials,
        functions, words, choices, widths,
    )
}  # fmt: skip
