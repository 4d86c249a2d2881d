"""exp3-plus goes another way through rewards and loss than the paper's recipes: that way on the CPU, by hand and whole.

By hand: its loss and gradient in float64, on the recorded completions, half of which are cut off. Whole: three steps
of a model that answers some sums, misses others and runs into the cap.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fixed import GROUP, ON_CPU, Recorded, by_hand, fixed_trainer, gradient_of, losses_and_gradient, relative

from openrs.config.load import load
from openrs.config.schema import Recipe, ToyModel
from openrs.rewards.functions import Cosine
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import launch
from openrs.training.trainer import Trainer

pytestmark = pytest.mark.slow

# --- by hand ----------------------------------------------------------------------------------------------------------

END = 2  # the recorded completions' token for the end
SMALL = [
    "grpo.num_generations=6", "grpo.per_device_train_batch_size=6", "grpo.gradient_accumulation_steps=2",
    "grpo.max_completion_length=24", "grpo.vllm_importance_sampling_correction=false",
]  # fmt: skip


def plus(*overrides: str) -> Recipe:
    """exp3-plus with two micro-batches of one group, as the recording has them, and the changes a CPU needs."""
    return load("exp3-plus", [*ON_CPU, *SMALL, *overrides])


def of_trainer(tmp_path: Path, recorded: Recorded, *overrides: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    trainer = fixed_trainer(plus(*overrides), tmp_path, recorded.prompt_ids, recorded.rewards.flatten().tolist())
    trainer.give(recorded.completion_ids)
    return losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)])


def formula(recorded: Recorded) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Float64. Advantage: reward less the group's mean. What is cut off counts for the mean, and is not learned from.
    The KL's gradient is unbiased: k3 times the ratio. Sum over a micro-batch, divided by the step's tokens.
    """
    policy, found = by_hand(recorded)
    whole = [row for row, ids in enumerate(recorded.completion_ids) if ids[-1] == END]
    tokens = sum(len(recorded.completion_ids[row]) for row in whole)
    rewards = recorded.rewards.double()
    advantages = (rewards - rewards.mean(dim=1, keepdim=True)).flatten()
    losses = []
    for micro in range(2):
        loss = torch.zeros((), dtype=torch.float64)
        for row in whole:
            if row // GROUP == micro:
                ratio = torch.exp(found[row].policy - found[row].policy.detach())
                loss = loss + (-ratio * advantages[row] + 0.04 * found[row].kl * ratio).sum() / tokens
        loss.backward()
        losses.append(loss.item())
    return losses, gradient_of(policy)


def test_loss_and_gradient_equal_the_formula(tmp_path: Path) -> None:
    recorded = Recorded()
    cut = [ids[-1] != END for ids in recorded.completion_ids]
    assert cut[:GROUP].count(True) == 2
    assert cut[GROUP:].count(True) == 4
    losses, gradient = of_trainer(tmp_path, recorded)
    exact_losses, exact = formula(recorded)
    assert losses == pytest.approx(exact_losses, rel=1e-6)
    assert relative(gradient, exact) < 1e-6


@pytest.mark.parametrize(
    "change",
    [
        "grpo.mask_truncated_completions=false", "grpo.use_bias_correction_kl=false", "grpo.scale_rewards=group",
        "grpo.loss_type=bnpo", "grpo.temperature=0.7", "grpo.beta=0.0",
    ],
)  # fmt: skip
def test_each_remedy_is_in_the_gradient(change: str, tmp_path: Path) -> None:
    recorded = Recorded()
    _, with_it = of_trainer(tmp_path / "with", recorded)
    _, without = of_trainer(tmp_path / "without", recorded, change)
    assert relative(without, with_it) > 1e-3


def test_groups_without_spread_and_steps_of_nothing_but_cut_completions_teach_nothing(tmp_path: Path) -> None:
    """No reward, and no NaN: without the KL the gradient is 0."""
    recorded = Recorded()
    recorded.rewards = torch.full_like(recorded.rewards, -0.5)
    _, flat = of_trainer(tmp_path / "flat", recorded, "grpo.beta=0.0")
    assert all(not gradient.any() for gradient in flat.values())
    recorded = Recorded()
    recorded.completion_ids = [[token for token in ids if token != END] for ids in recorded.completion_ids]
    losses, cut = of_trainer(tmp_path / "cut", recorded)
    assert losses == [0.0, 0.0]
    assert all(not gradient.any() for gradient in cut.values())


