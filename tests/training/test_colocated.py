"""What openrs changes of TRL's colocated vLLM. vLLM is played by stand_in_vllm.py; with the real one: test_vllm.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import stand_in_vllm
import torch
from datasets import Dataset
from fixed import ON_CPU, PARITY, words

from openrs.config.load import load
from openrs.errors import UserError
from openrs.hub import adapters
from openrs.planner.gpus import find
from openrs.planner.times import ASSUMED, generation_seconds
from openrs.planner.workload import workload_of
from openrs.rewards.functions import RewardSet, RewardStats
from openrs.training import lora, vllm_server
from openrs.training.train import grpo_config
from openrs.training.trainer import Trainer
from openrs.training.vllm_server import set_colocated_arguments, vllm_arguments

pytestmark = pytest.mark.slow


@pytest.fixture
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # taken away again afterwards
    stand_in_vllm.install(lambda place, name, value: monkeypatch.setattr(place, name, value, raising=False))


def trainer_of(folder: Path, *overrides: str) -> Trainer:
    recipe = load("exp2-lora", [*ON_CPU, "grpo.use_vllm=true", *overrides])
    assert recipe.model.lora is not None
    return Trainer(
        prompt_ids={"p": [5, 6]},
        folder=folder / "checkpoints",
        rewards=RewardSet([lambda prompts, **_: [0.0] * len(prompts)], [1.0], RewardStats()),
        model=str(PARITY / "policy"),
        args=grpo_config(recipe, folder / "staging", [1.0]),
        processing_class=words(),
        train_dataset=Dataset.from_dict({"prompt": ["p"] * 12, "gold": ["1"] * 12, "id": ["p"] * 12}),
        peft_config=lora.peft_config(recipe.model.lora),
    )


@pytest.mark.usefixtures("_played")
def test_the_base_of_adapters_stays_bit_equal_in_bf16_and_vllm_gets_what_is_evaluated(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "model.dtype=bfloat16")
    model: Any = trainer.model
    named = {name: value for name, value in model.named_parameters() if "lora_" not in name}
    assert {value.dtype for value in named.values()} == {torch.bfloat16}
    before = {name: value.detach().clone() for name, value in named.items()}
    b_sides = [value for name, value in model.named_parameters() if "lora_B" in name]
    torch.manual_seed(0)
    for _ in range(20):
        with torch.no_grad():
            for value in b_sides:
                value.add_(1e-4 * torch.randn_like(value))
        trainer.vllm_generation.sync_weights()
    assert [name for name in before if not torch.equal(before[name], named[name])] == []

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    trainer.model.save_pretrained(adapter)
    words().save_pretrained(adapter)
    plain = type(model.get_base_model()).from_pretrained(PARITY / "policy", dtype=torch.bfloat16)
    plain.save_pretrained(base)
    folder = adapters.merge(base, adapter, tmp_path / "merged", dtype="bfloat16", trust_remote_code=False)
    evaluated = type(plain).from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    loaded = trainer.vllm_generation.llm.loaded
    assert sorted(loaded) == sorted(dict(plain.named_parameters()))
    assert [name for name in loaded if not torch.equal(loaded[name], evaluated[name])] == []
    moved = [name for name in loaded if not torch.equal(loaded[name], plain.state_dict()[name])]
    assert len(moved) == len(b_sides)


@pytest.mark.usefixtures("_played")
def test_the_seed_reaches_the_generator_that_vllm_draws_from(tmp_path: Path) -> None:
    def drawn(seed: int) -> int:
        trainer_of(tmp_path, f"grpo.seed={seed}")
        return int(np.random.randint(2**31))

    assert drawn(42) == drawn(42) != drawn(43)


@pytest.mark.usefixtures("_played")
@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        (["model.dtype=float32", "grpo.bf16=false"], "float32"),
        (["model.dtype=float32", "grpo.bf16=true"], "bfloat16"),
        (["model.dtype=float32", "grpo.bf16=null"], "bfloat16"),
        (["model.dtype=float32", "grpo.bf16=false", "grpo.fp16=true"], "float16"),
        (["model.dtype=bfloat16", "grpo.bf16=false"], "bfloat16"),
    ],
)
def test_vllm_computes_in_the_trainers_dtype_in_both_layouts(
    settings: list[str], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL gives colocated vLLM none, and vLLM then makes bfloat16 of float32."""
    from trl.generation import vllm_generation

    given: list[str] = []
    monkeypatch.setattr(vllm_generation, "LLM", lambda *, dtype: given.append(dtype))
    recipe = load("exp2-lora", [*ON_CPU, "grpo.use_vllm=true", *settings])
    set_colocated_arguments(recipe)
    vllm_generation.LLM()
    words = vllm_server.command(recipe, "model", 1)
    assert [*given, words[words.index("--dtype") + 1]] == [dtype, dtype]


