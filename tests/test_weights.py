"""A model whose file lacks a tensor, or has another one, is refused by whoever would load it: no tensor is made up."""

import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from safetensors.torch import load_file, save_file

from openrs.cli.main import main
from openrs.config.load import load, to_yaml
from openrs.errors import UserError
from openrs.evaluation.engines import load as load_engine
from openrs.evaluation.sampling import EngineSettings
from openrs.hub import adapters
from openrs.hub.export import export
from openrs.hub.loading import check_weights, refuse_code
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import write_json
from openrs.run.progress import Progress
from openrs.training import lora
from openrs.training import train as grpo

pytestmark = pytest.mark.slow

Tensors = dict[str, torch.Tensor]
EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"


def renamed(weights: Tensors) -> None:
    weights["model.embed_token.weight"] = weights.pop(EMBEDDING)


def one_less(weights: Tensors) -> None:
    del weights[NORM]


def one_more(weights: Tensors) -> None:
    weights["model.layers.9.mlp.up_proj.weight"] = torch.zeros(4)


def another_shape(weights: Tensors) -> None:
    weights[NORM] = weights[NORM][:-1].clone()


FAULTS = {
    renamed: r"missing \(.*model.embed_tokens.weight.*1 unexpected \(model.embed_token.weight\)",
    one_less: r"1 missing \(model.norm.weight\)",
    one_more: r"1 unexpected \(model.layers.9.mlp.up_proj.weight\)",
    another_shape: r"1 of another shape \(model.norm.weight: \[\d+\] instead of \[\d+\]\)",
}


