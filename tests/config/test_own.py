"""An own model and own data in place of a recipe's: nothing of the old ones stays; own.yaml fits the machine."""

from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.config import load as loading
from openrs.config.load import load, packaged, titles
from openrs.errors import UserError

OWN = ["model.name=./model", "data.source=my.jsonl"]


@pytest.mark.slow
def test_a_recipe_of_the_paper_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hashes = []
    for gpu in (True, False):
        monkeypatch.setattr(loading, "has_nvidia_gpu", lambda gpu=gpu: gpu)
        hashes.append([load(name).hash for name in packaged()])
    assert hashes[0] == hashes[1]
    assert (titles().keys() - packaged().keys(), titles()["own"]) == ({"own"}, "Your own model and data")


def test_own_asks_only_for_model_and_data() -> None:
    with pytest.raises(UserError) as refused:
        load("own")
    lines = refused.value.what.splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["model.name is missing", "data.source is missing"]
    assert "--set model.name=FOLDER --set data.source=FILE" in refused.value.fix
    load("own", OWN)


@pytest.mark.parametrize("gpu", [True, False])
def test_own_fits_a_gpu_and_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: bool) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(loading, "has_nvidia_gpu", lambda: gpu)

    def fits(name: str, *changes: str) -> tuple[int, str, bool]:
        recipe = load(name, [*OWN, *changes])
        return recipe.hardware.gpus, recipe.model.dtype, recipe.grpo["use_vllm"]

    here = {True: (1, "bfloat16", True), False: (0, "float32", False)}
    assert fits("own") == here[gpu]
    assert fits("own", "hardware.gpus=1") == here[True]
    assert fits("own", "hardware.gpus=0") == here[False]
    for gpus in (0, 1):
        (tmp_path / "mine.yaml").write_text(f"extends: own\nhardware: {{gpus: {gpus}}}\n")
        assert fits(str(tmp_path / "mine.yaml")) == here[bool(gpus)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert fits("own") == here[False]


def test_own_for_another_machine_does_not_ask_this_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "has_nvidia_gpu", lambda: False)
    assert load("own", OWN, elsewhere=True).hardware.gpus == 1
    assert load("own", [*OWN, "hardware.gpus=0"], elsewhere=True).hardware.gpus == 0
    hub = ["--set", "model.name=a/b", "--set", "data.source=c/d", "--set", "model.revision=abcdef1"]
    words = ["cluster", "submit", "own", *hub, "--set", "data.revision=abcdef1", "--run", "x", "--dry-run"]
    main([*words, "--image", "example.org/openrs@sha256:" + 64 * "1"])
    assert "nvidia.com/gpu" in capsys.readouterr().out


@pytest.mark.parametrize("base", ["exp1", "exp2", "exp3", "exp2-lora", "exp3-plus", "exp3-fast", "demo"])
@pytest.mark.parametrize("how", ["set", "file", "section"])
def test_another_model_and_other_data_bring_nothing_of_the_old_ones(base: str, how: str, tmp_path: Path) -> None:
    if how == "set":
        recipe = load(base, OWN)
    elif how == "section":
        recipe = load(base, [*OWN, "model={name: ./model}"])
    else:
        (tmp_path / "mine.yaml").write_text(f"extends: {base}\nmodel: {{name: ./model}}\ndata: {{source: my.jsonl}}\n")
        recipe = load(str(tmp_path / "mine.yaml"))
    assert (recipe.model.name, recipe.model.revision, recipe.model.context, recipe.model.toy) == ("./model",) + (
        None,
    ) * 3
    assert (recipe.data.source, recipe.data.revision, recipe.data.subset) == ("my.jsonl", None, None)
    assert how == "section" or recipe.model.attn_implementation == load(base).model.attn_implementation


def test_what_is_given_with_the_new_name_stays(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    recipe = load("exp3", ["model.revision=" + commit, "model.name=someone/model", "model.context=65536"])
    assert (recipe.model.revision, recipe.model.context) == (commit, 65536)
    assert load("exp3", [f"model.name={load('exp3').model.name}"]).hash == load("exp3").hash
    with pytest.raises(UserError, match="needs a revision"):
        load("exp3", ["model.name=someone/model"])
    (tmp_path / "mine.yaml").write_text(f"extends: exp3\nmodel: {{name: someone/model, revision: '{commit}'}}\n")
    assert load(str(tmp_path / "mine.yaml")).model.revision == commit
