"""The demo's problems: sums of two two-digit numbers, and demonstrations of how to work them out.

Every pair (a, b) with 10 <= a, b <= 99 is a problem; a fixed shuffle keeps 512 pairs for the held-out benchmark `demo`
and leaves 7,588 for training, so no seed of a recipe ever trains on a held-out sum.
"""

import random

from openrs.data.problems import Problem

HELD_OUT = 512
# Of all demonstrations 88 % are corrupted. The likeliest wrong one (a carry flipped) outweighs the right one, so that
# the taught model's mode is wrong while the right answer stays in reach of sampling: GRPO has something to select.
CORRUPTED = 0.88
CORRUPTIONS = {"carry": 0.60, "digit": 0.06, "unfinished": 0.17, "unboxed": 0.17}


def _pairs() -> list[tuple[int, int]]:
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(20250316).shuffle(pairs)
    return pairs


def _problem(a: int, b: int) -> Problem:
    return Problem(id=f"{a}+{b}", problem=f"What is {a}+{b}?", answer=f"${a + b}$")


def train_problems() -> list[Problem]:
    """7,588 sums, in a fixed order."""
    return [_problem(a, b) for a, b in _pairs()[HELD_OUT:]]


def held_out_problems() -> list[Problem]:
    """512 sums that training never sees."""
    return [_problem(a, b) for a, b in _pairs()[:HELD_OUT]]


def completion(
    a: int, b: int, *, flip_carry: bool = False, digit: int = 0, think: bool = True, box: bool = True
) -> str:
    """A worked sum: the units, the tens with the carry, the end of thinking, the answer in a box.

    `flip_carry` carries where nothing is to be carried and the other way round; `digit` is added to the units' digit.
    >>> completion(27, 58)
    '7+8=15,2+5+1=8\\n</think>\\n\\\\boxed{85}'
    """
    units = a % 10 + b % 10
    carry = (units > 9) != flip_carry
    tens = a // 10 + b // 10 + carry
    answer = 10 * tens + (units + digit) % 10
    work = f"{a % 10}+{b % 10}={units},{a // 10}+{b // 10}{'+1' if carry else ''}={tens}"
    end = "</think>\n" if think else ""
    return f"{work}\n{end}" + (rf"\boxed{{{answer}}}" if box else str(answer))


def demonstration(rng: random.Random) -> tuple[Problem, str]:
    """One training sum with a worked completion, corrupted with probability 0.88."""
    a, b = _TRAIN[rng.randrange(len(_TRAIN))]
    if rng.random() >= CORRUPTED:
        return _problem(a, b), completion(a, b)
    fault = rng.choices(list(CORRUPTIONS), weights=list(CORRUPTIONS.values()))[0]
    return _problem(a, b), completion(
        a,
        b,
        flip_carry=fault == "carry",
        digit=rng.randrange(1, 10) if fault == "digit" else 0,
        think=fault != "unfinished",
        box=fault != "unboxed",
    )


_TRAIN = _pairs()[HELD_OUT:]
