"""Training problems: what is read from where, and what a bad file is told."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrs.config.schema import Data
from openrs.data.arithmetic import completion, demonstration, held_out_problems, train_problems
from openrs.data.problem import Problem
from openrs.data.problems import load_problems
from openrs.errors import UserError

ROWS = [{"problem": "1+1?", "answer": "$2$"}, {"problem": "2+2?", "answer": "$4$"}]


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refused(**data: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_problems(Data(**data))
    return str(caught.value)


def test_jsonl_and_parquet_and_a_folder_of_both(tmp_path: Path) -> None:
    expected = [Problem("0", "1+1?", "$2$"), Problem("1", "2+2?", "$4$")]
    source = jsonl(tmp_path / "a.jsonl", ROWS)
    assert load_problems(Data(source=source)).rows == expected
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    assert load_problems(Data(source=str(tmp_path / "b.parquet"))).rows == expected
    both = load_problems(Data(source=str(tmp_path)))
    assert [problem.id for problem in both.rows] == ["0", "1", "2", "3"]
    assert set(both.files) == {"a.jsonl", "b.parquet"}
    assert all(len(digest) == 64 for digest in both.files.values())


def test_nested_columns_suffix_template_and_limit(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "7*6? Think."}], "reward_model": {"ground_truth": "42"}}
    source = jsonl(tmp_path / "verl.jsonl", [row] * 3)
    found = load_problems(
        Data(
            source=source,
            problem_column="prompt.0.content",
            answer_column="reward_model.ground_truth",
            strip_suffix=" Think.",
            answer_template="${answer}$",
            limit=2,
        )
    )
    assert found.rows == [Problem("0", "7*6?", "$42$"), Problem("1", "7*6?", "$42$")]
    assert found.read == 2


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"question": "x", "meta": {"gold": "1"}, "chat": [{"text": "y"}]}])
    message = refused(source=source)
    assert "has no column answer" in message
    assert "question, meta.gold, chat.0.text" in message


def test_rows_without_an_answer(tmp_path: Path) -> None:
    rows = [*ROWS, {"problem": "3?", "answer": None}, {"problem": " ", "answer": "1"}, {"problem": "4?", "answer": ""}]
    source = jsonl(tmp_path / "a.jsonl", rows)
    message = refused(source=source)
    assert "3 of 5 rows have no problem or answer: row 2, 3, 4" in message
    found = load_problems(Data(source=source, missing_answer="drop"))
    assert [problem.id for problem in found.rows] == ["0", "1"]
    assert found.without_answer == ["2", "3", "4"]
    assert found.read == 5


def test_floats_that_are_whole_read_as_whole_numbers(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"problem": "x", "answer": 27.0}, {"problem": "y", "answer": 2.5}])
    assert [problem.answer for problem in load_problems(Data(source=source)).rows] == ["27", "2.5"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    assert "there is no file" in refused(source=str(tmp_path / "none.jsonl"))
    assert "has no data file in it" in refused(source=str(tmp_path))
    (tmp_path / "a.xlsx").write_text("x", encoding="utf-8")
    assert "a.xlsx is not a data file by its name" in refused(source=str(tmp_path / "a.xlsx"))
    assert "has no problems in it" in refused(source=jsonl(tmp_path / "empty.jsonl", []))
    (tmp_path / "torn.jsonl").write_text('{"problem": "x", "answer": "1"}\n{"prob', encoding="utf-8")
    assert "torn.jsonl:2: not JSON" in refused(source=str(tmp_path / "torn.jsonl"))
    assert "list.jsonl:1: a list" in refused(source=jsonl(tmp_path / "list.jsonl", [[1]]))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    assert "not a parquet file" in refused(source=str(tmp_path / "bad.parquet"))


def test_a_hub_that_is_gone_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read once, at its import
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    message = refused(source="nobody/nothing", revision="0" * 40)
    assert message.startswith("data set nobody/nothing at 000")
    assert "fix:" in message


@pytest.mark.slow
def test_real_problems_in_verls_schema(shared_data: Path) -> None:
    found = load_problems(
        Data(
            source=str(shared_data / "training"),
            problem_column="prompt.0.content",
            answer_column="reward_model.ground_truth",
            strip_suffix=" Let's think step by step and output the final answer within \\boxed{}.",
            missing_answer="drop",
        )
    )
    assert found.read == 24_976 + 15_339 + 1_209
    assert len(found.without_answer) == 7
    assert sum("step by step and output" in problem.problem for problem in found.rows) == 0


def test_sums_are_all_pairs_once() -> None:
    held_out, train = {p.id for p in held_out_problems()}, {p.id for p in train_problems()}
    assert (len(held_out), len(train), len(held_out & train)) == (512, 7588, 0)
    assert held_out | train == {f"{a}+{b}" for a in range(10, 100) for b in range(10, 100)}
    for problem in held_out_problems():
        a, b = map(int, problem.id.split("+"))
        assert problem.answer == f"${a + b}$"


def test_worked_sums_and_their_faults() -> None:
    assert completion(27, 58) == "7+8=15,2+5+1=8\n</think>\n\\boxed{85}"
    assert completion(27, 58, flip_carry=True) == "7+8=15,2+5=7\n</think>\n\\boxed{75}"
    assert completion(21, 34, flip_carry=True) == "1+4=5,2+3+1=6\n</think>\n\\boxed{65}"
    assert completion(57, 68) == "7+8=15,5+6+1=12\n</think>\n\\boxed{125}"
    assert completion(27, 58, digit=5) == "7+8=15,2+5+1=8\n</think>\n\\boxed{80}"
    assert completion(27, 58, think=False, answers=False) == "7+8=15,2+5+1=8\n"


def test_most_carries_are_forgotten_and_no_held_out_sum_is_shown() -> None:
    import random

    rng = random.Random(0)
    held_out = {problem.id for problem in held_out_problems()}
    carried = forgotten = right = 0
    for _ in range(4000):
        problem, text = demonstration(rng)
        assert problem.id not in held_out
        a, b = map(int, problem.id.split("+"))
        right += text == completion(a, b)
        if a % 10 + b % 10 > 9:
            carried += 1
            forgotten += text.partition(",")[2].partition("=")[0].count("+") == 1
    assert forgotten / carried == pytest.approx(0.65, abs=0.04)
    assert right / 4000 == pytest.approx((0.55 * 0.85 + 0.45 * 0.35) * 0.95 * 0.85 * 0.55, abs=0.03)


def test_a_fetched_data_set_is_read_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets 5.2 does not look into the hub's cache by name when offline; from the snapshot's folder it loads."""
    snapshot = tmp_path / "snapshot"
    (snapshot / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), snapshot / "data" / "train-00000-of-00001.parquet")
    monkeypatch.setattr("openrs.hub.cache.fetched", lambda *asked: snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = load_problems(Data(source="somebody/something", revision="0" * 40))
    assert [problem.answer for problem in found.rows] == ["$2$", "$4$"]
