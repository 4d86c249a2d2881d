"""Kinds of data files and their encodings: read alike, or refused by name with a conversion that works."""

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from openrs.config.schema import Data
from openrs.data.problem import Problem
from openrs.data.problems import load_problems
from openrs.errors import UserError

ROWS: list[dict[str, Any]] = [{"problem": "Né? 1+1", "answer": "$2$"}, {"problem": "2+2", "answer": "$4$"}]
READ = [Problem("0", "Né? 1+1", "$2$"), Problem("1", "2+2", "$4$")]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=1)
CSV = 'problem,answer\n"Né? 1+1",$2$\n2+2,$4$\n'


def read(path: Path, **data: Any) -> list[Problem]:
    return load_problems(Data(source=str(path), **data)).rows


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES.replace("\n", "\r\n")),
        ("a.json", LINES),
        ("a.json", ARRAY),
        ("a.jsonl", ARRAY),
        ("a.csv", CSV),
        ("a.csv", CSV.replace(",", ";")),
        ("a.tsv", CSV.replace(",", "\t").replace("\n", "\r\n")),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_files_of_all_kinds(tmp_path: Path, name: str, text: str, packed: str, encoding: str) -> None:
    path, content = tmp_path / f"{name}{packed}", text.encode(encoding)
    if packed == ".zst":
        with pa.output_stream(str(path), compression="zstd") as file:
            file.write(content)
    else:
        path.write_bytes(gzip.compress(content) if packed else content)
    assert read(path) == READ


def test_tables_and_folders(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    DatasetDict(test=Dataset.from_list(ROWS[:1]), train=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "both")
    assert read(tmp_path / "a.parquet") == read(tmp_path / "one") == read(tmp_path / "both") == READ
    assert read(tmp_path / "both", split="test") == READ[:1]
    with pytest.raises(UserError, match="no split valid"):
        read(tmp_path / "both", split="valid")


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("latin-1", "LATIN1")])
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", LINES), ("a.json", ARRAY), ("a.csv", CSV)])
def test_other_encodings_are_named_with_a_conversion_that_works(
    tmp_path: Path, encoding: str, said: str, name: str, text: str
) -> None:
    path = tmp_path / name
    message = refused(path, text.encode(encoding))
    assert said in message
    command = message[message.index("iconv") :].splitlines()[0]
    subprocess.run(command, shell=True, check=True)
    assert read(path.with_name(f"a.utf8{path.suffix}")) == READ


def test_other_line_ends_and_other_kinds_are_named(tmp_path: Path) -> None:
    message = refused(tmp_path / "a.jsonl", LINES.replace("\n", "\r").encode())
    assert "CR as its only line end" in message
    subprocess.run(message[message.index("tr ") :].splitlines()[0], shell=True, check=True)
    assert read(tmp_path / "a.utf8.jsonl") == READ
    assert "is gzip" in refused(tmp_path / "b.jsonl", gzip.compress(LINES.encode()))
    assert "is parquet" in refused(tmp_path / "c.csv", b"PAR1....PAR1")
    assert "cannot be read" in refused(tmp_path / "d.jsonl.gz", b"no gzip at all")
    assert "not a arrow file" in refused(tmp_path / "e.arrow", b"no arrow at all")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('problem,answer\n1,2,3\n', "a.csv:2: 3 fields, the first line names 2"),
        ('problem,answer\n"1,2\n', "a.csv:2: unexpected end of data"),
        ("problem,problem\n1,2\n", "two columns are called 'problem'"),
    ],
)  # fmt: skip
def test_broken_tables_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path / "a.csv", text.encode())


def test_a_long_cell_is_read_and_an_open_quotation_mark_still_refused(tmp_path: Path) -> None:
    """Python's csv stops at 128 KiB, whatever the cell."""
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f'problem,answer\n"{long}",$2$\n')
    assert read(tmp_path / "a.csv") == [Problem("0", long, "$2$")]
    assert "close the quotation mark" in refused(tmp_path / "b.csv", f'problem,answer\n"{long},$2$\n'.encode())
