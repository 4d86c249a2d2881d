"""The planner's arithmetic against the paper's figures and against torch's own counters."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen3Config

from openrs.config.schema import Model, ToyModel
from openrs.errors import UserError
from openrs.planner import shapes
from openrs.planner.shapes import Shape, from_config, shape_of, toy_shape

pytestmark = pytest.mark.slow

BASE = Model(name="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", revision="ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562")
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 160, "vocab_size": 512, "tie_word_embeddings": False,
}  # fmt: skip


def test_papers_model_to_the_last_parameter() -> None:
    shape = shape_of(BASE)
    assert shape.parameters == 1_777_088_000
    assert shape.kv_bytes() == 28_672
    assert shape.read_per_token == pytest.approx(1.54e9, rel=0.005)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen3-0.6B", 596_049_920),
    ],
)
def test_known_models_have_their_published_size(name: str, parameters: int) -> None:
    assert from_config(shapes._table()[name], name).parameters == parameters


@pytest.mark.parametrize("name", sorted(shapes._table()))
def test_every_known_model_counts_what_transformers_builds(name: str) -> None:
    given = dict(shapes._table()[name])
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    assert from_config(shapes._table()[name], name).parameters == sum(p.numel() for p in model.parameters())


def build(kind: str, attention: str, dtype: torch.dtype, **changes: Any) -> tuple[Any, Shape]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    model.train()
    return model, from_config(config.to_dict(), kind)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "mistral"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "num_key_value_heads": 4}, {"head_dim": 32}])
def test_parameters_of_small_models(kind: str, changes: dict[str, Any]) -> None:
    if kind == "qwen2" and "head_dim" in changes:
        pytest.skip("Qwen2's config has no head_dim")
    model, shape = build(kind, "sdpa", torch.float32, **changes)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_saved_activations_against_torchs_hooks(kind: str, dtype: torch.dtype, checkpointing: bool) -> None:
    model, shape = build(kind, "sdpa", dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            held.setdefault(place, tensor)  # kept alive, so that no second tensor gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(input_ids=torch.randint(0, 512, (6, 96)), use_cache=False)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    planned = shape.saved_bytes(6, 96, torch.finfo(dtype).bits // 8, checkpointing=checkpointing)
    assert planned == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_against_torchs_counter(kind: str, checkpointing: bool) -> None:
    model, shape = build(kind, "eager", torch.float32)  # eager attention: matmuls, which the counter sees
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    sequences, length = 2, 128
    ids = torch.randint(0, 512, (sequences, length))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(input_ids=ids, use_cache=False)
    tokens = sequences * length
    planned = shape.layer_flops(tokens, length) + shape.head_flops(tokens)
    assert planned == pytest.approx(forward.get_total_flops(), rel=0.05)

    with FlopCounterMode(display=False) as update:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    planned = shape.training_flops(tokens, length, tokens, checkpointing=checkpointing, reference=False, fused=False)
    assert planned == pytest.approx(update.get_total_flops(), rel=0.05)


def test_fused_head_flops_against_torchs_counter() -> None:
    """TRL's own fused LM head, as GRPOTrainer attaches it: its backward makes the logits again."""
    from trl.trainer.utils import add_fused_lm_head

    model, shape = build("qwen2", "eager", torch.float32)
    add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
    ids = torch.randint(0, 512, (2, 128))

    def addmm_in_place(_: Any, a: Any, b: Any, **__: Any) -> int:  # shapes; the counter knows addmm, but not addmm_
        return 2 * int(a[0]) * int(a[1]) * int(b[1])

    in_place = {torch.ops.aten.addmm_: addmm_in_place}
    with FlopCounterMode(display=False, custom_mapping=in_place) as update:
        model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()
    planned = shape.training_flops(256, 128, 254, checkpointing=False, reference=False, fused=True)
    assert planned == pytest.approx(update.get_total_flops(), rel=0.05)


def test_lora_counts_what_peft_attaches() -> None:
    from peft import LoraConfig, get_peft_model

    model, shape = build("qwen2", "sdpa", torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert shape.lora_parameters(8) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_the_demos_model_is_counted() -> None:
    made = ToyModel()
    config = Qwen2Config(
        vocab_size=shapes.DEMO_TOKENS, hidden_size=96, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    assert toy_shape(made).parameters == sum(p.numel() for p in model.parameters())


def test_a_local_folder_is_read(tmp_path: Path) -> None:
    Qwen3Config(**SMALL, head_dim=16).save_pretrained(tmp_path)
    assert shape_of(Model(name=str(tmp_path))).qk_norm
    assert shape_of(Model(name=str(tmp_path))).head_dim == 16


def test_a_fetched_model_is_read_from_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--some--model" / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", **SMALL}))
    assert shape_of(Model(name="some/model", revision="a" * 40), tmp_path).hidden == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json:1: not JSON"),
        ("[]", "model_type is None"),
        ('{"model_type": "mamba"}', "model_type is 'mamba'"),
        ('{"model_type": "qwen2", "hidden_size": "big"}', "hidden_size is 'big'"),
        ('{"model_type": "qwen2", "hidden_size": 0}', "hidden_size is 0"),
    ],
)
def test_a_broken_config_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        shape_of(Model(name=str(tmp_path)))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UserError, match="not known here"):
        shape_of(Model(name="nobody/nothing", revision="b" * 40), Path("/nonexistent"))
