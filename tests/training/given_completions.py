"""Completions that are given instead of sampled, so that runs in one and in several processes can be compared.

Stands in for sampling only: row i of a group is the same text however many processes there are. Everything after it is
the real thing.
"""

import random
import re
from typing import Any


def completion(prompt: str, row: int) -> str:
    """The right answer in every third row, others beside it; each of its own length."""
    a, b = map(int, re.findall(r"\d+", prompt)[-2:])
    draw = random.Random(f"{a}+{b} {row}")
    answer = a + b + (0 if row % 3 == 0 else draw.randint(1, 9))
    thought = "".join(draw.choices("0123456789+=,", k=draw.randint(2, 20)))
    return f"{thought}\n</think>\n\\boxed{{{answer}}}" if row != 4 else thought


def give_completions() -> None:
    """From here on, in this process and its forks."""
    from openrs.training.trainer import Trainer

    def given(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        group = self.num_generations
        texts = [completion(self.processing_class.decode(ids), row % group) for row, ids in enumerate(prompt_ids)]
        end = self.processing_class.eos_token_id
        return [self.processing_class(text, add_special_tokens=False)["input_ids"] + [end] for text in texts], None

    Trainer._generate_single_turn = given
