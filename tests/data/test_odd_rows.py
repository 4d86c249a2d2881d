"""Rows of odd types, shapes, encodings and nesting, by hypothesis: right, or refused by the file's name."""

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrs.config.schema import Data
from openrs.data.problem import Problem
from openrs.data.problems import load_problems
from openrs.errors import UserError
from openrs.rewards.grading import Item, Judge, Rule, Verdict

GOOD = ("What is a + b, né?", 7)
TEXTS = st.text(st.characters(exclude_characters="[#"), max_size=12)  # lists in a text, and GSM8K's mark, are below
NUMBERS = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([1e-7, 1e22, 27.0])
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
)
GOOD_TEXTS = st.text(st.characters(exclude_characters="[#", exclude_categories=["Cc", "Cs"]), max_size=12).map(
    lambda text: text if text.strip() else "né"
)
GOOD_ANSWERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | GOOD_TEXTS
GOOD_ANSWERS |= GOOD_ANSWERS.map(lambda answer: [answer]) | GOOD_ANSWERS.map(lambda answer: [[answer]])
BROKEN = [
    b"[1]", b"7", b"null", b'"a"', b"{", b"\xff", b'{"problem": "\xff"}', b"[" * 20_000, b"\0", b'{"a": ' * 3_000,
]  # fmt: skip
COLUMNS = [
    ("problem", "answer"),
    ("question", "answer"),
    ("prompt", "ground_truth"),
    ("messages", "label"),
    ("prompt", ""),
]
OTHER_ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]


def row(names: tuple[str, str], question: Any, answer: Any, *, chat: bool) -> dict[str, Any]:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}] if chat else question
    return {"extra": {"x": [1]}, names[0]: asked} | (
        {names[1]: answer} if names[1] else {"reward_model": {"ground_truth": answer}}
    )


@st.composite
def files(draw: st.DrawFn, *, readable: bool) -> tuple[str, bytes, list[tuple[Any, Any]]]:
    """A file's name and bytes, and what is asked and answered in it. Not readable: what no reader may take."""
    kind = "" if readable else draw(st.sampled_from(["question", "answer", "line", "encoding"]))
    question = VALUES.filter(lambda value: not is_question(value)) if kind == "question" else GOOD_TEXTS
    answer = VALUES.filter(lambda value: not is_answer(value)) if kind == "answer" else GOOD_ANSWERS
    place, names, chat = draw(st.integers(0, 2)), draw(st.sampled_from(COLUMNS)), draw(st.booleans())
    pairs: list[tuple[Any, Any]] = [GOOD, GOOD, GOOD]
    pairs[place] = (draw(question), draw(answer))
    ascii_only = draw(st.booleans()) and kind != "encoding"
    texts = [json.dumps(row(names, *pair, chat=chat), ensure_ascii=ascii_only) for pair in pairs]
    lines = [text.encode("utf-8", "surrogatepass") for text in texts]
    if kind == "line":
        lines[place] = draw(st.sampled_from(BROKEN))
    content = b"[" + b",\n".join(lines) + b"]" if draw(st.booleans()) else b"\n".join(lines) + b"\n"
    if kind == "encoding":
        content = content.decode().encode(draw(st.sampled_from(OTHER_ENCODINGS)), "replace")
    elif draw(st.booleans()):
        content = b"\xef\xbb\xbf" + content
    packed = draw(st.booleans())
    name = draw(st.sampled_from(["odd.jsonl", "odd.json"])) + (".gz" if packed else "")
    return name, gzip.compress(content) if packed else content, pairs


def is_question(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\0\ud800-\udfff]", value)


def is_answer(value: Any) -> bool:
    value = unwrapped(value)
    if isinstance(value, str):
        return bool(value.strip()) and not re.search("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", value)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unwrapped(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def check(problem: Problem, question: Any, answer: Any) -> None:
    assert problem.problem == question
    text, value = problem.answer.strip().strip("$"), unwrapped(answer)
    if isinstance(value, int):
        assert text == str(value)
    elif isinstance(value, float):  # full digits, or a power of ten
        assert "e" not in text.replace(r"\times", "")
        assert float(re.sub("[{}]", "", text.replace(r"\times 10^", "e").replace("10^", "1e"))) == value
    else:
        assert text == value.strip().strip("$")


def outcome(path: Path) -> list[Problem] | str:
    """The problems, or the message that refuses them."""
    try:
        return load_problems(Data(source=str(path)), judged=True).rows
    except UserError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("readable", [True, False])
def test_odd_rows_are_right_or_refused_by_name(readable: bool, tmp_path: Path) -> None:
    @settings(max_examples=40, derandomize=True, database=None, deadline=None)
    @given(files(readable=readable))
    def right_or_refused(file: tuple[str, bytes, list[tuple[Any, Any]]]) -> None:
        name, content, pairs = file
        (tmp_path / name).write_bytes(content)
        found = outcome(tmp_path / name)
        if not readable:
            assert isinstance(found, str), f"taken as {found}"
            assert name in found, found
            return
        assert not isinstance(found, str), f"refused: {found}"
        for problem, (question, answer) in zip(found, pairs, strict=True):
            check(problem, question, answer)

    right_or_refused()


@pytest.mark.slow
def test_a_number_however_it_is_dressed_is_the_number_to_the_judge(tmp_path: Path) -> None:
    dressed = [
        25, 25.0, "25", ["25"], [25], [["25"]], "#### 25", " 25 ", "a\n#### 25", "$25$", r"\boxed{25}", '["25"]',
    ]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"problem": "Q?", "answer": value}) + "\n" for value in dressed))
    golds = [problem.answer for problem in load_problems(Data(source=str(path)), judged=True).rows]
    items = [Item(gold, rf"\boxed{{{25 + d}}}", Rule.PAPER) for gold in golds for d in (0, 1)]
    with Judge(1) as judge:
        verdicts = [grade.verdict for grade in judge.grade(items)]
    assert verdicts == [Verdict.CORRECT, Verdict.INCORRECT] * len(dressed)
