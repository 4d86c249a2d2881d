"""Why bare TRL and openrs, with equal settings, sample the same at step 1 and not after it (docs/training.md)."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from fixed import ON_CPU, PARITY, words
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from openrs.config.load import load
from openrs.rewards.functions import RewardSet, RewardStats
from openrs.training.train import grpo_config
from openrs.training.trainer import Trainer

pytestmark = pytest.mark.slow
SMALL = [
    "grpo.max_steps=3", "grpo.per_device_train_batch_size=12", "grpo.gradient_accumulation_steps=1",
    "grpo.max_completion_length=6", "grpo.warmup_steps=0", "grpo.shuffle_dataset=true",
]  # fmt: skip
PROMPTS = {f"p{i}": [5 + i, 6 + i, 7 + i] for i in range(8)}


class Bare(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer as it is, but for the prompts' ids."""

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [PROMPTS[prompt] for prompt in prompts], None, {}


def sampled(kind: type[GRPOTrainer], folder: Path) -> tuple[list[list[list[int]]], list[float]]:
    """Each step's completions and loss."""
    steps: list[list[list[int]]] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        steps.append(completion_ids)
        return [float(sum(ids) % 7) for ids in completion_ids]

    args = grpo_config(load("exp3", [*ON_CPU, *SMALL]), folder / "staging", [1.0])
    args.save_strategy = "no"
    names = list(PROMPTS)
    own: dict[str, Any] = {"reward_funcs": [reward]}
    if kind is Trainer:
        rewards = RewardSet([reward], [1.0], RewardStats())
        own = {"prompt_ids": PROMPTS, "folder": folder / "checkpoints", "rewards": rewards}
    trainer = kind(
        model=str(PARITY / "policy"),
        args=args,
        processing_class=words(),
        train_dataset=Dataset.from_dict({"prompt": names, "gold": ["1"] * len(names), "id": names}),
        **own,
    )
    trainer.train()
    return steps, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_only_trls_shuffle_parts_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws from the generator that the next step samples with, and openrs leaves it out."""
    ours, losses = sampled(Trainer, tmp_path / "ours")
    bare, bare_losses = sampled(Bare, tmp_path / "bare")
    assert bare[0] == ours[0]
    assert bare_losses[0] == pytest.approx(losses[0], abs=1e-7)
    assert [step == own for step, own in zip(bare[1:], ours[1:], strict=True)] == [False, False]
    monkeypatch.setattr(grpo_trainer, "shuffle_sequence_dict", lambda batch: batch)
    unshuffled, its_losses = sampled(Bare, tmp_path / "unshuffled")
    assert unshuffled == ours
    assert its_losses == pytest.approx(losses, abs=1e-6)
