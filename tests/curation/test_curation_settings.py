"""Recipes: the packaged ones load and say what is whose; faults are named with file and line."""

import pytest
from curation_helpers import jsonl

from openrs.cli.main import main
from openrs.curation.settings import KINDS, RECIPES, load, packaged, to_yaml
from openrs.errors import UserError


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_recipes(name):
    recipe = load(name)
    text = (RECIPES / f"{name}.yaml").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("What is the paper's" in line for line in head)
    assert any(line.startswith("#  1. ") for line in head)
    assert len(recipe.hash) == 64
    assert load(name).hash == recipe.hash


def test_the_paper_s_figures_stand_in_them():
    assert [s.rows for s in load("open-rs").stages["draw"].strata] == [3000, 3000, 1000]
    difficulty = load("open-deepscaler").stages["difficulty"]
    assert (difficulty.model, difficulty.temperature, difficulty.top_p, difficulty.max_tokens) == (
        "Qwen/Qwen2.5-Math-7B-Instruct", 0.7, 0.9, 4096,
    )  # fmt: skip
    assert load("open-s1").stages["difficulty"].model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    assert next(iter(load("open-s1").stages)) == "boxed"
    for figure in ("59,029", "31,323", "21,533", "18,615"):
        assert figure in (RECIPES / "open-s1.yaml").read_text()
    assert all(figure in (RECIPES / "open-deepscaler.yaml").read_text() for figure in ("40,315", "21,044"))


def test_a_resolved_recipe_loads_again(tmp_path):
    recipe = load("open-deepscaler", ["stages.form=false", "seed=7"])
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert load(str(tmp_path / "r.yaml")).hash == recipe.hash
    assert "form" not in recipe.stages


def test_a_stage_may_stand_twice_under_a_name_of_its_own(tmp_path):
    recipe = load("own", ["stages.first={stage: length, max_characters: 10}"])
    assert recipe.stages["first"].max_characters == 10
    assert type(recipe.stages["first"]) is KINDS["length"]


HEAD = "title: t\nsources: {a: {path: x.jsonl}}\nstages:\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: t\nsources:\n  a:\n    path: x.jsonl\n    fiels: 3\n", "r.yaml:5: there is no setting sources.a.fi"),
        (HEAD + "  verfy: {}\n", "r.yaml:4: there is no stage verfy; did you mean verify"),
        (HEAD + "  length:\n    max_tokns: 3\n", "r.yaml:5: there is no setting stages.length.max_tokns; did you mean"),
        (HEAD + "  draw: {}\n", "r.yaml:4: stages.draw: give either rows or strata"),
        ("title: t\nsources: {a: {path: owner/name}}\n", "give its revision"),
        ("title: t\nstages: {}\n", "sources is missing"),
        (HEAD + "  form: 3\n", "r.yaml:4: the stage form is 3"),
        (HEAD + "  length: {system: '@none.txt'}\n", "none.txt cannot be read"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_line(tmp_path, text, said):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError) as raised:
        load(str(tmp_path / "r.yaml"))
    assert said in str(raised.value)


def test_names_that_are_none(tmp_path, capsys):
    assert main(["curate", "open-deepscalar"]) == 2
    assert "did you mean open-deepscaler" in capsys.readouterr().err
    assert main(["curate", "none.jsonl"]) == 2
    assert "no file none.jsonl" in capsys.readouterr().err
    path = jsonl(tmp_path / "a.jsonl", [{"problem": "What is it?", "answer": "1"}])
    assert main(["curate", str(path), "--set", "stages.length"]) == 2
    assert main(["curate", str(path), "--workers", "0"]) == 2
    assert main(["curate", str(path), "--shard", "3/2"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_goes_through_the_recipe_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = jsonl(tmp_path / "my.problems.jsonl", [{"question": "What is $2+2$ in decimal?", "answer": 4}])
    assert main(["curate", str(path), "--workers", "1", "--set", "stages.decontaminate=false"]) == 0
    assert (tmp_path / "datasets" / "my.problems" / "train.parquet").is_file()


def with_a_source(folder, name):
    (folder / "loop").symlink_to("loop")
    (folder / "own.yaml").write_text(f'title: t\nsources: {{mine: {{path: "{name}"}}}}\nstages: {{}}\n')
    return load(str(folder / "own.yaml"))


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".jsonl", "loop"])
def test_a_name_that_can_be_no_file_is_one_that_is_not_there(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_a_source(tmp_path, name).sources["mine"].path == name


@pytest.mark.parametrize("name", ["x" * 5000 + "/y", "loop/y", "a\\0b"])
def test_what_is_neither_a_file_nor_pinned_is_refused_with_the_recipes_line(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"own\.yaml:2"):
        with_a_source(tmp_path, name)
