"""A dry run shows the first prompts; training and dry run refuse a template that spoils them, before step 1."""

import json
import re
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.config.load import load
from openrs.data.prompts import render, tokenize
from openrs.data.tokenizer import load_tokenizer
from openrs.errors import UserError
from openrs.run.directory import Run
from openrs.run.progress import Progress
from openrs.training import train as grpo

IGNORES = "{{ bos_token }}Hello{% if add_generation_prompt %} Assistant:{% endif %}"


@pytest.fixture
def own(made_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides that make the demo a recipe of an own model and own data."""
    monkeypatch.chdir(tmp_path)
    rows = [{"problem": f"What is {n}+{n}?", "answer": f"${2 * n}$"} for n in range(40, 60)]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["model.toy=null", f"model.name={made_model}", "data.source=sums.jsonl"]


def test_a_dry_run_shows_two_prompts_with_their_tokens_and_references(
    own: list[str], made_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "demo", "--dry-run", *[word for change in own for word in ("--set", change)]]) == 0
    shown = re.findall(
        r"prompt of row (\d+): (\d+) tokens\n((?:  \| .*\n)+)  reference answer: (.*)\n", capsys.readouterr().out
    )
    tokenizer, recipe = load_tokenizer(made_model), load("demo", own)
    assert [(row, answer) for row, _, _, answer in shown] == [("0", "$80$; read as 80"), ("1", "$82$; read as 82")]
    for (_, count, body, _), problem in zip(shown, ("What is 40+40?", "What is 41+41?"), strict=True):
        text = render(tokenizer, recipe.prompt, problem)
        assert body.replace("  | ", "")[:-1] == text
        assert int(count) == len(tokenize(tokenizer, recipe.prompt, [text])[0])


def test_a_dry_run_looks_behind_rows_that_training_drops(own: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": f"What is {n}+{n}?", "answer": "" if n < 43 else f"${2 * n}$"} for n in range(40, 60)]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [*own, "data.missing_answer=drop"]
    assert main(["train", "demo", "--dry-run", *[word for change in changes for word in ("--set", change)]]) == 0
    assert re.findall(r"prompt of row (\d+)", capsys.readouterr().out) == ["3", "4"]


def test_training_and_its_dry_run_refuse_a_template_that_spoils_prompts(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [*own, f"prompt.chat_template={json.dumps(IGNORES)}"]
    assert main(["train", "demo", "--dry-run", *[word for change in changes for word in ("--set", change)]]) == 2
    assert "prompt.chat_template leaves the problem out" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"leaves the problem out.*(\n.*)*Hello Assistant:"):
        grpo.prepare(load("demo", changes), Run(tmp_path / "run"), Progress())


@pytest.mark.parametrize(
    ("change", "why"), [("data.source=none.jsonl", "no file"), ("model.name=./none", "no model folder")]
)
def test_a_dry_run_without_model_or_data_says_why_it_shows_no_prompt(
    own: list[str], change: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "demo", "--dry-run", *[word for one in (*own, change) for word in ("--set", one)]]) == 0
    assert f"first prompts: not shown, because there is {why}" in capsys.readouterr().out