# --- whole ------------------------------------------------------------------------------------------------------------

CAP, CACHE = 22, 8
TAUGHT = ToyModel(steps=160)  # right in one of nine, and a little longer than the cap in one of ten
TINY = [
    "model.revision=null", "model.context=4096", "prompt.system=null", "data={source: toy-sums, limit: 12}",
    "rewards.workers=1", "rewards.timeout_seconds=60", f"grpo.max_completion_length={CAP}", "grpo.learning_rate=1e-3",
    "grpo.warmup_steps=0", "grpo.gradient_accumulation_steps=6", "grpo.max_steps=3", "training.trackers=[]",
    "evaluation.max_tokens=40",
]  # fmt: skip


def tiny(model: Path) -> Recipe:
    """exp3-plus with its own batch and rewards, the lengths scaled to sums."""
    lengths = {"cosine": {"max_len": CAP}, "overlong": {"max_len": CAP, "cache": CACHE}}
    functions = [
        {"name": reward.name, "weight": reward.weight, "args": {**reward.args, **lengths.get(reward.name, {})}}
        for reward in load("exp3-plus").rewards.functions
    ]
    return load("exp3-plus", [*ON_CPU, *TINY, f"model.name={model}", f"rewards.functions={json.dumps(functions)}"])


@dataclass
class Seen:
    """One step in the trainer: each completion's tokens, text, gold and rewards; and the micro-batches."""

    ids: list[list[int]]
    texts: list[str]
    golds: list[str]
    rewards: torch.Tensor
    parts: list[dict[str, Any]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Fills while a trainer of this process trains."""
    steps: list[Seen] = []
    judge, prepare = Trainer._calculate_rewards, Trainer._prepare_inputs

    def judging(self: Trainer, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        rewards = judge(self, inputs, prompts, completions, ids)
        steps.append(Seen(ids, completions, [row["gold"] for row in inputs], rewards, []))
        return rewards

    def preparing(self: Trainer, batch: Any) -> Any:
        part = prepare(self, batch)
        steps[-1].parts.append(part)
        return part

    monkeypatch.setattr(Trainer, "_calculate_rewards", judging)
    monkeypatch.setattr(Trainer, "_prepare_inputs", preparing)
    return steps


def test_three_steps(tmp_path: Path, seen: list[Seen], toy_model: Callable[[ToyModel], Path]) -> None:
    model = toy_model(TAUGHT)
    recipe, run = tiny(model), Run(tmp_path / "run")
    with attempt(recipe, run) as progress:
        launch.train(recipe, run, progress)

    rows = list(read_jsonl(run.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["kl"] > 0
    assert (run.checkpoints / "step-000003" / "checkpoint.json").is_file()

    curve = Cosine(CAP, min_value_wrong=-0.5, max_value_wrong=0.0)
    weights = torch.tensor([reward.weight for reward in recipe.rewards.functions])
    kinds, flat = set(), []
    for row, step in zip(rows, seen, strict=True):
        lengths = [len(ids) for ids in step.ids]
        # The template begins a thought: only what comes after its end is an answer.
        answers = [text.partition("</think>")[2] for text in step.texts]
        right = [f"\\boxed{{{gold.strip('$')}}}" in text for gold, text in zip(step.golds, answers, strict=True)]
        cosine = [curve.value(*facts) for facts in zip(right, lengths, strict=True)]
        overlong = [min(0.0, max(-1.0, (CAP - CACHE - length) / CACHE)) for length in lengths]
        assert step.rewards[:, 1].tolist() == pytest.approx(cosine, abs=1e-6)
        assert step.rewards[:, 2].tolist() == pytest.approx(overlong, abs=1e-6)
        sums = (step.rewards * weights).sum(dim=1).reshape(-1, 8)
        advantages = torch.cat([part["advantages"] for part in step.parts])
        assert torch.allclose(advantages, (sums - sums.mean(dim=1, keepdim=True)).flatten(), atol=1e-6)
        learned = [bool(mask.any()) for part in step.parts for mask in part["completion_mask"]]
        assert row["completions/clipped_ratio"] == pytest.approx(learned.count(False) / len(learned))
        flat.append(float((sums.std(dim=1) < 1e-6).float().mean()))
        assert row["frac_reward_zero_std"] == pytest.approx(flat[-1])
        kinds |= set(zip(right, learned, strict=True))
    assert {(True, True), (False, True), (False, False)} <= kinds
