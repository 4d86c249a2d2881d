"""Selective recomputation: the same gradient to the last bit, from fewer operations, through TRL's own switching."""

from pathlib import Path

import pytest
import torch
from fixed import GROUP, PARITY, Recorded, fixed_trainer, losses_and_gradient, parity_recipe
from torch.utils.flop_counter import FlopCounterMode

from openrs.config.load import diff, load
from openrs.planner.gpus import find
from openrs.planner.memory import kept_layers, layers_within
from openrs.planner.shapes import read_config
from openrs.planner.workload import workload_of
from openrs.training.recompute import Recompute

pytestmark = pytest.mark.slow

SHAPE = read_config(PARITY / "policy" / "config.json")
LAYERS = SHAPE.layers


def step(
    tmp_path: Path, choice: int | str | None, dtype: str, lengths: str
) -> tuple[list[float], dict[str, torch.Tensor], int]:
    """Losses, gradient and FLOPs of a step of two micro-batches, rows packed (uneven lengths) or not."""
    recorded = Recorded()
    recipe = parity_recipe("grpo.gradient_checkpointing=true", f"model.dtype={dtype}")
    recompute = None if choice is None else Recompute(choice, SHAPE, 4)
    prompts = [
        prompt[: len(prompt) - (i % 3 if lengths == "uneven" else 0)] for i, prompt in enumerate(recorded.prompt_ids)
    ]
    trainer = fixed_trainer(recipe, tmp_path, prompts, recorded.rewards.flatten().tolist(), recompute)
    trainer.give([ids[: 24 if lengths == "even" else 4 + 3 * (i % 6)] for i, ids in enumerate(recorded.completion_ids)])
    trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)  # as Trainer.train does
    with FlopCounterMode(display=False) as flops:
        losses, gradient = losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)])
    return losses, gradient, flops.get_total_flops()


@pytest.mark.parametrize("lengths", ["even", "uneven"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_is_equal_to_the_last_bit(
    tmp_path: Path, dtype: str, lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrs.training.logprobs.CALL", 0)  # rows this short would not be packed
    losses, gradient, most = step(tmp_path, None, dtype, lengths)
    counted = [most]
    for choice in (LAYERS, 1, "none", "auto"):  # auto without a GPU: what is free is unknown, so all of them
        again, same, flops = step(tmp_path, choice, dtype, lengths)
        assert again == losses, choice
        assert all(torch.equal(gradient[name], same[name]) for name in gradient), choice
        counted.append(flops)
    every, all_again, some, none, auto = counted
    assert every == all_again == auto > some > none


def test_the_plan_counts_what_is_kept() -> None:
    """The figures of the study at the true size: 46,128 bytes a token and layer, 28.7 GiB of room on an A40."""
    exp3 = workload_of(load("exp3", ["hardware.recompute=auto"]), find("A40"))
    assert exp3.shape.kept_per_layer(2) == 46_128
    assert layers_within(28.7 * 2**30, 6 * 4096, exp3.shape, 2) == pytest.approx(19, abs=1)
    assert layers_within(28.7 * 2**30, 17_880, exp3.shape, 2) == 28
    assert layers_within(1 * 2**30, 6 * 4096, exp3.shape, 2) == 0
    for choice, kept in (("all", 0), ("none", 28), ("20", 8), ("30", 0)):
        recipe = load("exp3", [f"hardware.recompute={choice}"])
        assert kept_layers(workload_of(recipe, find("A40")), 6 * 4096) == kept


def test_exp3_fast_is_exp3_computed_faster() -> None:
    keys = [key for key, *_ in diff(load("exp3"), load("exp3-fast"))]
    assert keys == ["title", "hardware.zero_stage", "hardware.recompute", "hardware.deal_by_length"]
    assert ("hardware.recompute", "all", "auto") in diff(load("exp3"), load("exp3-fast"))
