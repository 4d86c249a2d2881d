"""`openrs data show`: every number it says, hostile rows, and the page in a browser."""

import json
import sys
from pathlib import Path

import pytest
from curation_helpers import SUFFIX, jsonl, problems

from openrs.cli.main import main
from openrs.curation.show import bins, kind_of

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;`|\u202e[2J"


@pytest.fixture
def data(tmp_path) -> Path:
    rows = [{"problem": f"What is ${n}+1$ written out in full?", "answer": str(n + 1),
             "level": "Easy" if n % 2 else "Hard",
             "pass_rate": n / 40} for n in range(40)]  # fmt: skip
    rows += [rows[0], {"problem": rows[1]["problem"].replace("$", ""), "answer": "2"}]
    rows += [
        {"problem": rows[2]["problem"], "answer": "77"},
        {"problem": "No answer?"},
        {"problem": HOSTILE, "answer": HOSTILE},
    ]
    path = jsonl(tmp_path / "data.jsonl", rows)
    with path.open("ab") as file:
        file.write(b'{"problem": "\xff"}\n')
    return path


def test_kinds_that_judges_misread_are_counted(tmp_path, capsys):
    answers = ["3e8", "4.5e33", "12:00", "2516_8", r"35\%", "1, 2", "(1, 2)", "7"]
    rows = [{"problem": f"How large is quantity number {n}?", "answer": a} for n, a in enumerate(answers)]
    words = ["data", "show", str(jsonl(tmp_path / "k.jsonl", rows)), "--references", "0", "--workers", "1"]
    assert main([*words, "--json", "--data", str(tmp_path)]) == 0
    kinds = json.loads(capsys.readouterr().out)["reference_kinds"]
    assert {kind: count for kind, count in kinds.items() if count} == {
        "e-notation": 2, "time": 1, "base": 1, "percent": 1, "multi-part": 2
    }  # fmt: skip
    assert main([*words, "--data", str(tmp_path)]) == 0
    assert "hard to judge" in capsys.readouterr().out


@pytest.mark.slow
def test_numbers(data, capsys):
    assert (
        main(["data", "show", str(data), "--json", "--references", "60", "--workers", "1", "--data", str(data.parent)])
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["readable"], said["unique_prompts"]) == (46, 44, 42)
    assert said["unreadable"] == {"no answer": 1, "not readable": 1}
    assert said["copies"] == {"same text": 1, "same text, typed otherwise": 1, "same question, different answers": 2}
    assert said["levels"] == {"Hard": 21, "Easy": 20, "-": 3}
    assert sum(said["pass_rates"].values()) == 41
    assert said["pass_rates"]["0.9"] == 4
    assert said["answers"]["whole number"] == 43
    assert set(said["reference_kinds"]) >= {"e-notation", "time", "base", "percent", "multi-part"}
    assert said["reference_kinds"]["e-notation"] == 0
    assert said["references"]["judged"] == 44
    assert sum(said["references"]["bad"].values()) <= 1  # the hostile one
    assert "aime24" in said["benchmarks"]["unchecked"]
    assert len(said["examples"]) == 5


@pytest.mark.slow
def test_in_a_terminal_nothing_hostile_comes_through(data, capsys):
    assert main(["data", "show", str(data), "--references", "0", "--workers", "1", "--data", str(data.parent)]) == 0
    said = capsys.readouterr().out
    assert "46 rows, 44 readable, 42 unique prompts" in said
    assert "benchmarks not compared" in said
    assert all(c.isprintable() or c == "\n" for c in said)


@pytest.mark.slow
def test_real_rows_with_benchmarks(shared_data, tmp_path, capsys):
    raw = [{"problem": p + SUFFIX, "answer": a} for p, a in problems(shared_data)[-1500:]]
    path = jsonl(tmp_path / "raw.jsonl", raw)
    words = ["--benchmarks", "math_500,olympiadbench", "--data", str(shared_data / "benchmarks"), "--references", "20"]
    assert main(["data", "show", str(path), "--json", "--workers", "1", *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 1500
    assert said["benchmarks"]["compared"] == ["math_500", "olympiadbench"]
    assert sum(said["benchmarks"]["found"].values()) >= 1


def test_what_cannot_be_shown(tmp_path, capsys):
    assert main(["data", "show", str(tmp_path / "none.jsonl")]) == 2
    assert "no file" in capsys.readouterr().err
    assert main(["data", "show", str(jsonl(tmp_path / "a.jsonl", [{"x": 1}]))]) == 2
    assert "its columns: x" in capsys.readouterr().err
    assert main(["data", "show", str(tmp_path / "a.jsonl"), "--references", "-1"]) == 2
    (tmp_path / "b.jsonl").write_text('{"problem": "What is it?", "answer": "1"}\n')
    words = ["data", "show", str(tmp_path / "b.jsonl"), "--references", "0", "--workers", "1", "--data", str(tmp_path)]
    assert main([*words, "--html", str(tmp_path / "b.jsonl" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("27", "whole number"), ("-1,000", "whole number"), ("2.5", "decimal"), (r"\frac{1}{2}", "fraction"),
     ("1/2", "fraction"),
     ("B", "letter"), ("x^2+1", "expression"), ("Tuesday", "words or other"), ("$7$", "whole number")],
)  # fmt: skip
def test_kinds_of_answers(answer, kind):
    assert kind_of(answer) == kind


def test_bins_hold_every_value():
    values = [1, 2, 3, 500, 501, 10_000]
    assert sum(count for _, count in bins(values, 10)) == len(values)
    assert bins([], 10) == []
    assert bins([5, 7], 10) == [("5", 1), ("6", 0), ("7", 1)]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True)])
def test_the_page_in_a_browser(data, tmp_path, width, dark):
    sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
    from chromium import Chromium, binary

    if binary() is None:
        pytest.skip("chromium is not here (apt-get install chromium)")
    page = tmp_path / "page.html"
    words = ["--references", "60", "--workers", "1", "--data", str(tmp_path), "--html", str(page)]
    assert main(["data", "show", str(data), *words]) == 0
    with Chromium() as browser:
        browser.open(page, width, dark=dark)
        assert browser.value("document.title") == str(data)
        assert browser.value("document.scripts.length") == 0
        assert browser.value("document.images.length") == 0
        assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.value("document.querySelectorAll('figure svg').length") == 2
        bad = [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        assert bad == []
