"""`openrs recipe new`: what it writes can be trained, and holds what was found in the model and the data."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from openrs import new_recipe
from openrs.cli.main import main
from openrs.config.load import load
from openrs.data.problem import Problem
from openrs.data.problems import Problems
from openrs.errors import UserError
from openrs.evaluation.benchmarks import load_problems, resolve
from openrs.run.libraries import NOT_FOR_TOKENIZERS
from openrs.training.references import problems_of

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
ROWS = {
    "problem and answer": lambda n: {"problem": f"What is {n}+{n}?", "answer": str(2 * n)},
    "nested answer": lambda n: {
        "question": f"Add {n} and 1",
        "reward_model": {"ground_truth": f"${n + 1}$"},
    },
}
READ_AS = {"problem and answer": "answer from answer", "nested answer": "answer from reward_model.ground_truth"}


@pytest.mark.parametrize(("rows", "base"), [("problem and answer", "own"), ("nested answer", "exp3")])
def test_the_file_says_what_was_found(
    rows: str,
    base: str,
    made_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made_model, "model")
    template = Path("model/chat_template.jinja")
    template.write_text(NO_SYSTEM + template.read_text())
    Path("my.jsonl").write_text("".join(json.dumps(ROWS[rows](n)) + "\n" for n in range(10, 90)))
    assert main(["recipe", "new", "mine.yaml", "--model", "model", "--data", "my.jsonl", "--from", base]) == 0
    said = capsys.readouterr().out
    assert "prompt of row 0:" in said
    assert "openrs plan mine.yaml:" in said
    assert "at most" in said.partition("openrs plan mine.yaml:")[2]
    text, recipe = Path("mine.yaml").read_text(), load("mine.yaml")
    assert READ_AS[rows] in text
    assert (recipe.model.name, recipe.model.revision, recipe.model.context) == ("model", None, 4096)
    assert recipe.prompt.system is None
    assert ("the template takes none" in text) == (base == "exp3")
    assert "one BOS in front" in text
    assert "the judge can use 80 of 80 reference answers" in text
    assert "stored as float32" in text
    assert main(["train", "mine.yaml", "--dry-run"]) == 0


def test_long_prompts_get_a_longer_engine(
    made_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made_model, "model")
    config = json.loads(Path("model/config.json").read_text()) | {"max_position_embeddings": 32768}
    Path("model/config.json").write_text(json.dumps(config))
    template = Path("model/chat_template.jinja")
    template.write_text(NO_SYSTEM + template.read_text())
    Path("my.jsonl").write_text(json.dumps({"problem": "1+1? " * 400, "answer": "2"}) + "\n")
    words = ["recipe", "new", "mine.yaml", "--model", "model", "--data", "my.jsonl"]
    assert main([*words, "--from", "exp3"]) == 0, capsys.readouterr().err
    recipe = load("mine.yaml")
    assert recipe.grpo["vllm_max_model_length"] == recipe.prompt.max_tokens + 3584 > 4608


@pytest.mark.parametrize("name", ["my ünit, {a}: #1.yaml", "🧮.yaml", "-x.yml", "sub/mine.yaml"])
def test_whatever_the_file_is_called_its_benchmark_and_its_data_are_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    odd = ["What is 1+1?", " what  is 1+1?\n", "WHAT IS 1+1?", "What is 2+2?", "What is 3+3?"]
    Path("🧮.jsonl").write_text("".join(json.dumps({"problem": text, "answer": "2"}) + "\n" for text in odd))
    start = load("own", ["model.name=.", "data.source='🧮.jsonl'"])
    texts, settings = new_recipe._split(Path(name), start, 2)
    for path, text in texts.items():
        path.write_text(text)
    recipe = load("own", ["model.name=.", *settings])
    (benchmark,) = resolve(recipe.evaluation.benchmarks)
    measured = load_problems(benchmark, Path(recipe.evaluation.data or ""))
    trained = {" ".join(one.problem.lower().split()) for one in problems_of(recipe).rows}
    assert trained | {one.question.strip().lower() for one in measured} >= {"what is 2+2?", "what is 3+3?"}
    assert trained & {" ".join(one.question.lower().split()) for one in measured} == set()
    with pytest.raises(UserError, match="has 3 different problems"):
        new_recipe._split(Path("other.yaml"), start, 3)


def test_a_refused_try_leaves_nothing_and_no_try_imports_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer is refused after the problems are parted."""
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text("{}")
    Path("my.jsonl").write_text("".join(json.dumps({"problem": f"{n}+1?", "answer": "2"}) + "\n" for n in range(9)))
    before, torch_there = sorted(Path().iterdir()), []

    def refuse(*_: object, **__: object) -> None:
        torch_there.append(find_spec("torch") is not None)
        raise UserError("no tokenizer")

    monkeypatch.setattr(new_recipe, "load_tokenizer", refuse)
    for name in ("transformers", *NOT_FOR_TOKENIZERS):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for _ in range(2):
        assert main(["recipe", "new", "mine.yaml", "--model", ".", "--data", "my.jsonl", "--hold-out", "3"]) == 2
        assert sorted(Path().iterdir()) == before
    assert torch_there == [False, False]
    assert sys.modules.get("torch", ...) is ...


