"""Adapters train, only they change, and merged they are the same model in one piece."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fixed import ON_CPU, words
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from openrs.config.load import load
from openrs.hub import adapters
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import lora

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, taught_model: Path) -> Run:
    """Six steps of exp2-lora on sums, at a rate that moves the adapters."""
    recipe = load(
        "exp2-lora",
        [
            *ON_CPU, f"model.name={taught_model}", "model.revision=null", "model.context=4096", "prompt.system=null",
            "data={source: toy-sums}", "rewards.mode=corrected", "rewards.workers=1", "grpo.max_completion_length=40",
            "grpo.max_steps=6", "grpo.warmup_steps=0", "grpo.learning_rate=1e-3", "training={trackers: []}",
            "evaluation={benchmarks: [demo], samples: 1, max_tokens: 40}",
        ],
    )  # fmt: skip
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 32
    run = Run(tmp_path_factory.mktemp("lora") / "run")
    with attempt(recipe, run, ["test"]) as progress:
        from openrs.training.launch import train

        train(recipe, run, progress)
    return run


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_the_checkpoint_holds_adapters_only(run: Run) -> None:
    checkpoint = run.checkpoints / "step-000006"
    assert adapters.is_adapter(checkpoint)
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()


def test_kl_is_against_the_model_without_adapters(run: Run) -> None:
    rows = list(read_jsonl(run.metrics))
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[-1]["kl"] > 1e-5


def test_merged_equals_base_plus_adapter(run: Run, taught_model: Path, tmp_path: Path) -> None:
    checkpoint = run.checkpoints / "step-000006"
    base = AutoModelForCausalLM.from_pretrained(taught_model)
    untouched = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, checkpoint))
    folder = adapters.merge(taught_model, checkpoint, tmp_path / "merged", dtype="float32", trust_remote_code=False)
    merged = logits(AutoModelForCausalLM.from_pretrained(folder))
    assert (merged - adapted).abs().max() < 1e-4
    assert (merged - untouched).abs().max() > 1e-2
    assert (folder / "tokenizer.json").is_file()
    assert not adapters.is_adapter(folder)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert adapters.merge(taught_model, checkpoint, folder, dtype="float32", trust_remote_code=False) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
@pytest.mark.parametrize("trained", ["bfloat16", "float32"])
def test_a_merged_model_has_the_dtype_of_the_recipe_whatever_the_base_is_stored_in(
    stored: str, trained: str, tmp_path: Path
) -> None:
    config = Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1,
    )  # fmt: skip
    base = Qwen2ForCausalLM(config).to(getattr(torch, stored))
    base.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    words().save_pretrained(tmp_path / "adapter")
    folder = adapters.merge(
        tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", dtype=trained, trust_remote_code=False
    )
    weights = load_file(folder / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {f"torch.{trained}"}
    assert json.loads((folder / "config.json").read_text())["dtype"] == trained
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    total = layer.base_layer.weight.to(getattr(torch, trained)).float() + layer.get_delta_weight("default").float()
    assert torch.allclose(
        weights["model.layers.0.self_attn.q_proj.weight"].float(), total.to(getattr(torch, trained)).float(), atol=1e-6
    )


def test_a_merged_model_of_another_adapter_is_made_anew(run: Run, taught_model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(run.checkpoints / "step-000006", adapter)
    folder = adapters.merge(taught_model, adapter, tmp_path / "merged", dtype="float32", trust_remote_code=False)
    first = logits(AutoModelForCausalLM.from_pretrained(folder))
    tensors = load_file(adapter / adapters.ADAPTER_WEIGHTS)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, adapter / adapters.ADAPTER_WEIGHTS)
    adapters.merge(taught_model, adapter, folder, dtype="float32", trust_remote_code=False)
    assert (logits(AutoModelForCausalLM.from_pretrained(folder)) - first).abs().max() > 1e-2


def test_evaluation_and_export_take_the_merged_model(run: Run, taught_model: Path) -> None:
    from openrs.evaluation.targets import targets_of_run
    from openrs.hub.export import export

    target = targets_of_run(run, load(str(run.recipe)), trust_remote_code=False)[-1]
    assert target.path == str(run.path / "merged" / "step-000006")
    merged = logits(AutoModelForCausalLM.from_pretrained(target.path))
    exported = logits(AutoModelForCausalLM.from_pretrained(export(run)))
    adapted = logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(taught_model), run.checkpoints / "step-000006")
    )
    assert (merged - adapted).abs().max() < 1e-4
    assert torch.equal(exported, merged)


def test_tinas_numbers() -> None:
    """arXiv 2504.15777: rank 32, alpha 128, dropout 0.05, the seven linear layers of a block and no LM head."""
    recipe = load("exp2-lora")
    assert recipe.model.lora is not None
    config = lora.peft_config(recipe.model.lora)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (32, 128, 0.05)
    model = AutoModelForCausalLM.from_pretrained(Path(__file__).parent / "parity" / "policy")
    from peft import get_peft_model

    names = {name.rpartition(".")[2] for name in get_peft_model(model, config).targeted_module_names}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
