"""One reader of JSONL under four policies: a journal, a data file, evidence for the report, raw rows of a curation."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrs.curation.settings import Source
from openrs.curation.sources import _raw
from openrs.data.rows import file_rows
from openrs.errors import UserError
from openrs.report.evidence.values import jsonl_rows as evidence_rows
from openrs.run.files import json_lines, read_jsonl

GOOD = b'{"problem": "1+1?", "answer": "2"}'
BAD = [b"{", b"[1]", b"3", b"\xff\xfe", b'{"a": "\0"}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]


def data_rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in file_rows(path)]


def file_of(folder: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + end)
    return path


@pytest.mark.parametrize("bad", BAD, ids=lambda line: repr(line[:8]))
def test_a_bad_line_is_named_by_all(tmp_path: Path, bad: bytes) -> None:
    path = file_of(tmp_path, GOOD, bad, b"  ", GOOD)
    assert [(line.number, line.row is not None) for line in json_lines(path)] == [(1, True), (2, False), (4, True)]
    for read in (read_jsonl, data_rows):
        with pytest.raises(UserError, match=r"rows\.jsonl:2: "):
            list(read(path))
    notes: list[str] = []
    assert len(list(evidence_rows(path, notes))) == 2
    assert "1 damaged" in notes[0]
    raw = list(_raw(Source(path=str(path))))
    assert [(row.place, row.row is None) for row in raw] == [
        ("rows.jsonl:1", False),
        ("rows.jsonl:2", True),
        ("rows.jsonl:4", False),
    ]


@pytest.mark.parametrize("last", [GOOD, GOOD[:-5]])
def test_only_a_journal_leaves_an_unfinished_last_line_out(tmp_path: Path, last: bytes) -> None:
    path = file_of(tmp_path, GOOD, last, end=b"")
    assert list(read_jsonl(path)) == [json.loads(GOOD)]
    if last == GOOD:
        assert len(data_rows(path)) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = file_of(tmp_path, b"\xef\xbb\xbf" + GOOD)
    assert data_rows(path) == list(read_jsonl(path)) == [json.loads(GOOD)]
