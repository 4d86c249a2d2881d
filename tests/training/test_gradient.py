"""One generation call a step gives the gradient of several small ones; three processes x four equal four x three."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fixed import GROUP, FixedTrainer, Recorded, fixed_trainer, losses_and_gradient, parity_recipe, relative
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from openrs.errors import RunFailure

pytestmark = pytest.mark.slow

Step = tuple[list[list[int]], list[list[int]], list[float]]

GROUPS = 12  # problems in one step of the paper


@pytest.fixture(scope="module")
def step() -> Step:
    """72 completions of 12 problems: cuts of the two recorded groups, so that every group has other lengths."""
    recorded = Recorded()
    prompts, completions, rewards = [], [], []
    for group in range(GROUPS):
        for row in range(GROUP):
            source = (group % 2) * GROUP + (row + group) % GROUP
            prompts.append(recorded.prompt_ids[(group % 2) * GROUP][group % 3 :])
            completions.append(recorded.completion_ids[source][: 24 - group])
            rewards.append(float(recorded.rewards.flatten()[(source * 7 + group) % 12]))
    return prompts, completions, rewards


class InCalls(FixedTrainer):
    """Gives each generation call its own part of the step's completions and rewards."""

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: object, **__: object
    ) -> tuple[list[list[int]], None]:
        part, self._given = self._given[: len(prompt_ids)], self._given[len(prompt_ids) :]
        return part, None


def gradient_of(
    tmp_path: Path,
    step: Step,
    accumulation: int,
    per_generation: int,
    groups: Sequence[int],
) -> dict[str, torch.Tensor]:
    """Gradient of one process that gets `groups` of the step, in this order."""
    prompts, completions, rewards = step
    rows = [group * GROUP + row for group in groups for row in range(GROUP)]
    calls = [f"grpo.gradient_accumulation_steps={accumulation}", f"grpo.steps_per_generation={per_generation}"]
    left = [rewards[row] for row in rows]

    trainer = fixed_trainer(parity_recipe(*calls), tmp_path, [prompts[row] for row in rows], left)
    trainer.__class__ = InCalls

    def given(prompts: list[str], **_: object) -> list[float]:
        part = left[: len(prompts)]
        del left[: len(prompts)]
        return part

    trainer.reward_funcs = [given]
    trainer.give([completions[row] for row in rows])
    return losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(len(rows))])[1]


def test_a_step_has_one_finite_check_and_no_micro_batch_its_own(tmp_path: Path) -> None:
    recorded = Recorded()
    names = [f"p{i // 6}" for i in range(12)]
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids[:12], recorded.rewards.flatten().tolist())
    trainer.give(recorded.completion_ids[:12])
    reduced: list[int] = []
    reduce = trainer.accelerator.reduce

    def counted(value: torch.Tensor, **settings: Any) -> Any:
        if value.dtype == torch.float64:  # TRL's own metrics are float32
            reduced.append(value.numel())
        return reduce(value, **settings)

    trainer.accelerator.reduce = counted
    losses_and_gradient(trainer, names)
    assert reduced == []
    trainer._get_grad_norm(trainer.model, torch.tensor(1.0))
    assert reduced == [3]  # two micro-batches' losses and the norm
    trainer._losses.append((torch.tensor(float("inf")), {"ids": torch.ones(1)}))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunFailure, match="step 1: the loss is inf"):
        trainer._get_grad_norm(trainer.model, torch.tensor(1.0))


def test_one_call_equals_a_call_a_micro_batch(tmp_path: Path, step: Step) -> None:
    groups = range(4)
    one = gradient_of(tmp_path / "one", step, 4, 4, groups)
    four = gradient_of(tmp_path / "four", step, 4, 1, groups)
    assert relative(one, four) < 1e-6


def test_shuffling_would_change_it(tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL 1.16 shuffles completions across micro-batches: groups mix, and with them bnpo's denominators."""
    ours = gradient_of(tmp_path / "ours", step, 4, 4, range(4))
    monkeypatch.setattr(FixedTrainer, "_prepare_inputs", GRPOTrainer._prepare_inputs)
    trls = gradient_of(tmp_path / "trls", step, 4, 4, range(4))
    assert relative(trls, ours) > 1e-3


def test_three_by_four_equals_four_by_three(tmp_path: Path, step: Step) -> None:
    """Mean over processes of each one's gradient, as DDP and ZeRO take it: the sampler hands out groups in blocks."""

    def mean(processes: int) -> dict[str, torch.Tensor]:
        each = GROUPS // processes
        parts = [
            gradient_of(tmp_path / f"{processes}-{rank}", step, each, each, range(rank * each, (rank + 1) * each))
            for rank in range(processes)
        ]
        return {name: sum(part[name] for part in parts) / processes for name in parts[0]}

    three, four = mean(3), mean(4)
    assert relative(three, four) < 1e-6


@pytest.mark.parametrize(("batch", "repeats"), [(3, 1), (12, 3), (12, 4)], ids=["a call of 18", "4 x 3", "3 x 4"])
def test_prompt_order_is_the_old_one(batch: int, repeats: int) -> None:
    """TRL 69ad852's RepeatRandomSampler drew torch.randperm(N) with the seed and walked through it.

    TRL 1.16 hands out `batch` problems a generation call, `repeats` times each; the first 500 steps (N = 7000, seed 42)
    see the same 12 problems each.
    """
    generator = torch.Generator()
    generator.manual_seed(42)
    order = torch.randperm(7000, generator=generator).tolist()
    sampler = RepeatSampler(range(7000), GROUP, batch, repeats, shuffle=True, seed=42)
    seen = list(dict.fromkeys(islice(sampler, 500 * GROUPS * GROUP * repeats)))
    assert seen == order[: 500 * GROUPS]
