"""Stand-ins for parity tests: completions and rewards that are given instead of generated and judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from openrs.config.load import load
from openrs.config.schema import Recipe
from openrs.rewards.functions import RewardSet, RewardStats
from openrs.training.recompute import Recompute
from openrs.training.train import grpo_config
from openrs.training.trainer import Trainer

PARITY = Path(__file__).parent / "parity"
GROUP = 6
# What a CPU in float32 needs otherwise than the recipe on GPUs; none of it is part of the loss.
ON_CPU = [
    "grpo.bf16=false",
    "grpo.use_vllm=false",
    "grpo.gradient_checkpointing=false",
    "model.dtype=float32",
    "hardware.gpus=0",
    "hardware.layout=single",
    "hardware.zero_stage=0",
    "hardware.fused_kernels=false",
]


class Recorded:
    """The tensors recorded from TRL at commit 69ad852 (parity/README.md), as lists of rows."""

    def __init__(self) -> None:
        tensors = load_file(PARITY / "trl_69ad852.safetensors")
        self.loss: torch.Tensor = tensors["loss"]
        self.rewards: torch.Tensor = tensors["rewards"]
        self.gradient = {k.removeprefix("gradient/"): v for k, v in tensors.items() if k.startswith("gradient/")}
        self.prompt_ids = _rows(tensors["prompt_ids"], tensors["prompt_mask"])
        self.completion_ids = _rows(tensors["completion_ids"], tensors["completion_mask"])


def _rows(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [i[m.bool()].tolist() for i, m in zip(ids.flatten(0, 1), mask.flatten(0, 1), strict=True)]


class FixedTrainer(Trainer):
    """openrs's trainer, with completions that are given. Everything after generation is the real thing."""

    def give(self, completion_ids: Sequence[list[int]]) -> None:
        self._given = list(completion_ids)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        assert len(prompt_ids) == len(self._given)
        return self._given, None


def parity_recipe(*overrides: str) -> Recipe:
    """exp3 with two micro-batches of one group, as the recording has them, and the changes a CPU needs."""
    small = ["grpo.gradient_accumulation_steps=2", "grpo.max_completion_length=24"]
    return load("exp3", [*ON_CPU, *small, *overrides])


def fixed_trainer(
    recipe: Recipe,
    tmp_path: Path,
    prompts: Sequence[list[int]],
    rewards: Sequence[float],
    recompute: Recompute | None = None,
) -> FixedTrainer:
    """A trainer on the recorded policy and reference; `rewards[i]` belongs to row i of the one batch."""
    names = [f"p{i // GROUP}" for i in range(len(prompts))]
    table = dict(zip(names, prompts, strict=True))

    def given(prompts: list[str], **_: Any) -> list[float]:
        return list(rewards)[: len(prompts)]

    trainer = FixedTrainer(
        prompt_ids=table,
        folder=tmp_path / "checkpoints",
        rewards=RewardSet([given], [1.0], RewardStats()),
        model=str(PARITY / "policy"),
        args=grpo_config(recipe, tmp_path / "staging", [1.0], recompute=recompute),
        recompute=recompute,
        processing_class=words(),
        train_dataset=Dataset.from_dict({"prompt": list(table), "gold": ["1"] * len(table), "id": list(table)}),
    )
    if trainer.ref_model is not None:
        trainer.ref_model.load_state_dict(AutoModelForCausalLM.from_pretrained(PARITY / "reference").state_dict())
    return trainer


def words() -> PreTrainedTokenizerFast:
    """A tokenizer only for its special tokens: ids are given, nothing is tokenised."""
    vocabulary = {"<s>": 0, "<unk>": 1, "</s>": 2, "<pad>": 3} | {f"w{i}": i for i in range(4, 2048)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def losses_and_gradient(trainer: FixedTrainer, names: Sequence[str]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Loss of each micro-batch and the accumulated gradient of one optimizer step, without taking the step."""
    rows = [{"prompt": name, "gold": "1", "id": name} for name in names]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    per_call = len(rows) * trainer.args.steps_per_generation // trainer.args.gradient_accumulation_steps
    losses = []
    for step in range(trainer.args.gradient_accumulation_steps):
        call = step // trainer.args.steps_per_generation
        batch = trainer._prepare_inputs(rows[call * per_call : (call + 1) * per_call])
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
        trainer._step += 1
    return losses, gradient_of(trainer.model)


@dataclass(frozen=True, slots=True)
class ByHand:
    """Log-probabilities of one completion's tokens in float64, by the policy (with gradient) and the reference."""

    policy: torch.Tensor
    reference: torch.Tensor

    @property
    def kl(self) -> torch.Tensor:
        """k3 of each token: exp(q - p) - (q - p) - 1, with the policy's p and the reference's q."""
        return torch.exp(self.reference - self.policy) - (self.reference - self.policy) - 1


def by_hand(recorded: Recorded) -> tuple[torch.nn.Module, list[ByHand]]:
    """The policy in float64, and what it says of each recorded completion."""
    policy = AutoModelForCausalLM.from_pretrained(PARITY / "policy").double()
    reference = AutoModelForCausalLM.from_pretrained(PARITY / "reference").double().requires_grad_(False)

    def row(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> torch.Tensor:
        at = slice(len(prompt) - 1, len(prompt) + len(completion) - 1)
        logits = model(torch.tensor([prompt + completion])).logits[0, at]
        return logits.log_softmax(-1)[range(len(completion)), torch.tensor(completion)]

    rows = zip(recorded.prompt_ids, recorded.completion_ids, strict=True)
    return policy, [ByHand(row(policy, *texts), row(reference, *texts)) for texts in rows]


def gradient_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """||a - b|| / ||b|| over all parameters."""
    difference = sum(float(((a[k].double() - b[k].double()) ** 2).sum()) for k in b)
    norm = sum(float((b[k].double() ** 2).sum()) for k in b)
    return float((difference / norm) ** 0.5)
