"""Log-probabilities without padding: TRL's numbers and gradients, fewer tokens, and attention that stays in its row."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fixed import ON_CPU, Recorded, fixed_trainer, losses_and_gradient, relative
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from openrs.config.load import load
from openrs.training.logprobs import CALL, allow_packing, lay_out, log_probabilities

pytestmark = pytest.mark.slow

PAD = 0


def padded(prompts: list[int], completions: list[int]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Random rows of these lengths as TRL pads them: ids and mask (B, P + C), and C."""
    generator = torch.Generator().manual_seed(0)
    p, c = max(prompts), max(completions)
    ids, mask = torch.full((len(prompts), p + c), PAD), torch.zeros(len(prompts), p + c, dtype=torch.long)
    for row, (before, after) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, p - before : p + after] = torch.randint(1, 61, (before + after,), generator=generator)
        mask[row, p - before : p + after] = 1
    return ids, mask, c


def model() -> Any:
    torch.manual_seed(0)
    made = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3,
        )
    )  # fmt: skip
    add_fused_lm_head(made, outputs=("log_probs", "entropy"))
    return made


class Seen:
    """How many tokens a model's layers were given."""

    def __init__(self, of: Any) -> None:
        self.tokens: list[int] = []
        of.model.layers[0].register_forward_pre_hook(lambda _, inputs: self.tokens.append(inputs[0][..., 0].numel()))


SHORT = ([5, 3, 7, 7], [9, 20, 1, 14])  # little padding in all: stays rows
LONG = ([30, 5, 12, 30], [400, 20, 150, 399])  # much: packed
ONE_EMPTY = ([30, 5, 12, 30], [400, 20, 0, 399])  # mask_truncated_completions leaves rows without a completion


@pytest.mark.parametrize(
    ("lengths", "tokens"), [(SHORT, 4 * 23), (LONG, 1046), (ONE_EMPTY, 896)], ids=["rows", "packed", "one empty"]
)
def test_numbers_and_gradient_are_trls(lengths: tuple[list[int], list[int]], tokens: int) -> None:
    ids, mask, completion = padded(*lengths)
    weight = torch.rand(len(ids), completion, generator=torch.Generator().manual_seed(1))
    results = []
    for ours in (False, True):
        made = model()
        if ours:
            assert allow_packing(made)
            seen = Seen(made)
            logps, entropies = log_probabilities(made, ids, mask, completion, packing=True, entropy=True)
            assert seen.tokens == [tokens]
            assert entropies is not None
        else:  # GRPOTrainer._get_per_token_logps_and_entropies
            labels = ids.masked_fill(mask == 0, -100)
            labels[:, :-completion] = -100
            found = made(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
            logps, entropies = found.log_probs[:, -completion:], found.entropy[:, -completion:]
        ((logps + 0.1 * entropies) * weight * mask[:, -completion:]).sum().backward()
        results.append((logps, entropies, {name: p.grad for name, p in made.named_parameters()}))
    (trls, their_entropies, their_gradient), (logps, entropies, gradient) = results
    assert torch.allclose(logps, trls, rtol=0, atol=2e-5)
    assert torch.allclose(entropies, their_entropies, rtol=0, atol=2e-5)
    assert torch.equal(logps == 0, mask[:, -completion:] == 0)
    assert relative(gradient, their_gradient) < 2e-6


def test_a_packed_row_sees_no_other() -> None:
    """Exactly: a row's numbers do not change when another row's tokens do."""
    ids, mask, completion = padded(*LONG)
    other = ids.clone()
    other[0, 30:] = other[0, 30:].flip(0)
    made = model()
    allow_packing(made)
    one, two = (log_probabilities(made, of, mask, completion, packing=True)[0] for of in (ids, other))
    assert torch.equal(one[1:], two[1:])
    assert not torch.equal(one[0], two[0])


def test_packing_must_gain_more_than_a_call_a_row() -> None:
    def packed(spared: int) -> bool:
        ids, mask, completion = padded([10, 10], [100 + 2 * CALL + spared, 100])
        return lay_out(ids, mask, completion, packing=True).packed

    assert not packed(0)
    assert packed(1)
    ids, mask, completion = padded(*LONG)
    assert not lay_out(ids, mask, completion, packing=False).packed


def test_only_sdpa_is_packed() -> None:
    made = model()
    made.set_attn_implementation("eager")
    assert not allow_packing(made)


def test_generation_is_as_before() -> None:
    """A model that may be packed still pads on the left when it generates."""
    ids, mask, _ = padded([4, 9], [0, 0])
    plain, ours = model(), model()
    allow_packing(ours)
    found = [of.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False) for of in (plain, ours)]
    assert torch.equal(*found)


def test_a_step_of_exp3_computes_no_padding(tmp_path: Path) -> None:
    """Loss and gradient equal TRL's own path to 1e-6; policy and reference see the real tokens and nothing else."""
    prompts, completions, rewards = [], [], []
    recorded = Recorded()
    for row in range(12):
        prompts.append(recorded.prompt_ids[0][: 4 + 3 * (row // 6)])
        completions.append((recorded.completion_ids[row] * 40)[: 20 + 130 * (row % 6)])
        rewards.append(float(row % 5))
    small = ["grpo.gradient_accumulation_steps=2", "grpo.max_completion_length=1000"]
    names = [f"p{i // 6}" for i in range(12)]
    results = []
    for own in (True, False):
        trainer = fixed_trainer(load("exp3", [*ON_CPU, *small]), tmp_path / str(own), prompts, rewards)
        if not own:
            trainer._get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies.__get__(trainer)
            trainer._measures.kl = lambda *_: None
            trainer._latest_logps = None
        trainer.give(completions)
        policy, reference = Seen(trainer.model), Seen(trainer.ref_model)
        results.append((*losses_and_gradient(trainer, names), policy.tokens, reference.tokens))
    (ours, gradient, policy, reference), (theirs, their_gradient, *padding) = results
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert relative(gradient, their_gradient) < 1e-6
    groups = [list(zip(prompts[i : i + 6], completions[i : i + 6], strict=True)) for i in (0, 6)]
    real = [sum(len(p) + len(c) for p, c in group) for group in groups]
    assert (policy, reference) == (real, real)
    longest = max(map(len, completions))
    assert padding == [[6 * (7 + longest)] * 2] * 2
    assert sum(real) < 0.6 * sum(padding[1])
