"""Loss and gradient of exp3's settings equal the paper's trainer (TRL at 69ad852); what would change them is seen."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fixed import (
    GROUP,
    Recorded,
    by_hand,
    fixed_trainer,
    gradient_of,
    losses_and_gradient,
    parity_recipe,
    relative,
)

from openrs.rewards.functions import RewardSet, RewardStats
from openrs.rewards.grading import Grade, Item, Judge, Rule, Verdict

pytestmark = pytest.mark.slow

BETA = 0.04


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


def ours(recorded: Recorded, tmp_path: Path, *overrides: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    recipe = parity_recipe(*overrides)
    trainer = fixed_trainer(recipe, tmp_path, recorded.prompt_ids, recorded.rewards.flatten().tolist())
    trainer.give(recorded.completion_ids)
    return losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)])


def test_loss_and_gradient_equal_the_recorded_trainer(recorded: Recorded, tmp_path: Path) -> None:
    losses, gradient = ours(recorded, tmp_path)
    assert losses == pytest.approx(recorded.loss.tolist(), rel=1e-6)
    assert set(gradient) == set(recorded.gradient)
    assert relative(gradient, recorded.gradient) < 1e-6


def formula(recorded: Recorded) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The trainer's formula in float64 (paper.md, section 1): k3 KL, ratio 1, mean over a micro-batch's tokens, / 2."""
    policy, found = by_hand(recorded)
    losses = []
    for micro, rewards in enumerate(recorded.rewards.double()):
        advantages = (rewards - rewards.mean()) / (rewards.std(unbiased=True) + 1e-4)
        rows = found[micro * GROUP : (micro + 1) * GROUP]
        each = [
            -torch.exp(row.policy - row.policy.detach()) * advantage + BETA * row.kl
            for row, advantage in zip(rows, advantages, strict=True)
        ]
        loss = torch.cat(each).mean() / 2
        loss.backward()
        losses.append(loss.item())
    return losses, gradient_of(policy)


def test_loss_and_gradient_equal_the_formula_in_float64(recorded: Recorded, tmp_path: Path) -> None:
    losses, gradient = ours(recorded, tmp_path)
    exact_losses, exact = formula(recorded)
    assert losses == pytest.approx(exact_losses, rel=1e-6)
    assert relative(gradient, exact) < 1e-6


def test_kl(recorded: Recorded, tmp_path: Path) -> None:
    """What metrics.jsonl calls kl and kl/max: mean and largest k3 of the tokens of a micro-batch."""
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids, recorded.rewards.flatten().tolist())
    trainer.give(recorded.completion_ids)
    losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)])
    kl = [row.kl.detach() for row in by_hand(recorded)[1]]
    expected = [torch.cat(kl[:GROUP]).mean().item(), torch.cat(kl[GROUP:]).mean().item()]
    assert min(expected) > 1e-3
    assert trainer._metrics["train"]["kl"] == pytest.approx(expected, rel=1e-5)
    largest = trainer._measures.drain(trainer.accelerator)["kl/max"]
    assert largest == pytest.approx(torch.cat(kl).max().item(), rel=1e-5)


# An option as it would creep in, and how far the gradient then is from the recorded one.
CREEPERS = [
    (["grpo.temperature=0.7"], 0.43, 0.02),
    (["grpo.loss_type=dapo"], 0.10, 0.02),
    (["grpo.use_bias_correction_kl=true"], 0.014, 0.003),
    (["grpo.loss_type=grpo"], 1.02, 0.1),
    (["grpo.beta=0.0"], 0.04, 0.04),
    (["grpo.scale_rewards=none"], 0.5, 0.5),
]


@pytest.mark.parametrize(("changes", "distance", "tolerance"), CREEPERS, ids=str)
def test_what_must_not_creep_in_is_seen(
    recorded: Recorded, tmp_path: Path, changes: list[str], distance: float, tolerance: float
) -> None:
    _, gradient = ours(recorded, tmp_path, *changes)
    found = relative(gradient, recorded.gradient)
    print(f"{changes}: {found:.4f}")
    assert found > 1e-3
    assert found == pytest.approx(distance, abs=tolerance)


def test_advantages(recorded: Recorded, tmp_path: Path) -> None:
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids, recorded.rewards.flatten().tolist())
    trainer.give(recorded.completion_ids)
    trainer.model.train()
    names = [f"p{i // GROUP}" for i in range(2 * GROUP)]
    trainer._prepare_inputs([{"prompt": name, "gold": "1", "id": name} for name in names])
    for part, rewards in zip(trainer._buffered_inputs, recorded.rewards.double(), strict=True):
        expected = (rewards - rewards.mean()) / (rewards.std(unbiased=True) + 1e-4)
        assert part["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_verdicts_are_recorded_with_the_completions(recorded: Recorded, tmp_path: Path) -> None:
    """The judge is asked once for the whole generation batch, and the reward functions are handed its verdicts."""
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids, recorded.rewards.flatten().tolist())
    handed: list[list[object]] = []

    class UnparseableJudge(Judge):
        def grade(self, items: Sequence[Item]) -> list[Grade]:
            return [Grade(Verdict.UNPARSEABLE_GOLD, "", "", 0.0) for _ in items]

    def paid(completions: list[str], verdicts: list[object], **_: object) -> list[float]:
        handed.append(verdicts)
        return [1.0] * len(completions)

    rules = (Rule.PAPER, Rule.PAPER_COSINE)
    trainer._rewards = RewardSet([paid], [1.0], RewardStats(), rules, UnparseableJudge(1))
    trainer.reward_funcs = [paid]
    trainer.give(recorded.completion_ids)
    trainer.model.train()
    names = [f"p{i // GROUP}" for i in range(2 * GROUP)]
    trainer._prepare_inputs([{"prompt": name, "gold": "1", "id": name} for name in names])
    assert handed == [[dict.fromkeys(rules, Verdict.UNPARSEABLE_GOLD)] * 12]
    assert trainer.completions()["verdict"] == ["unparseable_gold"] * 12
    assert trainer._rewards.stats.unparseable_golds == 12


def test_learning_rate_at_every_step(recorded: Recorded, tmp_path: Path) -> None:
    """transformers 4.49's cosine_with_min_lr: linear to 1e-6 in 50 steps, then half a cosine to a tenth at step 500."""
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids, [0.0] * 12)
    trainer.create_optimizer_and_scheduler(500)
    rates = []
    for _ in range(500):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    for step, rate in enumerate(rates):
        progress = (step - 50) / 450
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        expected = 1e-6 * (step / 50 if step < 50 else cosine * 0.9 + 0.1)
        assert rate == pytest.approx(expected, rel=1e-9), step
    optimizer = trainer.optimizer.param_groups[0]
    assert (optimizer["betas"], optimizer["eps"], optimizer["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)
