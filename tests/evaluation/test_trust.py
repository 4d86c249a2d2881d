"""Code that comes with a model runs when this very command allows it, whatever a file in a folder says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from safetensors.torch import save_file

from openrs.cli.main import main
from openrs.config.load import load, to_yaml
from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation.engines import load as load_engine
from openrs.evaluation.plan import prepare
from openrs.evaluation.targets import resolved
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import write_json

pytestmark = pytest.mark.slow

CODE = """
from pathlib import Path
from transformers import Qwen2Config, Qwen2ForCausalLM
Path({canary!r}).write_text("the code ran")
class OwnConfig(Qwen2Config):
    model_type = "own"
class OwnModel(Qwen2ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the models' code makes when it runs. transformers copies that code into a cache of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "the-code-ran"


@pytest.fixture
def own(made_model: Path, tmp_path: Path, canary: Path) -> Path:
    """A model whose class and configuration are Python files beside it; and a recipe that says to trust them."""
    folder = shutil.copytree(made_model, tmp_path / "own")
    (folder / "own.py").write_text(CODE.format(canary=str(canary)))
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    write_json(folder / "config.json", config | {"model_type": "own", "architectures": ["OwnModel"], "auto_map": names})
    write_recipe(folder, folder)
    return folder


def write_recipe(folder: Path, model: Path, *overrides: str) -> None:
    recipe = load("demo", ["model.toy=null", f"model.name={model}", "model.trust_remote_code=true", *overrides])
    (folder / "recipe.yaml").write_text(to_yaml(recipe))


def a_run(own: Path, *overrides: str) -> Run:
    run = Run(own.with_name("run"))
    run.path.mkdir()
    write_json(run.manifest, {"attempts": []})
    write_recipe(run.path, own, *overrides)
    return run


def the_model_itself(own: Path) -> Path:
    return own


def the_base_of_a_run(own: Path) -> Path:
    return a_run(own).path


def a_checkpoint(own: Path) -> Path:
    run = a_run(own)
    return checkpoints.finish(shutil.copytree(own, run.checkpoints / "staging"), run.checkpoints, 5)


def an_export(own: Path) -> Path:
    write_json(own / "openrs.json", {"step": 5, "trust_remote_code": True})
    return own


def an_adapter(own: Path) -> Path:
    """A checkpoint that is to be merged into the model with code of its own."""
    run = a_run(own, "model.lora={rank: 2, alpha: 4, dropout: 0.0}")
    staging = run.checkpoints / "staging"
    staging.mkdir(parents=True)
    write_json(staging / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(own)})
    save_file({"lora": torch.zeros(1)}, staging / "adapter_model.safetensors")
    return checkpoints.finish(staging, run.checkpoints, 5)


FOLDERS = [the_model_itself, the_base_of_a_run, a_checkpoint, an_export, an_adapter]


def loaded(folder: Path, sums: Path, *, trust_remote_code: bool) -> None:
    settings = Evaluation(
        benchmarks=[str(sums / "sums.yaml")], data=str(sums), max_tokens=8, engine="transformers", processes=1
    )
    for target in resolved(str(folder), None, None, trust_remote_code=trust_remote_code)[2]:
        load_engine(prepare(target, settings).engine())


@pytest.mark.parametrize("place", FOLDERS)
def test_no_file_in_a_folder_lets_code_run(own: Path, canary: Path, sums: Path, place: Callable[[Path], Path]) -> None:
    with pytest.raises(UserError, match=r"custom code(.|\n)*fix: --trust-remote-code"):
        loaded(place(own), sums, trust_remote_code=False)
    assert not canary.exists()


@pytest.mark.parametrize("place", FOLDERS[:-1])
def test_the_command_line_does(own: Path, canary: Path, sums: Path, place: Callable[[Path], Path]) -> None:
    loaded(place(own), sums, trust_remote_code=True)
    assert canary.read_text() == "the code ran"


def test_an_export_merges_no_adapter_with_code_that_was_not_allowed(
    own: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = an_adapter(own).parent.parent
    assert main(["export", str(run)]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not canary.exists()
