"""A checkpoint leaves the house as a plain model folder that any tool loads."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import yaml
from push_hub import PushHub

from openrs.cli.main import main
from openrs.config.load import load_resolved
from openrs.errors import RunFailure, UserError
from openrs.hub import upload as uploads
from openrs.run import checkpoints
from openrs.run.files import sha256, write_json

SCORE = {"accuracy": 0.3, "interval": [0.15, 0.47], "n": 30, "k": 4}


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    """A run that is evaluated at its base and its end, as far as scores.json tells."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    for step, accuracy in ((0, 0.1), (20, 0.3)):
        write_json(
            folder / f"eval/step-{step:06d}/scores.json", {"benchmarks": {"aime24": SCORE | {"accuracy": accuracy}}}
        )
    return folder


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_anybody_can_load_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from safetensors.torch import load_file

    config = checkpoints.list_complete(run / "checkpoints")[-1] / "config.json"
    assert main(["export", str(run)]) == 0
    folder = run / "export" / "step-000020"
    assert capsys.readouterr().out == f"model: {folder}\n"
    model, tokenizer = loaded(folder)
    assert model.config.use_cache is True
    assert model.generation_config.use_cache is True
    assert json.loads(config.read_text()) | {"use_cache": True} == json.loads((folder / "config.json").read_text())
    trained = load_file(run / "checkpoints/step-000020/model.safetensors")
    assert all(torch.equal(weight, trained[name]) for name, weight in load_file(folder / "model.safetensors").items())
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "1+1"}], add_generation_prompt=True)["input_ids"]
    assert model.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False).shape[1] > len(ids)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "openrs.json", "recipe.yaml", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_the_card_says_where_it_comes_from_and_what_it_is_worth(run: Path) -> None:
    assert main(["export", str(run)]) == 0
    text = (run / "export/step-000020/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["grpo", "openrs"],
    }
    assert "# a tiny run that survives, step 20" in body
    assert "- data: sums made by openrs, 12 problems" in body
    assert f"- recipe: SHA-256 `{load_resolved(run / 'recipe.yaml').hash}`" in body
    assert "| base | aime24 | 10.0 % (15.0 to 47.0) | 30 | 4 |" in body
    assert "| step 20 | aime24 | 30.0 % (15.0 to 47.0) | 30 | 4 |" in body
    assert "## Limits" in body


def test_a_step_a_place_and_again(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "models" / "mine"
    assert main(["export", str(run), "--step", "15", "--to", str(place)]) == 0
    assert sha256(place / "model.safetensors") == sha256(run / "checkpoints/step-000015/model.safetensors")
    before = (place / "model.safetensors").stat().st_mtime_ns
    assert main(["export", str(run), "--step", "15", "--to", str(place)]) == 0
    assert (place / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in place.parent.iterdir()] == ["mine"]


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["export", str(run), *words]) == 2
        return capsys.readouterr().err

    assert "no complete checkpoint of step 3\n  fix: there are: 15, 20" in refused("--step", "3")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "is there and is not an export of this checkpoint" in refused("--to", str(tmp_path / "mine"))
    content = bytearray((run / "checkpoints/step-000020/model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "checkpoints/step-000020/model.safetensors").write_bytes(content)
    assert "is damaged: model.safetensors differs from its SHA-256\n  fix: give another --step" in refused()
    shutil.rmtree(run / "checkpoints")
    assert "has no complete checkpoint" in refused()
    assert not (run / "export").exists()


@pytest.mark.slow
def test_an_adapter_is_merged_into_its_base(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    run = tmp_path / "run"
    lora = ["--set", "model.lora={rank: 4, alpha: 8, dropout: 0.0}", "--set", "grpo.learning_rate=0.01"]
    code, said = runs.openrs(["train", runs.recipe_in(tmp_path), "--run", run, "--until", 3, *lora])
    assert code == 0, said
    assert main(["export", str(run)]) == 0
    model, tokenizer = loaded(run / "export/step-000003")
    base, _ = loaded(run / "base")
    ids = torch.tensor([tokenizer("12+34")["input_ids"]])
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, run / "checkpoints/step-000003")(ids).logits
        merged = model(ids).logits
    assert (adapted - plain).abs().max() > 1e-3
    assert torch.allclose(merged, adapted, atol=1e-5)
    assert model.config.use_cache is True
    assert (run / "export/step-000003/README.md").is_file()


# --- to the hub, when asked -------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PushHub]:
    """huggingface_hub has read HF_ENDPOINT long ago, so it is told in another way."""
    import huggingface_hub

    make = huggingface_hub.HfApi
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(uploads, "WAITS", (0.01,))
    with PushHub() as found:
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: make(endpoint=found.url, token="hf_planted0secret0"))
        yield found


def test_a_push_that_is_broken_off_sends_large_files_once(run: Path, hub: PushHub) -> None:
    lines: list[str] = []
    assert main(["export", str(run)]) == 0
    assert hub.asked == []
    folder = run / "export/step-000020"
    commit = hub._commit
    hub._commit = lambda lines: commit(lines) if len(hub.asked) > 8 else None  # type: ignore[method-assign, assignment]
    url = uploads.push(folder, "me/tiny", private=True, say=lines.append, tries=5)
    assert url.startswith(f"{hub.url}/me/tiny/commit/")
    assert len([asked for asked in hub.asked if asked.startswith("PUT")]) == 1
    assert hub.objects == {sha256(folder / "model.safetensors"): (folder / "model.safetensors").read_bytes()}
    assert "README.md" in hub.commits["openrs: step-000020"]
    assert len(lines) == 1
    assert "trying again in 0 s" in lines[0]


def test_a_hub_that_says_no(run: Path, hub: PushHub) -> None:
    hub.faults = ["403"] * 3
    with pytest.raises(UserError, match="the hub does not let us write to me/tiny") as raised:
        uploads.push(run / "base", "me/tiny", private=True, say=print, tries=5)
    assert raised.value.exit_code == 2
    with pytest.raises(UserError, match="is not a name of a repository"):
        uploads.push(run / "base", "not a name", private=True, say=print, tries=5)


def test_what_could_never_be_pushed_is_refused_before_anything_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted0secret0")

    def refused(*words: str) -> str:
        assert main(["export", str(run), *words]) == 2
        assert not (run / "export").exists()
        return capsys.readouterr().err

    assert "--push not a name: not the name of a repository" in refused("--push", "not a name")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "there is no token for the hub" in refused("--push", "me/tiny")


def test_a_hub_that_never_gets_better(run: Path, hub: PushHub) -> None:
    hub.faults = ["500"] * 100
    with pytest.raises(RunFailure, match="base could not be pushed to me/tiny") as raised:
        uploads.push(run / "base", "me/tiny", private=True, say=lambda _: None, tries=2)
    assert raised.value.exit_code == 1


def test_offline_a_push_is_refused_before_anything_is_done(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_planted0secret0")
    with pytest.raises(UserError, match="--push me/tiny: HF_HUB_OFFLINE is set"):
        uploads.check("me/tiny")
    assert main(["export", str(run), "--push", "me/tiny"]) == 2
    assert not (run / "export").exists()


@pytest.mark.slow
def test_a_push_sends_no_telemetry() -> None:
    """The hub's library reads once whether it may: whoever imports it first has to have said so."""
    code = "from openrs.hub import upload; upload.check('me/tiny'); from huggingface_hub import constants as c;"
    words = [sys.executable, "-c", code + "print(c.HF_HUB_DISABLE_TELEMETRY)"]
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    environment["HF_TOKEN"] = "hf_planted0secret0"
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
