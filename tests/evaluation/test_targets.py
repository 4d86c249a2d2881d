"""What may be named as a model: runs, checkpoints, folders, the hub, the paper's own; and what other names are told."""

import json
import shutil
from functools import partial
from pathlib import Path

import fake_hub
import pytest

from openrs.cli.main import main
from openrs.config.load import load, to_yaml
from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation.plan import prepare
from openrs.evaluation.targets import evaluate_model, resolved, targets_of_run
from openrs.hub import download as hubs
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import read_jsonl, sha256, write_json


@pytest.fixture
def run(tmp_path, made_model, monkeypatch):
    """A run with a base and checkpoints at 2, 4 and 6; a seventh was never finished."""
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/mine"))
    shutil.copytree(made_model, run.path / "base")
    for step in (2, 4, 6):
        staging = shutil.copytree(made_model, run.checkpoints / "staging")
        checkpoints.finish(staging, run.checkpoints, step)
    shutil.copytree(made_model, run.checkpoints / "step-000007")
    write_json(run.manifest, {"attempts": []})
    write_recipe(run)
    return run


def write_recipe(run, *overrides):
    recipe = load("demo", ["grpo.save_steps=2", *(f"evaluation.{override}" for override in overrides)])
    run.recipe.write_text(to_yaml(recipe))
    return recipe


def test_a_run_gives_its_base_and_its_checkpoints_by_the_recipes_rule(run):
    last = targets_of_run(run, write_recipe(run, "checkpoints=last"), trust_remote_code=False)
    assert [(t.label, t.step, t.path) for t in last] == [
        ("step-000000", 0, "runs/mine/base"), ("step-000006", 6, "runs/mine/checkpoints/step-000006")
    ]  # fmt: skip
    every = targets_of_run(run, write_recipe(run, "checkpoints=all"), trust_remote_code=False)
    assert [t.step for t in every] == [0, 2, 4, 6]
    assert {t.dtype for t in every} == {"float32"}


def test_one_checkpoint_by_its_path(run):
    where, recipe, (target,) = resolved("runs/mine/checkpoints/step-000004", None, None, trust_remote_code=False)
    assert where.path.samefile(run.path)
    assert recipe is not None
    assert (target.label, target.step, target.dtype) == ("step-000004", 4, "float32")
    with pytest.raises(UserError, match=r"no checkpoint .*step-000005\n.*step-000002, step-000004, step-000006"):
        resolved("runs/mine/checkpoints/step-000005", None, None, trust_remote_code=False)
    with pytest.raises(UserError, match="not complete: it has no manifest"):
        resolved("runs/mine/checkpoints/step-000007", None, None, trust_remote_code=False)


@pytest.mark.usefixtures("stand_in")
def test_a_run_is_evaluated_by_one_command(run, sums, capsys):
    write_recipe(run, "checkpoints=all", f"benchmarks=['{sums}/sums.yaml']", f"data={sums}", "max_tokens=8")
    assert main(["evaluate", "mine"]) == 0
    folders = [f"step-{step:06d}" for step in (0, 2, 4, 6)]
    for folder, step in zip(folders, (0, 2, 4, 6), strict=True):
        scores = json.loads((run.path / "eval" / folder / "scores.json").read_text())
        assert scores["model"]["step"] == step
        assert scores["protocol"]["temperature"] == 0.7  # the recipe's
        assert {name: (s["n"], s["k"]) for name, s in scores["benchmarks"].items()} == {"sums": (12, 1), "more": (5, 1)}
    said = capsys.readouterr().out
    assert all(f"{folder}, sums: " in said for folder in folders)
    assert main(["evaluate", "mine"]) == 0
    assert capsys.readouterr().out.count(" is evaluated: ") == 4
    with pytest.raises(UserError, match="is a run"):
        resolved("mine", "abc", None, trust_remote_code=False)


def test_an_export_is_its_checkpoint_and_not_its_base(run, sums, made_model):
    """Each by its own path, with the real engine: hashes, scores and every sample."""
    from safetensors.torch import load_file, save_file

    weights = load_file(made_model / "model.safetensors")
    for name in weights:
        weights[name] = weights[name] * (1 + 0.5 * ("mlp" in name))
    shutil.rmtree(run.checkpoints / "step-000006")
    staging = shutil.copytree(made_model, run.checkpoints / "staging")
    save_file(weights, staging / "model.safetensors", metadata={"format": "pt"})
    checkpoint = checkpoints.finish(staging, run.checkpoints, 6)
    write_recipe(
        run, "temperature=0.7", "samples=1", "max_tokens=8", f"benchmarks=['{sums}/sums.yaml']", f"data={sums}"
    )
    assert main(["export", "mine", "--step", "6"]) == 0
    options = {"benchmarks": [str(sums / "sums.yaml")], "data": str(sums), "max_tokens": 8, "temperature": 0.7,
               "top_p": 0.95, "engine": "transformers", "processes": 1}  # fmt: skip
    found = {}
    for path, kept in (
        ("mine", "runs/mine/eval/step-000000"),
        ("runs/mine/checkpoints/step-000006", "runs/mine/eval/step-000006"),
        ("runs/mine/export/step-000006", "runs/evaluations/eval/mine-step-000006"),
        ("runs/mine/base", "runs/evaluations/eval/base"),
    ):
        evaluate_model(
            path, None, options, revision=None, dtype="float32" if path.endswith("base") else None, keep_in=None,
            shard=None, trust_remote_code=False,
        )  # fmt: skip
        scores = json.loads((Path(kept) / "scores.json").read_text())
        samples = sorted((r["problem"], r["tokens_hash"]) for r in read_jsonl(Path(kept) / "samples.jsonl"))
        found[path] = scores["model"]["sha256"], scores["benchmarks"], scores["protocol"]["dtype"], samples
    base, trained, exported, plain = found.values()
    assert trained[0] == {"model.safetensors": sha256(checkpoint / "model.safetensors")}
    assert exported == trained
    assert base == plain
    assert base[0] != exported[0]
    assert base[3] != exported[3]
    assert not (run.path / "export/step-000006/eval").exists()


