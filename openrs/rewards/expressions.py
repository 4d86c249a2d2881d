r"""Are two expressions equal? Numbers exactly, everything else by its value to 40 digits, at several points.

math-verify rounds both sides to six decimals, so 1/2^{90} equals 1/2^{91} there (Math-Verify 14), and then calls
sympy's simplify, which may take seconds. Here a decimal is the exact fraction that it writes, two numbers are equal
when these fractions are, and an identity is tested where the Schwartz-Zippel lemma says it should be: at random points.
math-verify's own parser (latex2sympy2_extended) reads the LaTeX; sums, sets and other objects without a value are left
to math-verify's comparison.
"""

import functools
import math
import re
from fractions import Fraction
from typing import Any

LONGEST = 2000  # characters of an expression that are read; the parser needs milliseconds for each
LARGEST = 60_000  # bits of a number that is worked out: 10^18000, or 6000!
DIGITS = 40
SAME = 1e-25  # relative difference of two values of 40 digits
ROUNDED = 12  # a decimal of so many digits is taken for a value that it rounds

_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(rf"[+-]*({_DECIMAL})(?:\\cdot10\^\{{([+-]?[0-9]{{1,5}})\}})?")
_POWER = re.compile(r"[+-]*10\^\{([+-]?[0-9]{1,5})\}")
_FRACTION = re.compile(r"[+-]*([0-9]+)?\\frac\{([+-]?[0-9]+)\}\{([+-]?[0-9]+)\}")
_SLASH = re.compile(r"[+-]*([0-9]+ )?([0-9]+)/([0-9]+)")


class UnreadableError(ValueError):
    """Text that is no expression, or one whose value nobody should work out."""


@functools.lru_cache(maxsize=64)
def number(text: str) -> tuple[Fraction, int] | None:
    r"""The value of a plain number (whole, decimal, a/b, \frac, mixed, times a power of ten), and how many digits it
    is written with where it is a decimal, else 0. None for anything else."""
    bare = text.strip()
    if len(bare) > LONGEST or not bare:
        return None
    tight = bare.replace(" ", "")
    sign = -1 if tight[: len(tight) - len(tight.lstrip("+-"))].count("-") % 2 else 1
    if found := _NUMBER.fullmatch(tight):
        digits = found[1].replace(".", "").lstrip("0")
        value = Fraction(found[1].rstrip(".") or "0") * Fraction(10) ** int(found[2] or 0)
        return sign * value, len(digits) if "." in found[1] else 0
    if found := _POWER.fullmatch(tight):
        return sign * Fraction(10) ** int(found[1]), 0
    found = _FRACTION.fullmatch(tight) or _SLASH.fullmatch(bare)
    if found is None:
        return None
    whole, above, below = int(found[1] or 0), int(found[2]), int(found[3])
    if below == 0 or (found[1] and not 0 < above < below):  # "2 1/2" is two and a half, 3\frac{5}{2} no mixed number
        return None
    return sign * (whole + Fraction(above, below)), 0


def equal_numbers(left: tuple[Fraction, int], right: tuple[Fraction, int]) -> bool:
    """Exactly, but a decimal of ROUNDED digits may be a rounded fraction."""
    if left[0] == right[0]:
        return True
    if bool(left[1]) == bool(right[1]):
        return False
    exact, decimal = (right, left) if left[1] else (left, right)
    below = exact[0].denominator
    terminates = pow(10, below.bit_length(), below) == 0
    return not terminates and rounds(decimal[0], decimal[1], float(exact[0] / decimal[0]))


def rounds(decimal: Fraction, digits: int, ratio: float) -> bool:
    return decimal != 0 and digits >= ROUNDED and abs(ratio - 1) < 10.0 ** (1 - min(digits, 15))


# --- by sympy ---------------------------------------------------------------------------------------------------------

_IMPLIED = re.compile(r"(?<=[0-9])\s*\((?=[^()]*\))")
_FACTORIAL_OF_BINOMIAL = re.compile(r"\\binom\{([0-9]+)\}\{([0-9]+)\}")


@functools.lru_cache(maxsize=64)
def expression(text: str) -> Any:
    """A sympy expression with exact numbers, worked out as far as sympy does by itself.

    Raises UnreadableError: not LaTeX of mathematics, or numbers above LARGEST bits.
    """
    import sympy
    from latex2sympy2_extended import latex2sympy

    if len(text) > LONGEST:
        raise UnreadableError("too long")
    if any(int(found[1]) > 5000 for found in _FACTORIAL_OF_BINOMIAL.finditer(text) if len(found[1]) < LONGEST):
        raise UnreadableError("too large")  # the parser works binomials out, for minutes
    text = _IMPLIED.sub(r"\\cdot (", text)  # the parser reads 2(3) as a mixed number
    try:
        tree = latex2sympy(text, is_real=None, convert_degrees=r"^{\circ" in text, normalization_config=None)
        _refuse(tree)
        floats = {value: sympy.Rational(str(value)) for value in tree.atoms(sympy.Float)}
        tree = tree.subs(floats) if floats else tree
        return tree.doit().subs(sympy.Symbol("i"), sympy.I)
    except (TimeoutError, UnreadableError):
        raise
    except Exception as error:  # noqa: BLE001 - named fault boundary, the grader: the parser and sympy raise anything
        raise UnreadableError(type(error).__name__) from None


