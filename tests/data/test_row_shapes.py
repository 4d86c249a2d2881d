"""Shapes of rows that people have, and values of their cells: right, or refused by row."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrs.config.schema import Data
from openrs.data.problems import Problems, load_problems
from openrs.data.prompts import tokenize_problems
from openrs.data.shapes import as_mathematics, number_text
from openrs.errors import UserError

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}]
ASSISTANT = {"role": "assistant", "content": "So it is \\boxed{25}."}


def load(folder: Path, rows: list[Any], **data: Any) -> Problems:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_problems(Data(source=str(path), **data), judged=True)


SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"prompt": CHAT, "reward_model": {"ground_truth": "25"}}, "verl chat rows, answer from reward_model.ground_truth"),
    ({"prompt": CHAT, "solution": "$25$"}, "open-r1 chat rows, answer from solution"),
    ({"messages": [*CHAT, ASSISTANT]}, "open-r1 chat rows, answer from the last assistant turn"),
    ({"context_messages": CHAT, "label": "25"}, "OpenRLHF chat rows, answer from label"),
    ({"input": "Q?", "label": "25"}, "OpenRLHF rows, answer from label"),
    ({"question": "Q?", "answer": "5 * 5 = 25\n#### 25"}, "GSM8K rows, answer from answer"),
    ({"problem": "Q?", "solution": "So \\boxed{25}", "messages": CHAT}, "NuminaMath rows, answer from solution"),
    ({"problem": "Q?", "answer": "25"}, "text rows, answer from answer"),
    ({"prompt": json.dumps(CHAT), "answer": 25}, "chat rows, answer from answer"),
    ({"conversations": [{"from": "human", "value": "Q?"}], "answer": ["25"]}, "chat rows, answer from answer"),
    ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}], "answer": 25.0}, "chat rows"),
]


@pytest.mark.parametrize("asked", ["answer", "solution"])
@pytest.mark.parametrize(("row", "said"), SHAPES)
def test_rows_are_recognised_and_it_is_said(tmp_path: Path, row: dict[str, Any], said: str, asked: str) -> None:
    found = load(tmp_path, [row, row], answer_column=asked)
    assert [problem.problem for problem in found.rows] == ["Q?", "Q?"]
    assert found.notes[0].startswith(f"read as: {said}")
    assert "25" in found.rows[0].answer
    assert "####" not in found.rows[0].answer


def test_a_column_of_ones_own_is_never_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column gold"):
        load(tmp_path, [{"problem": "Q?", "answer": "1"}], answer_column="gold")


def test_the_system_turn_is_kept_only_where_asked(tmp_path: Path) -> None:
    from openrs.config.schema import Prompt

    class Tokenizer:
        chat_template, bos_token = "given", None

        def apply_chat_template(
            self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False, **_: Any
        ) -> str:
            turns = [f"<{turn['role']}>{turn['content']}" for turn in messages]
            return "".join(turns) + ("<assistant>" if add_generation_prompt else "")

        def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
            return {"input_ids": [[1] for _ in texts]}

    row, prompt = {"prompt": CHAT, "answer": "1"}, Prompt(system="Ours.")
    for keep, begins in ((False, "<system>Ours."), (True, "<system>Be brief.")):
        found = load(tmp_path, [row], keep_system=keep)
        assert tokenize_problems(Tokenizer(), prompt, found.rows).prompts[0] == f"{begins}<user>Q?<assistant>"


def test_several_user_turns_and_control_characters_are_said(tmp_path: Path) -> None:
    chat = [*CHAT, {"role": "assistant", "content": "a"}, {"role": "user", "content": "P \x0crac?"}]
    notes = load(tmp_path, [{"prompt": chat, "answer": "1"}]).notes
    assert any("1 chats have several user turns; the last is asked: row 0" in note for note in notes)
    assert any("1 problems hold control characters: row 0" in note for note in notes)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.0, "27"), (2.5, "2.5"), (1e-7, "10^{-7}"), (-1.5e-9, r"-1.5\times 10^{-9}"), (1e22, "1" + "0" * 22),
        (1e-5, "0.00001"), (0.0, "0"), (-0.0, "0"), (10**30, "1" + "0" * 30), (1e300, "10^{300}"),
    ],
)  # fmt: skip
def test_numbers_are_written_in_full(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("25", "$25$"), ("1e-7", "$10^{-7}$"), ("25%", "$25%$"), ("$25", "$25$"), ("$25$", "$25$"),
        (r"\boxed{25}", r"\boxed{25}"), (r"\(25\)", r"\(25\)"), (r"\frac12", r"$\frac12$"),
        ("x = 5 or x = 7", "$x = 5 or x = 7$"),
        ("The answer to this question is 25", "The answer to this question is 25"), ("5\n6", "5\n6"),
    ],
)  # fmt: skip
def test_bare_answers_become_mathematics_and_nothing_else_does(answer: str, text: str) -> None:
    assert as_mathematics(answer) == text


def test_own_rewards_and_the_papers_data_get_the_answer_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"problem": "Q?", "answer": "25"}\n')
    assert load_problems(Data(source=str(path)), judged=False).rows[0].answer == "25"
    assert load_problems(Data(source=str(path), answer_template="<{answer}>"), judged=True).rows[0].answer == "<25>"
    rows = [{"problem": "Q?", "answer": "#### 25"}]
    monkeypatch.setattr("openrs.data.problems.hub_rows", lambda *_: iter(rows))
    found = load_problems(Data(source="knoveleng/open-rs", revision="0" * 40), judged=True)
    assert (found.rows[0].answer, found.notes) == ("#### 25", [])
