"""Which checkpoints of a run are evaluated and which are kept: one rule for training, evaluation and the disk plan."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from openrs.config.checks import grpo_value
from openrs.config.schema import Recipe


class Kept(NamedTuple):
    """Steps whose checkpoints stay. Those that are not among the newest lose all but their weights where
    training.old_weights_only is set."""

    newest: list[int]
    older: list[int]


def saved(recipe: Recipe) -> list[int]:
    """Steps at which an uninterrupted run saves a checkpoint: every grpo.save_steps, and the last."""
    every, last = int(grpo_value(recipe, "save_steps")), recipe.last_step
    return [*range(every, last, every), last]


def evaluated(recipe: Recipe, steps: Sequence[int]) -> list[int]:
    """Of the steps with a complete checkpoint, in order, those that evaluation.checkpoints names: the last, or all.

    `all` are those that an uninterrupted run would have. A signal adds others, and what is evaluated must not depend on
    when somebody sent one.
    """
    if recipe.evaluation.checkpoints == "last":
        return list(steps[-1:])
    every = int(grpo_value(recipe, "save_steps"))
    return [step for step in steps if step % every == 0 or step == steps[-1]]


def kept(recipe: Recipe, steps: Sequence[int], scored: Collection[int] = ()) -> Kept:
    """Of the steps with a complete checkpoint, in order, those that stay.

    The newest training.keep_last stay whole. Of the older ones stay the multiples of training.keep_every, and what
    `openrs reproduce` has yet to evaluate; `scored` are the steps that have their scores.
    """
    settings = recipe.training
    newest, older = list(steps[-settings.keep_last :]), steps[: -settings.keep_last]
    waiting = set(evaluated(recipe, steps)) - set(scored) if recipe.evaluation.benchmarks else set()
    multiples = {step for step in older if settings.keep_every and step % settings.keep_every == 0}
    return Kept(newest, [step for step in older if step in waiting | multiples])