def _refuse(tree: Any) -> None:
    """Raise UnreadableError for what is no expression, and where a part of it would be a number above LARGEST bits, or
    a sum of too many terms."""
    import sympy

    if not isinstance(tree, sympy.Expr):
        raise UnreadableError("not an expression")
    for node in sympy.preorder_traversal(tree):
        if node.is_Pow or isinstance(node, sympy.exp):
            power = _size(node.args[-1])
            if power > 1 and (node.args[-1].is_number and node.args[0].is_number):
                base = _size(node.args[0]) if node.is_Pow else math.e
                if power * max(1.0, math.log2(max(base, 2.0))) > LARGEST:
                    raise UnreadableError("too large")
        elif isinstance(node, sympy.factorial | sympy.gamma | sympy.binomial | sympy.factorial2):
            if node.args[0].is_number and _size(node.args[0]) > 5000:
                raise UnreadableError("too large")
        elif isinstance(node, sympy.Sum | sympy.Product):
            for _, *ends in node.limits:
                if all(end.is_number for end in ends) and any(_size(end) > 10_000 for end in ends if end.is_finite):
                    raise UnreadableError("too long a sum")


def _size(node: Any) -> float:  # noqa: PLR0911 - a table of nodes
    """About the absolute value of a constant, from its tree, without working it out; infinite above 1e300."""
    if node.is_Rational or node.is_Float:
        size = abs(node)
        return float(size) if size < 10**300 else math.inf
    sizes = [_size(part) for part in node.args]
    try:
        if node.is_Pow:
            return float(max(sizes[0], 1.0) ** sizes[1])
        if node.is_Mul:
            return math.prod(max(size, 1e-300) for size in sizes)
        if node.is_Add:
            return math.fsum(sizes)
        if node.func.__name__ == "factorial":
            return math.gamma(sizes[0] + 1)
    except (OverflowError, ValueError):
        return math.inf
    return max(sizes, default=3.2)


def same_expression(left: str, right: str) -> bool:
    """Whether two texts are one expression. Raises UnreadableError."""
    a, b = expression(left), expression(right)
    if a == b:
        return True
    if a.free_symbols != b.free_symbols and not (a.free_symbols and b.free_symbols):
        return False
    if (decided := same_values(a, b)) is not None:
        return decided
    from math_verify.grader import sympy_expr_eq

    try:
        return bool(sympy_expr_eq(a, b, 15))
    except TimeoutError:
        raise
    except Exception:  # noqa: BLE001 - named fault boundary, the grader: sympy raises anything
        return False


def same_values(a: Any, b: Any) -> bool | None:
    """Equal at every point where both are real numbers (or, nowhere real, complex ones)? None where neither has a
    value: an undefined function, a set."""
    import sympy

    names = sorted(a.free_symbols | b.free_symbols, key=str)
    if not names:
        return _same_constant(a, b)
    if len(names) > 12 or a.atoms(sympy.core.function.AppliedUndef) or b.atoms(sympy.core.function.AppliedUndef):
        return None
    compared = 0
    complex_pairs: list[tuple[Any, Any]] = []
    for point in range(10):
        at = {name: _coordinate(point, place) for place, name in enumerate(names)}
        values = [value_of(side, at) for side in (a, b)]
        if None in values:
            continue
        if any(abs(value.as_real_imag()[1]) > 1e-20 for value in values):
            complex_pairs.append((values[0], values[1]))
            continue
        if not _close(values[0], values[1]):
            return False
        compared += 1
        if compared == 5:
            return True
    if not compared and len(complex_pairs) >= 4:
        return all(_close(x, y) for x, y in complex_pairs)
    return True if compared >= 3 else None


def _coordinate(point: int, place: int) -> Any:
    """Points of no pattern, positive and negative, near 1: powers stay small."""
    import sympy

    numerator = (7919 * (point + 1) + 104729 * (place + 1) ** 2) % 1999 + 137
    sign = -1 if (point % 3 == 1 and place % 2 == 0) or (point % 3 == 2 and place % 2 == 1) else 1
    return sympy.Rational(sign * numerator, 853 + 2 * place)


def value_of(tree: Any, at: dict[Any, Any]) -> Any:
    """The value to DIGITS digits, or None where it has none."""
    try:
        value = tree.subs(at).evalf(DIGITS) if at else tree.evalf(DIGITS)
    except TimeoutError:
        raise
    except Exception:  # noqa: BLE001 - named fault boundary, the grader: sympy raises anything
        return None
    parts = value.as_real_imag() if value.is_number else ()
    return value if parts and all(part.is_Float or part.is_Rational for part in parts) else None


def _same_constant(a: Any, b: Any) -> bool | None:
    if a.is_infinite or b.is_infinite:
        return bool(a == b)
    values = value_of(a, {}), value_of(b, {})
    return None if None in values else _close(*values)


def _close(x: Any, y: Any) -> bool:
    gap, size = abs(x - y), max(abs(x), abs(y))
    if size == 0 or gap == 0:
        return True
    if x == 0 or y == 0:  # equal where evalf found no digit: what is left of a zero that sympy does not see through
        return all(part == 0 or getattr(part, "_prec", 53) <= 1 for part in (x if y == 0 else y).as_real_imag())
    return bool(gap < SAME * size)