def changed(model: Path, place: Path, fault: Callable[[Tensors], None]) -> Path:
    folder = shutil.copytree(model, place)
    weights = load_file(folder / "model.safetensors")
    fault(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def by_transformers(folder: Path, tmp_path: Path) -> None:
    settings = EngineSettings(
        engine="transformers", model=str(folder), dtype="float32", temperature=0.0, top_p=1.0, max_model_len=64,
        gpu_memory=0.9, trust_remote_code=False,
    )  # fmt: skip
    load_engine(settings)


def by_vllm(folder: Path, tmp_path: Path) -> None:
    """Refused before vLLM is even imported."""
    settings = EngineSettings(
        engine="vllm", model=str(folder), dtype="float32", temperature=0.0, top_p=1.0, max_model_len=64, gpu_memory=0.9,
        trust_remote_code=False,
    )  # fmt: skip
    load_engine(settings)


def by_training(folder: Path, tmp_path: Path) -> None:
    """Policy, reference and vLLM load this one folder."""
    recipe = load("demo", ["model.toy=null", f"model.name={folder}"])
    (tmp_path / "run").mkdir()
    grpo.prepare(recipe, Run(tmp_path / "run"), Progress())


def a_run(folder: Path, tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    checkpoints.finish(shutil.copytree(folder, run.checkpoints / "staging"), run.checkpoints, 5)
    write_json(run.manifest, {"attempts": []})
    run.recipe.write_text(to_yaml(load("demo")))
    return run


def by_export(folder: Path, tmp_path: Path) -> None:
    export(a_run(folder, tmp_path))


def by_a_resumed_training(folder: Path, tmp_path: Path) -> None:
    (folder / "trainer_state.json").write_text("{}")
    run = a_run(folder, tmp_path)
    shutil.copytree(tmp_path / "whole", run.path / "base")
    recipe = load("demo", ["model.toy=null", f"model.name={run.path / 'base'}"])
    grpo.prepare(recipe, run, Progress())


WHO = [by_transformers, by_vllm, by_training, by_a_resumed_training, by_export]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_other_tensors_are_refused(
    made_model: Path,
    tmp_path: Path,
    who: Callable[[Path, Path], None],
    fault: Callable[[Tensors], None],
    said: str,
) -> None:
    shutil.copytree(made_model, tmp_path / "whole")
    folder = changed(made_model, tmp_path / "model", fault)
    with pytest.raises(UserError, match=f"are not those of its model: .*{said}") as refused:
        who(folder, tmp_path)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run/export").exists()


def test_the_whole_model_is_not(made_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    shutil.copytree(made_model, tmp_path / "whole")
    folder = shutil.copytree(made_model, tmp_path / "model")
    for who in (by_transformers, by_training, by_a_resumed_training, by_export):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        who(folder, tmp_path)
    with pytest.raises(ModuleNotFoundError, match="vllm"):
        by_vllm(folder, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_known(tmp_path: Path, tied: bool) -> None:
    """A tied head is not in the file, or is the only one of the two; an untied one has to be there."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    check_weights(tmp_path / "model", trust_remote_code=False)

    def without_head(weights: Tensors) -> None:
        head = weights.pop("lm_head.weight", None)
        assert (head is None) is tied

    def head_only(weights: Tensors) -> None:
        weights["lm_head.weight"] = weights.pop(EMBEDDING)

    for fault in (without_head, head_only):
        folder = changed(tmp_path / "model", tmp_path / fault.__name__, fault)
        if tied:
            check_weights(folder, trust_remote_code=False)
        else:
            with pytest.raises(UserError, match="1 missing"):
                check_weights(folder, trust_remote_code=False)


def test_a_shard_that_is_cut_short_is_refused(made_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made_model, tmp_path / "model")
    content = (folder / "model.safetensors").read_bytes()
    for end in (-100, 100, 0):
        (folder / "model.safetensors").write_bytes(content[:end])
        with pytest.raises(UserError, match="cannot be loaded"):
            check_weights(folder, trust_remote_code=False)


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(made_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    recipe = load("demo", ["model.lora={rank: 2, alpha: 4, dropout: 0.0}"])
    assert recipe.model.lora is not None
    model = AutoModelForCausalLM.from_pretrained(made_model)
    get_peft_model(model, lora.peft_config(recipe.model.lora)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(made_model / name, folder / name)
    return folder


def test_a_whole_adapter_is_merged(made_model: Path, adapter: Path, tmp_path: Path) -> None:
    folder = adapters.merge(made_model, adapter, tmp_path / "merged", dtype="float32", trust_remote_code=False)
    check_weights(folder, trust_remote_code=False)


def first_renamed(weights: Tensors) -> None:
    weights["nobody's"] = weights.pop(min(weights))


def first_gone(weights: Tensors) -> None:
    del weights[min(weights)]


def first_cut(weights: Tensors) -> None:
    weights[min(weights)] = weights[min(weights)][:, :-1].clone()


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("fault", [first_renamed, first_gone, first_cut, Tensors.clear])
def test_an_adapter_with_other_tensors_is_refused(
    made_model: Path, adapter: Path, tmp_path: Path, fault: Callable[[Tensors], Any]
) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(folder / adapters.ADAPTER_WEIGHTS)
    fault(weights)
    save_file(weights, folder / adapters.ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"are not those of its model|cannot be loaded: Error\(s\) in loading"):
        adapters.merge(made_model, folder, tmp_path / "merged", dtype="float32", trust_remote_code=False)
    assert not (tmp_path / "merged").exists()


def test_a_base_that_lacks_a_tensor_is_refused_when_it_is_merged(
    made_model: Path, adapter: Path, tmp_path: Path
) -> None:
    base = changed(made_model, tmp_path / "base", renamed)
    with pytest.raises(UserError, match="base are not those of its model"):
        adapters.merge(base, adapter, tmp_path / "merged", dtype="float32", trust_remote_code=False)


def test_the_command_says_it(made_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(changed(made_model, tmp_path / "model", renamed), tmp_path)
    assert main(["export", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "missing (" in said
    assert "fix: fetch or copy the model anew" in said


# --- what DeepSpeed would unpickle ------------------------------------------------------------------------------------


class Code:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def as_deepspeed_writes_it(value: object, path: Path) -> None:
    torch.save(value, path)


def with_newer_opcodes(value: object, path: Path) -> None:
    torch.save(value, path, pickle_protocol=4)


def as_old_torch_wrote_it(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def plainly_pickled(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_optim_states.pt", "any"])
@pytest.mark.parametrize("write", [as_deepspeed_writes_it, with_newer_opcodes, as_old_torch_wrote_it, plainly_pickled])
def test_a_checkpoint_of_deepspeed_that_would_run_code_is_refused(
    write: Callable[[object, Path], None], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "step-000001" / "global_step1"
    folder.mkdir(parents=True)
    write({"module": {"w": torch.ones(2)}, "loss_scaler": Code(tmp_path / "ran")}, folder / name)
    with pytest.raises(UserError, match=str(folder / name)):
        refuse_code(folder.parent)
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_a_checkpoint_behind_a_link_is_refused_and_chat_templates_are_not(tmp_path: Path) -> None:
    """The link stays within the run, where other commands let it be; DeepSpeed would follow it."""
    step = tmp_path / "step-000001"
    (step / "additional_chat_templates").mkdir(parents=True)
    (step / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (step / "latest").write_text("additional_chat_templates")
    refuse_code(step)
    (tmp_path / "elsewhere").mkdir()
    plainly_pickled({"loss_scaler": Code(tmp_path / "ran")}, tmp_path / "elsewhere" / "mp_rank_00_model_states.pt")
    (step / "global_step1").symlink_to("../elsewhere")
    (step / "latest").write_text("global_step1")
    with pytest.raises(UserError, match="global_step1 is a link"):
        refuse_code(step)


@pytest.mark.slow  # imports deepspeed
def test_what_deepspeed_writes_is_not_refused(tmp_path: Path) -> None:
    scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler")
    config = pytest.importorskip("deepspeed.runtime.zero.config")
    (tmp_path / "global_step1").mkdir()
    state = {"zero_stage": config.ZeroStageEnum(2), "loss_scaler": scaler.LossScaler(1.0), "fp32": [torch.ones(2)]}
    torch.save({"optimizer_state_dict": state}, tmp_path / "global_step1" / "optim_states.pt")
    (tmp_path / "latest").write_text("global_step1")
    refuse_code(tmp_path)


@pytest.mark.parametrize("tag", ["../elsewhere", "/elsewhere", "global_step2", "..", ""])
def test_deepspeeds_folder_is_one_of_the_checkpoints(tag: str, tmp_path: Path) -> None:
    (tmp_path / "global_step1").mkdir()
    (tmp_path / "latest").write_text(tag)
    with pytest.raises(UserError, match="names another folder"):
        refuse_code(tmp_path)