def test_nothing_is_overwritten(made_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: kept\n")
    assert main(["recipe", "new", str(file), "--model", str(made_model), "--data", "none.jsonl"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == "title: kept\n"


@pytest.mark.parametrize("commit", [None, "a" * 40])
def test_a_data_set_of_the_hub_is_pinned_to_what_was_fetched(
    commit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_recipe.cache, "locked_commit", lambda _: commit)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}')
    problems = Problems([Problem("0", "What is 1+1?", "2")], 1)
    look = new_recipe.Look("no BOS token", None, problems, [10], [(True, "read as 2")])
    start = load("own", ["model.name=./model", "data.source=owner/set", "data.allow_unpinned=true"])
    (tmp_path / "mine.yaml").write_text("\n".join(new_recipe._lines("own", start, tmp_path, look)))
    data = load(str(tmp_path / "mine.yaml")).data
    assert (data.revision, data.allow_unpinned) == (commit, commit is None)


def test_problems_held_out_are_measured_as_training_asks_them_and_not_trained_on(
    made_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made_model, "model")
    rows = [{"frage": f"What is {{{n % 30}}}+1?", "antwort": str(n % 30 + 1)} for n in range(40)]
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["recipe", "new", "mine.yaml", "--model", "model", "--data", "my.jsonl", "--hold-out"]
    assert main([*words, "10"]) == 2
    assert "--problem and --answer" in capsys.readouterr().err
    words[3:3] = ["--problem", "frage", "--answer", "antwort"]
    assert main([*words, "30"]) == 2
    assert "has 30 different problems" in capsys.readouterr().err
    assert list(Path().glob("mine*")) == []
    assert main([*words, "10"]) == 0, capsys.readouterr().err
    assert "next: openrs train mine.yaml --dry-run, then openrs reproduce mine.yaml" in capsys.readouterr().out

    recipe = load("mine.yaml")
    trained = problems_of(recipe).rows
    (benchmark,) = resolve(recipe.evaluation.benchmarks)
    measured = load_problems(benchmark, Path(recipe.evaluation.data or ""))
    assert len(measured) == 10
    assert {one.problem for one in trained} | {one.question for one in measured} == {row["frage"] for row in rows}
    assert {one.problem for one in trained} & {one.question for one in measured} == set()
    for one in measured:
        assert one.prompt == recipe.prompt.user.replace("{problem}", one.question)
    answers = {row["frage"]: f"${row['antwort']}$" for row in rows}
    assert {one.problem: one.answer for one in trained} | {one.question: one.gold for one in measured} == answers

    assert main(["recipe", "new", "other.yaml", *words[3:-1]]) == 0
    assert load("other.yaml").data.problem_column == "frage"

    Path("mine.yaml").unlink()
    assert main([*words, "10"]) == 2
    assert "mine-train.jsonl is there already" in capsys.readouterr().err
