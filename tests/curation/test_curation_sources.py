"""Raw rows: every schema that is about, and rows that are broken in every way: by line, and none stops the rest."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import SUFFIX, jsonl, kept, openrs, recipe, removed

from openrs.curation.settings import Curation, Source
from openrs.curation.sources import Reader
from openrs.errors import UserError
from openrs.run.directory import Lock, Run
from openrs.run.files import LONGEST_LINE


def read(path, **settings):
    stages = settings.pop("stages", {})
    reader = Reader(Curation(title="t", sources={"raw": Source(path=str(path), **settings)}, stages=stages))
    return list(reader.rows()), reader


def test_broken_lines_are_named_and_the_rest_goes_on(tmp_path):
    good = b'{"problem": "What is 1+1?", "answer": "2"}\n'
    lines = [
        (good, ""),
        (b'{"problem": "a\x00b", "answer": "2"}\n', "not readable"),
        (b'{"problem": "a\\u0000b", "answer": "2"}\n', "a NUL byte"),
        (json.dumps({"problem": "x" * 2**20, "answer": "2"}).encode() + b"\n", "too long"),
        (b'{"problem": "What is 2+2?"}\n', "no answer"),
        (b'{"problem": "What is 2+2?", "answer": null}\n', "no answer"),
        (b'{"problem": "What is 2+2?", "answer": " "}\n', "no answer"),
        (b'{"answer": "2"}\n', "no problem"),
        (b'{"problem": ["a"], "answer": {"b": 1}}\n', "wrong type"),
        (b'{"problem": 7, "answer": "2"}\n', "wrong type"),
        (b'{"problem": "q", "answer": true}\n', "wrong type"),
        (b'{"problem": "q", "answer": NaN}\n', "wrong type"),
        (b'{"problem": "\xff\xfe", "answer": "2"}\n', "not readable"),
        (b'{"problem": "\\ud800", "answer": "2"}\n', "half a character"),
        (b'{"problem": "$\\frac{1}{2}$", "answer": "2"}\n', "a control character"),
        (b'{"problem": "q", "answer": "2"\n', "not readable"),
        (b"[1, 2]\n", "not readable"),
        (b"[" * 100_000 + b"\n", "not readable"),
        (b"x" * (LONGEST_LINE + 10) + b"\n", "not readable"),
        (b'{"problem": "Last?", "answer": 3}', ""),
    ]  # fmt: skip
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b"".join(line for line, _ in lines))
    rows, _ = read(path)
    assert [one.reason for one in rows] == [reason for _, reason in lines]
    assert [one.row.place for one in rows] == [f"raw.jsonl:{n}" for n in range(1, len(lines) + 1)]
    assert [one.row.number for one in rows] == list(range(len(lines)))
    assert rows[-1].row.answer == "3"
    assert "byte" in rows[1].detail
    assert "1,048,576" in rows[3].detail
    assert all(len(one.row.problem) <= 2000 for one in rows)


def test_broken_rows_of_parquet(tmp_path):
    texts = pa.array([b"fine one", b"bad \xff", b"nul \x00 in it", b"fine two"], pa.binary()).view(pa.string())
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table({"problem": texts, "answer": pa.array(["1", "2", "3", None])}), path)
    rows, _ = read(path)
    assert [(one.row.place, one.reason) for one in rows] == [
        ("raw.parquet:1", ""), ("raw.parquet:2", "not readable"), ("raw.parquet:3", "a NUL byte"),
        ("raw.parquet:4", "no answer"),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_whole_chain_survives_them(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(
        b'{"problem": "What is 1+1? Give a number.", "answer": "2"}\n{"problem": "\x00"\n{"problem": "<b>\xff"}\n'
        b'{"a": 1}\n'
        + json.dumps({"problem": "y" * 2**20, "answer": "|`<script>"}).encode()
        + b'\n{"problem": "What is 2+3? Give a number.", "answer": "5"}\n'
    )
    ran = openrs("curate", path, "--out", tmp_path / "out", "--workers", "1", "--set", "stages.decontaminate=false")
    said, _ = ran.communicate()
    assert ran.returncode == 0, said
    assert [r["answer"] for r in kept(tmp_path / "out")] == ["2", "5"]
    assert [(r["place"], r["reason"]) for r in removed(tmp_path / "out")] == [
        ("raw.jsonl:2", "not readable"), ("raw.jsonl:3", "not readable"), ("raw.jsonl:4", "no problem"),
        ("raw.jsonl:5", "too long"),
    ]  # fmt: skip
    assert "<script>" not in (tmp_path / "out" / "README.md").read_text().replace("`¦'<script>`", "")


def test_schemas(tmp_path):
    verl = {"prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Q?" + SUFFIX}],
            "reward_model": {"ground_truth": "4"}}  # fmt: skip
    rows, _ = read(jsonl(tmp_path / "verl.jsonl", [verl]), strip_suffix=SUFFIX)
    assert (rows[0].row.problem, rows[0].row.answer) == ("Q?", "4")
    rows, _ = read(jsonl(tmp_path / "b.jsonl", [{"question": "Q?", "final_answer": ["$4$"]}]))
    assert (rows[0].row.problem, rows[0].row.answer) == ("Q?", "$4$")
    rows, _ = read(jsonl(tmp_path / "c.jsonl", [{"x": {"y": ["Q?"]}, "z": 27.0}]), problem="x.y.0", answer="z")
    assert (rows[0].row.problem, rows[0].row.answer) == ("Q?", "27")
    given = [{"problem": f"Q{n}?", "answer": "1", "kind": n % 2, "level": 3} for n in range(6)]
    rows, reader = read(jsonl(tmp_path / "d.jsonl", given), where={"kind": 1}, limit=2)
    assert [(one.row.id, one.row.problem, one.row.level) for one in rows] == [
        ("raw/0", "Q1?", "3"),
        ("raw/1", "Q3?", "3"),
    ]
    assert reader.counts == {"raw": 2}


@pytest.mark.parametrize(
    ("rows", "said"),
    [([{"q": "x", "answer": "1"}], "its columns: q, answer"), ([], "has no rows")],
)
def test_a_source_without_problems_is_refused(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        read(jsonl(tmp_path / "raw.jsonl", rows))


def test_files_that_are_none(tmp_path):
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and nothing more")
    for path, said in (("none.jsonl", "no file"), ("half.parquet", "not a parquet file"), ("", "has no data file")):
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        with pytest.raises(UserError, match=said):
            read(tmp_path / path if path else folder)


def test_a_hub_set_needs_its_revision(tmp_path):
    ran = openrs("curate", recipe(tmp_path / "r.yaml", "owner/name", {}))
    said, _ = ran.communicate()
    assert ran.returncode == 2
    assert "give its revision" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_all_raw_rows_are_read(shared_data):
    paths = [str(shared_data / "training" / f"deepscaler_part{n}.parquet") for n in (1, 2)]
    rows, _ = read(paths[0], answer="reward_model.ground_truth", strip_suffix=SUFFIX)
    more, _ = read(paths[1], answer="reward_model.ground_truth", strip_suffix=SUFFIX)
    everything = [*rows, *more]
    assert len(everything) == 40_315
    assert len({one.row.problem for one in everything}) == 39_387
    assert sum(one.reason == "no answer" for one in everything) == 6
    assert sum(one.reason == "a control character" for one in everything) == 38
    assert sum(not one.reason for one in everything) == 40_271


def test_a_chain_that_leaves_no_row_is_refused_with_the_reason(tmp_path):
    path = jsonl(tmp_path / "raw.jsonl", [{"problem": "What is 1+1? Give a number.", "answer": "2"}])
    stages = ("stages.decontaminate=false", "stages.verify=false", "stages.length.min_characters=500")
    words = [word for stage in stages for word in ("--set", stage)]
    ran = openrs("curate", path, "--out", tmp_path / "out", "--workers", "1", *words)
    said, _ = ran.communicate()
    assert ran.returncode == 2
    assert "no row is left" in said
    assert "length took the last 1: too short (1)" in said
    assert [r["reason"] for r in removed(tmp_path / "out")] == ["too short"]


def test_a_folder_in_use_is_named_by_its_own_option(tmp_path):
    with Lock(Run(tmp_path), "--out"), pytest.raises(UserError, match="give another --out"):
        Lock(Run(tmp_path), "--out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        Lock(Run(tmp_path / "file" / "out"), "--out")


def test_chats_end_with_a_solution_and_gsm8k_with_its_answer(tmp_path):
    chat = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "So \\boxed{4}."}]
    rows, reader = read(jsonl(tmp_path / "chats.jsonl", [{"messages": chat, "answer": "4"}]))
    assert (rows[0].row.problem, rows[0].row.solution, rows[0].row.answer) == ("Q?", "So \\boxed{4}.", "4")
    assert list(reader.read_as()) == ["raw: read as: chat rows, answer from answer"]
    rows, reader = read(jsonl(tmp_path / "gsm8k.jsonl", [{"question": "Q?", "answer": "2 + 2 = 4\n#### 4"}]))
    assert rows[0].row.answer == "4"
    assert list(reader.read_as()) == ["raw: read as: GSM8K rows, answer from answer"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"problem": "é", "answer": "1"}\n'.encode("utf-16"), "is UTF-16"),
        ('{"problem": "é", "answer": "1"}\n'.encode("latin-1"), "Latin-1"),
        (b'{"problem": "1", "answer": "1"}\r{"problem": "2", "answer": "2"}\r', "CR as its only line end"),
        (b"no json\n", "no row of .*can be read: not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_blamed_on_a_column(tmp_path, content, said):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read(path)
    path.write_bytes(b'[{"problem": "1", "answer": "1"}]')
    assert [one.row.answer for one in read(path)[0]] == ["1"]
