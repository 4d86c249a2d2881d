"""The report of a run that is none of the paper's: its own results first, and what training won and lost."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import made_run, write_scores

from openrs.report.evidence.collect import collect
from openrs.report.evidence.sources import gather
from openrs.report.pages.document import document
from openrs.report.pages.page import report_on
from openrs.run.directory import Run

ORDER = ["scores", "training", "problems", "completions", "cost", "manifest"]


@pytest.fixture
def unrendered(monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **_: out.write("<svg ></svg>"))


def own(path, **options):
    run = made_run(path, steps=20, checkpoints=(0, 20), **options)
    run.recipe.write_text(run.recipe.read_text().split("paper:")[0])
    return run


def sections(page):
    return re.findall(r'<section id="([\w-]+)"', page.read_text())


@pytest.mark.slow
def test_it_leads_with_its_own_results_and_the_paper_comes_on_request(tmp_path, unrendered):
    run = own(tmp_path / "run", samples=1)
    page = report_on([str(run.path)])
    assert sections(page) == ORDER
    said = page.read_text() + page.with_name("report.md").read_text()
    for name in ("Open-RS1", "DeepScaleR", "re-executed bit for bit", "$42"):
        assert name not in said
    assert "Sampled with <bdi>temperature 0.6, top-p 0.95, cap 32768" in said
    assert json.loads(page.with_name("report.json").read_text())["focus"] == "own"
    assert sections(report_on([str(run.path)], paper=True)) == ["verdicts", *ORDER[:-1], "published", "manifest"]


@pytest.mark.parametrize("change", ["an experiment of the paper's", "result files", "nothing"])
def test_what_is_evidence_or_of_the_paper_leads_with_its_verdicts(tmp_path, shared_data, change):
    names = [str(own(tmp_path / "run", samples=1).path)]
    if change == "an experiment of the paper's":
        names.append(str(made_run(tmp_path / "exp3", steps=20, checkpoints=(0,), samples=1).path))
    elif change == "result files":
        names.append(str(shared_data / "paper_logs"))
    else:
        names = []
    assert document(gather(names))["focus"] == "paper"


@pytest.mark.slow
def test_several_runs_show_their_differences_first(tmp_path, unrendered):
    runs = [own(tmp_path / name, samples=1) for name in ("a", "b", "c")]
    for run, rate in zip(runs[1:], ("2.0e-06", "3.0e-06"), strict=True):
        run.recipe.write_text(run.recipe.read_text().replace("1.0e-06", rate))
    page = report_on([str(run.path) for run in runs], str(tmp_path / "out"))
    assert sections(page)[:3] == ["comparison", "side-by-side", "scores"]
    first = re.search(r"<h2>What differs</h2>(.*?)</section>", page.read_text(), re.DOTALL)
    assert first is not None
    cells = re.sub(r"<[^>]+>", " ", first[1]).split()
    start = cells.index("grpo.learning_rate")
    assert cells[start + 1 : start + 4] == ["1e-06", "2e-06", "3e-06"]
    assert first[1].count("<figure>") == 9


def samples(run, step, marks):
    """eval/step-N/ of these verdicts; every text says which sample it is."""
    name = f"step-{step:06d}"
    write_scores(run, name, {"mine": marks}, step=step)
    with (run.evaluation(name) / "samples.jsonl").open("w") as file:
        for problem, row in marks.items():
            for i, mark in enumerate(row):
                verdict = "correct" if mark else "incorrect"
                sample = {"benchmark": "mine", "problem": problem, "sample": i, "tokens": 9, "finish": "stop"}
                sample |= {"text": f"<b>{problem} {i} at {step}", "verdict": verdict, "answer": f"{verdict[0]}{i}"}
                file.write(json.dumps(sample) + "\n")


def test_lost_and_won_problems_stand_with_an_answer_of_each_side_the_largest_change_first(tmp_path, unrendered):
    run = Run(tmp_path / "run")
    samples(run, 0, {"same": [1, 0], "lost": [0, 1], "half": [0, 1], "whole": [0, 0]})
    samples(run, 7, {"same": [0, 1], "lost": [0, 0], "half": [1, 1], "whole": [1, 1]})
    page = report_on([str(run.path)])
    rows = json.loads(page.with_name("report.json").read_text())["runs"][0]["changes"]
    assert [(row["problem"], row["before"], row["after"]) for row in rows] == [
        ("lost", 0.5, 0.0), ("whole", 0.0, 1.0), ("half", 0.5, 1.0),
    ]  # fmt: skip
    assert [row["answers"] for row in rows] == [["c1", "i0"], ["i0", "c0"], ["i0", "c0"]]
    assert "&lt;b&gt;lost 1 at 0</pre>" in page.read_text()
    assert "&lt;b&gt;lost 0 at 7</pre>" in page.read_text()
    assert "<b>lost" not in page.read_text()


def test_changes_without_samples_are_told_without_answers(tmp_path, unrendered):
    run = Run(tmp_path / "run")
    for step, marks in ((0, {"p": [0]}), (7, {"p": [1]})):
        write_scores(run, f"step-{step:06d}", {"mine": marks}, step=step)
    page = report_on([str(run.path)])
    assert json.loads(page.with_name("report.json").read_text())["runs"][0]["changes"][0]["answers"] == [None, None]
    assert "No text was kept" in page.read_text()


def test_a_completion_knows_its_step_and_what_it_was_paid(tmp_path):
    run = Run(tmp_path)
    run.completions.mkdir()
    run.recipe.write_text("rewards: {functions: [{name: format, weight: 1.0}, {name: cosine, weight: 2.0}]}")
    row = {"id": "p", "completion": "!", "reward/format": 1.0, "reward/cosine": -0.25, "verdict": "correct"}
    pq.write_table(
        pa.Table.from_pylist([row | {"id": str(i)} for i in range(90)]), run.completions / "step-000012.parquet"
    )
    texts = collect(run).texts
    assert {(text.step, text.reward) for text in texts} == {(12, 0.5)}
    assert len({text.problem for text in texts}) == len(texts) == 36
    assert texts[-1].problem == "87"
