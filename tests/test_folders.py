"""What a folder is, by what it declares; and that whoever asks gets the same answer."""

import itertools
import json
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.config.load import load, to_yaml
from openrs.errors import UserError
from openrs.hub.models import local_model, weight_files, weights
from openrs.run.attempt import attempt
from openrs.run.directory import Run, existing_run
from openrs.run.files import sha256, write_json
from openrs.run.folders import ADAPTER, DECLARATION, Kind, kind_of

OTHERS = ("recipe.yaml", "README.md", "metrics.jsonl")  # they declare nothing, wherever they are
CONTENT = dict.fromkeys((*DECLARATION.values(), ADAPTER, *OTHERS), "{}") | {"manifest.json": '{"attempts": []}'}
WHOLE = {
    frozenset({"manifest.json"}): Kind.RUN,
    frozenset({"checkpoint.json"}): Kind.CHECKPOINT,
    frozenset({"checkpoint.json", "config.json"}): Kind.CHECKPOINT,
    frozenset({"checkpoint.json", ADAPTER}): Kind.CHECKPOINT,
    frozenset({"openrs.json"}): Kind.EXPORT,
    frozenset({"openrs.json", "config.json"}): Kind.EXPORT,
    frozenset({"config.json"}): Kind.MODEL,
    frozenset({ADAPTER}): None,
    frozenset[str](): None,
}
NAMES = (*DECLARATION.values(), ADAPTER)
MIXED = [
    set(some)
    for n in range(len(NAMES) + 1)
    for some in itertools.combinations(NAMES, n)
    if frozenset(some) not in WHOLE
]


def folder_of(place: Path, names: set[str] | frozenset[str]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text(CONTENT[name])
    return place


@pytest.mark.parametrize("others", [set(), set(OTHERS)])
@pytest.mark.parametrize(("names", "kind"), WHOLE.items(), ids=lambda value: "+".join(sorted(value or ())))
def test_a_folder_is_what_it_declares(tmp_path: Path, names: frozenset[str], kind: Kind, others: set[str]) -> None:
    assert kind_of(folder_of(tmp_path, names | others)) is kind


@pytest.mark.parametrize("names", MIXED, ids=lambda names: "+".join(sorted(names)))
def test_contradictory_declarations_are_refused(tmp_path: Path, names: set[str]) -> None:
    folder = folder_of(tmp_path / "mixed", names | set(OTHERS))
    with pytest.raises(UserError, match=r"mixed has [a-z_.]+ and (.|\n)*fix: take away"):
        kind_of(folder)
    if "config.json" in names:
        with pytest.raises(UserError, match="mixed has"):
            local_model(str(folder))
    for words in (["evaluate", str(folder), "--benchmarks", "demo"], ["export", str(folder)], ["report", str(folder)]):
        assert main(words) == 2


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"attempts": []}'])
def test_a_damaged_manifest_is_still_a_runs(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert kind_of(tmp_path) is Kind.RUN


def test_a_data_sets_manifest_is_not_a_runs(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"stages": []}')
    assert kind_of(tmp_path) is None


@pytest.mark.parametrize("kind", [Kind.CHECKPOINT, Kind.EXPORT, Kind.MODEL])
def test_what_is_no_run_is_not_taken_for_one(tmp_path: Path, kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "mine", {DECLARATION[kind], "config.json", *OTHERS})
    recipe = load("demo")
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=f"not a run directory .it has a {DECLARATION[kind]}"):
        existing_run(str(folder))
    with pytest.raises(UserError, match=f"is no run: it has a {DECLARATION[kind]}"), attempt(recipe, Run(folder)):
        pass
    for words in (["export"], ["report"], ["plan", "demo", "--from"], ["track", "--to", "tensorboard"]):
        assert main([*words, str(folder)]) == 2
        assert f"it has a {DECLARATION[kind]}" in capsys.readouterr().err
    assert main(["evaluate", "any", "--run", str(folder)]) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# --- which weights are loaded -----------------------------------------------------------------------------------------


def test_the_files_that_a_loader_reads(tmp_path: Path) -> None:
    parts = ("model-1.safetensors", "model-2.safetensors")
    for name in (*parts, "consolidated.safetensors"):
        (tmp_path / name).write_text(name)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    write_json(tmp_path / "model.safetensors.index.json", index)
    assert weights(tmp_path) == {
        name: sha256(tmp_path / name) for name in ("model-1.safetensors", "model-2.safetensors")
    }
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(UserError, match="engines differ in which of them they load"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model-2.safetensors, which its index names"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match="and no index that names the weights"):
        weight_files(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', "[" * 100_000])
def test_a_damaged_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model-1.safetensors").write_text("")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=r"index.json(:1:|:)? (not JSON|holds a list|weight_map|nested)"):
        weight_files(tmp_path)


def test_an_export_with_other_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("weights")
    there = {"model.safetensors": sha256(tmp_path / "model.safetensors")}
    for declared in (there, {"adapter_model.safetensors": "ab" * 32}):  # copied; merged
        (tmp_path / "openrs.json").write_text(json.dumps({"weights": declared}))
        assert weights(tmp_path) == there
    (tmp_path / "openrs.json").write_text(json.dumps({"weights": {"model.safetensors": "ab" * 32}}))
    with pytest.raises(UserError, match="these are not the weights that were exported"):
        weights(tmp_path)