@pytest.mark.parametrize("name", ["exp1", "exp2", "exp3"])
def test_the_papers_generator_stays_in_bfloat16(name: str) -> None:
    assert vllm_arguments(load(name)) == {"dtype": "bfloat16"}


def test_drafts_reach_vllm_in_both_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.generation import vllm_generation

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(vllm_generation, "LLM", lambda **arguments: given.append(arguments), raising=False)
    recipe = load("exp3", ["hardware.draft_tokens=4"])
    set_colocated_arguments(recipe)
    vllm_generation.LLM(seed=1)
    drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
    assert given == [{"seed": 1, "dtype": "bfloat16", "speculative_config": drafts}]
    words = vllm_server.command(recipe, "model", 1)
    assert json.loads(words[words.index("--speculative-config") + 1]) == drafts
    assert "--speculative-config" not in vllm_server.command(load("exp3"), "model", 1)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("grpo.use_vllm=false", "grpo.use_vllm is false"),
        ("hardware={gpus: 0, layout: single, zero_stage: 0}", "vLLM's CPU build samples wrongly with drafts"),
        ("grpo.min_p=0.1", "grpo.min_p and hardware.draft_tokens exclude"),
        ("grpo.generation_kwargs={min_p: 0.1}", "grpo.generation_kwargs.min_p and"),
        ("grpo.generation_kwargs={logit_bias: {'5': -1.0}}", "grpo.generation_kwargs.logit_bias and"),
        ("grpo.vllm_structured_outputs_regex=a", "grpo.vllm_structured_outputs_regex and"),
        ("grpo.generation_kwargs={structured_outputs: {regex: a}}", "grpo.generation_kwargs.structured_outputs and"),
    ],
)
def test_drafts_are_refused_where_the_distribution_would_be_another(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load("exp3", [setting, "hardware.draft_tokens=4"])
    load("exp3", [setting])


def test_the_plan_says_what_drafts_have_to_save() -> None:
    """1.35 tokens a step save nothing, 1.8 do: the study's figures, docs/performance.md."""
    plain, drafting = (workload_of(load("exp3", [f"hardware.draft_tokens={number}"]), find("A40")) for number in (0, 4))
    assert generation_seconds(drafting) == pytest.approx(generation_seconds(plain), rel=0.15)
    assert generation_seconds(drafting, replace(ASSUMED, drafted=1.8)) < 0.8 * generation_seconds(plain)


def test_two_seeds_sample_differently_one_repeats_and_a_resume_continues(tmp_path: Path) -> None:
    """The canary writes its texts anew in the resumed attempt, and must not draw for that."""

    def run(name: str, *words: object) -> Path:
        command = ["train", runs.recipe_in(tmp_path), "--run", tmp_path / name]
        settings = [
            "grpo.use_vllm=true", "grpo.max_steps=4", "grpo.save_steps=2", "monitors.canary.max_gap=1e9",
            "monitors.canary.times=1e9",
        ]  # fmt: skip
        sets = [word for setting in settings for word in ("--set", setting)]
        code, said = runs.openrs([*command, *sets, *words], stand_in_vllm.in_a_fork)
        assert code == 0, said
        return tmp_path / name

    whole = run("whole")
    run("parts", "--until", 2)
    parts = run("parts")
    assert runs.attempts(parts)[-1]["from_step"] == 2
    assert runs.samples(parts) == runs.samples(whole)
    assert runs.final_state(parts) == runs.final_state(whole)
    other = run("other", "--set", "grpo.seed=43")

    def completions(folder: Path) -> list[str]:
        return [text for rows in runs.samples(folder).values() for text in rows["completion"]]

    assert not set(completions(other)) & set(completions(whole))
