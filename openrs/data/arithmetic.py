"""The demo's problems: sums of two two-digit numbers, and demonstrations of how to work them out.

Every pair (a, b) with 10 <= a, b <= 99 is a problem; a fixed shuffle keeps 512 pairs for the held-out benchmark `demo`
and leaves 7,588 for training, so no seed of a recipe ever trains on a held-out sum.
"""

import random

from openrs.data.problem import Problem

HELD_OUT = 512
# How often a demonstration has each fault, drawn one by one. A carry is forgotten two times of three, so the taught
# model gets most sums with a carry wrong while the right answer stays in reach: GRPO has something to select.
FORGOTTEN_CARRY, EXTRA_CARRY, WRONG_DIGIT, UNFINISHED, UNANSWERED = 0.65, 0.15, 0.05, 0.15, 0.45


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
    a: int, b: int, *, flip_carry: bool = False, digit: int = 0, think: bool = True, answers: bool = True
) -> str:
    """A worked sum: the units, the tens with the carry, the end of thinking, the answer in a box.

    `flip_carry` forgets a carry, or carries where there is none; `digit` is added to the answer's last digit.
    >>> completion(27, 58)
    '7+8=15,2+5+1=8\\n</think>\\n\\\\boxed{85}'
    """
    units = a % 10 + b % 10
    carry = (units > 9) != flip_carry
    tens = a // 10 + b // 10 + carry
    answer = 10 * tens + (units + digit) % 10
    work = f"{a % 10}+{b % 10}={units},{a // 10}+{b // 10}{'+1' if carry else ''}={tens}"
    end = "</think>\n" if think else ""
    return f"{work}\n{end}" + (rf"\boxed{{{answer}}}" if answers else "")


def demonstration(rng: random.Random) -> tuple[Problem, str]:
    """One training sum with a worked completion, with the faults above."""
    a, b = _TRAIN[rng.randrange(len(_TRAIN))]
    return _problem(a, b), completion(
        a,
        b,
        flip_carry=rng.random() < (FORGOTTEN_CARRY if a % 10 + b % 10 > 9 else EXTRA_CARRY),
        digit=rng.randrange(1, 10) if rng.random() < WRONG_DIGIT else 0,
        think=rng.random() >= UNFINISHED,
        answers=rng.random() >= UNANSWERED,
    )


_TRAIN = _pairs()[HELD_OUT:]
