"""Prompts: the exact ids, and what happens to long ones."""

from pathlib import Path

import pytest

from openrs.config.load import load
from openrs.config.schema import Prompt
from openrs.data.problem import Problem
from openrs.data.prompts import render, tokenize, tokenize_problems
from openrs.data.tokenizer import load_tokenizer
from openrs.errors import UserError
from openrs.training.demo_model import make_tokenizer

BOS, USER, ASSISTANT = 151646, 151644, 151645


def problems(*texts: str) -> list[Problem]:
    return [Problem(str(i), text, "1") for i, text in enumerate(texts)]


@pytest.mark.slow
def test_the_papers_training_prompt(shared_data: Path) -> None:
    """paper.md section 1: <BOS>{train_system}<|User|>{problem}<|Assistant|><think>\\n, one BOS, doubled braces kept."""
    tokenizer = load_tokenizer(shared_data / "tokenizer")
    prompt = load("exp3").prompt
    text = render(tokenizer, prompt, "What is $1+1$?")
    assert text == (f"<｜begin▁of▁sentence｜>{prompt.system}<｜User｜>What is $1+1$?<｜Assistant｜><think>\n")
    assert "\\boxed{{}}" in text
    assert text.count("NOT use other languages.<｜User｜>") == 1
    (ids,) = tokenize(tokenizer, prompt, [text])
    assert ids.count(BOS) == 1
    assert ids[0] == BOS
    assert (ids.count(USER), ids.count(ASSISTANT)) == (1, 1)
    assert tokenizer.decode(ids) == text
    (twice,) = tokenize(tokenizer, prompt.model_copy(update={"double_bos": True}), [text])
    assert twice == [BOS, *ids]


def lengths_of_real_prompts(shared_data: Path, every: int) -> list[int]:
    """Sorted, of every so-manieth row."""
    recipe = load(
        "exp3",
        [
            f"data.source={shared_data / 'training' / 'deepscaler_part1.parquet'}",
            "data.problem_column=prompt.0.content",
            "data.answer_column=prompt.0.role",  # six rows have no answer; their prompts count here too
        ],
    )
    from openrs.data.problems import load_problems

    suffix = " Let's think step by step and output the final answer within \\boxed{}."
    rows = []
    for part in (1, 2):
        data = recipe.data.model_copy(
            update={"source": str(shared_data / "training" / f"deepscaler_part{part}.parquet"), "strip_suffix": suffix}
        )
        rows += load_problems(data).rows
    tokenizer = load_tokenizer(shared_data / "tokenizer")
    found = tokenize_problems(tokenizer, recipe.prompt.model_copy(update={"max_tokens": 10_000}), rows[::every])
    return sorted(len(ids) for ids in found.ids)


@pytest.mark.slow
def test_a_twentieth_of_the_real_prompts_has_about_the_known_lengths(shared_data: Path) -> None:
    lengths = lengths_of_real_prompts(shared_data, 20)
    assert len(lengths) == 2016
    assert 5 <= sum(length > 512 for length in lengths) <= 20
    assert lengths[len(lengths) // 2] == pytest.approx(172, abs=5)
    assert sum(lengths) / len(lengths) == pytest.approx(187, abs=5)


@pytest.mark.soak
def test_real_prompts_have_the_known_lengths(shared_data: Path) -> None:
    """paper.md section 2: 187 tokens on average, median 172, 205 longer than 512, longest 3,404."""
    lengths = lengths_of_real_prompts(shared_data, 1)
    assert len(lengths) == 40_315
    assert sum(length > 512 for length in lengths) == 205
    assert lengths[-1] == 3404
    assert lengths[len(lengths) // 2] == 172
    assert sum(lengths) / len(lengths) == pytest.approx(187, abs=0.5)


def test_long_prompts_are_refused_dropped_or_cut() -> None:
    tokenizer = make_tokenizer()
    rows = problems("short", "x" * 50)
    prompt = Prompt(max_tokens=20, too_long="drop")
    dropped = tokenize_problems(tokenizer, prompt, rows)
    assert [problem.id for problem in dropped.problems] == ["0"]
    assert dropped.too_long == ["1"]
    cut = tokenize_problems(tokenizer, prompt.model_copy(update={"too_long": "truncate_left"}), rows)
    assert [len(ids) for ids in cut.ids] == [10, 20]
    assert cut.too_long == ["1"]
    whole = tokenize(tokenizer, prompt, [cut.prompts[1]])[0]
    assert cut.ids[1] == whole[-20:]
    with pytest.raises(UserError, match=r"1 prompts exceed prompt.max_tokens = 20 \(problems 1\)"):
        tokenize_problems(tokenizer, prompt.model_copy(update={"too_long": "refuse"}), rows)
    with pytest.raises(UserError, match="every prompt is longer"):
        tokenize_problems(tokenizer, Prompt(max_tokens=3, too_long="drop"), rows)


def test_a_tokenizer_without_a_chat_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        render(tokenizer, Prompt(), "x")
    own = Prompt(chat_template="Q: {{ messages[-1].content }} A:")
    assert render(tokenizer, own, "x") == "Q: x A:"


def test_braces_in_a_problem_stay() -> None:
    assert "{problem} {x}" in render(make_tokenizer(), Prompt(), "{problem} {x}")