def test_a_checkpoint_of_no_run_is_checked_and_is_a_model(run, tmp_path):
    alone = shutil.copytree(run.checkpoints / "step-000004", tmp_path / "mine")
    where, recipe, (target,) = resolved(str(alone), None, None, trust_remote_code=False)
    assert (str(where.path), recipe, target.path, target.step) == ("runs/evaluations", None, str(alone), None)
    content = bytearray((alone / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (alone / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="differs from its SHA-256"):
        resolved(str(alone), None, "float32", trust_remote_code=False)


@pytest.mark.parametrize("dtype", ["float32", "load", None, 3, ["float32"]])
def test_an_exports_dtype_is_one_that_there_is(run, dtype):
    """Else that of its weights: a run in float32 exports float32."""
    assert main(["export", "mine"]) == 0
    origin = run.path / "export/step-000006/openrs.json"
    assert json.loads(origin.read_text())["dtype"] == "float32"
    write_json(origin, json.loads(origin.read_text()) | {"dtype": dtype})
    _, _, (target,) = resolved("runs/mine/export/step-000006", None, None, trust_remote_code=False)
    assert target.dtype == "float32"


@pytest.mark.usefixtures("stand_in")
def test_other_models_go_to_their_own_folder(made_model, sums, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"benchmarks": [str(sums / "sums.yaml")], "data": str(sums), "max_tokens": 8, "processes": 1}
    evaluate_model(
        str(made_model), None, options, revision=None, dtype="float32", keep_in=None, shard=None,
        trust_remote_code=False,
    )  # fmt: skip
    scores = json.loads(Path("runs/evaluations/eval/model/scores.json").read_text())
    assert scores["model"]["step"] is None
    assert len(scores["model"]["sha256"]["model.safetensors"]) == 64


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("paper:base", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562"),
        ("paper:exp3@50", "knoveleng/OpenRS-GRPO", "1793695d9e827f1024422af3698f9a070b935698"),
        ("paper:exp1@100", "knoveleng/OpenRS-GRPO", "0439c48c3686728b5cc5a20820d601d2908c6ee1"),
        ("paper:open-rs3", "knoveleng/Open-RS3", "b9ea78ba17ad"),
    ],
)
def test_the_papers_models_are_pinned(name, repo, revision):
    where, recipe, (target,) = resolved(name, None, None, trust_remote_code=False)
    assert (target.path, target.revision, target.label) == (repo, revision, name.replace(":", "-"))
    assert recipe is None
    assert str(where.evaluation(target.label)) == f"runs/evaluations/eval/{name.replace(':', '-')}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("paper:exp3@75", "no checkpoint exp3@75(.|\n)*exp3 at 50, 100"),
        ("paper:exp1@500", "no checkpoint exp1@500"),
        ("paper:exp4@50", "there is no paper:exp4@50"),
        ("paper:open-rs4", "there is no paper:open-rs4"),
        ("runs/nothing", "there is no run runs/nothing"),
        ("./nothing", "there is no model folder ./nothing"),
        ("nothing", "there is no model folder nothing"),
    ],
)
def test_names_that_mean_nothing_end_in_one_message(name, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        resolved(name, None, None, trust_remote_code=False)
    assert main(["evaluate", name, "--benchmarks", "demo"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("openrs evaluate: ")
    assert "Traceback" not in err


def test_no_model_at_all(capsys):
    assert main(["evaluate"]) == 2
    assert "no model to evaluate" in capsys.readouterr().err


def test_a_model_of_the_hub_is_fetched_once_at_its_commit(made_model, tmp_path, monkeypatch, sums):
    """Against a stand-in of the hub: paper:open-rs3, of whose commit only the beginning is known."""
    commit = "b9ea78ba17ad" + "0" * 28
    files = {path.name: path.read_bytes() for path in made_model.iterdir() if path.is_file()}
    repo = fake_hub.Repo(files, ["0" * 40, commit, "f" * 40], large=("model.safetensors",))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at the first import
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with fake_hub.FakeHub({"models/knoveleng/Open-RS3": repo}) as hub:
        monkeypatch.setattr(hubs, "Hub", partial(hubs.Hub, endpoint=hub.url, waits=(0.01,)))
        _, _, (target,) = resolved("paper:open-rs3", None, "float32", trust_remote_code=False)
        settings = Evaluation(
            benchmarks=[str(sums / "sums.yaml")], data=str(sums), max_tokens=8, engine="transformers", processes=1
        )
        plan = prepare(target, settings)
        asked = len(hub.asked)
        assert prepare(target, settings).record == plan.record
        assert len(hub.asked) == asked
    assert plan.model.name == commit
    assert plan.record["model"] | {"sha256": None} == {
        "name": "knoveleng/Open-RS3", "revision": commit, "step": None, "sha256": None
    }  # fmt: skip
    from openrs.report.evidence.reference import model_named

    assert model_named(plan.record["model"]["name"], commit) == "Open-RS3"
