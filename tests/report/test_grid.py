"""The grid of problems: its states, its answers, its limits; and the completions that the page carries."""

import json
import random

from made_run import made_run, verdicts, write_evaluation, write_scores

from openrs.report.evidence.collect import collect
from openrs.report.evidence.evaluations import LONGEST_TEXT
from openrs.report.pages.grid import BYTES, SAMPLES, completions, grids, tally
from openrs.run.directory import Run


def test_a_row_for_every_problem_and_a_cell_for_every_sample(tmp_path):
    run = collect(made_run(tmp_path / "run", steps=20, benchmarks=(("aime24", 30, 0.3),), samples=4))
    (grid,) = grids(run)
    assert len(grid.rows) == 30
    assert [len(strips) for _, strips in grid.rows] == [2] * 30
    scores = run.final.scores["aime24"]
    for problem, (_, after) in grid.rows:
        marks = scores.per_problem[problem]
        assert [letter == "y" for letter in after.cells] == [bool(mark) for mark in marks]
        assert (after.right, after.k) == (sum(marks), 4)
    shares = [sum(strip.right for strip in strips) for _, strips in grid.rows]
    assert shares == sorted(shares, reverse=True)


def test_one_sample_a_problem_shows_what_was_gained_and_lost(tmp_path):
    run = Run(tmp_path / "run")
    before = {"a": [1], "b": [0], "c": [1], "d": [0]}
    after = {"a": [1], "b": [1], "c": [0], "d": [0]}
    write_scores(run, "step-000000", {"demo": before}, step=0)
    write_scores(run, "step-000050", {"demo": after}, step=50)
    (grid,) = grids(collect(run))
    (field,) = grid.fields
    assert field.cells == ("g", "l", "y", "n")
    assert dict(zip((entry[0] for entry in field.data), field.cells, strict=True)) == {
        "a": "y", "b": "g", "c": "l", "d": "n",
    }  # fmt: skip


def test_letters_for_cut_off_and_unjudged_samples(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0,), benchmarks=(("aime24", 2, 0.5),), samples=2)
    rows = [
        ("a", 0, "correct", "stop"), ("a", 1, "incorrect", "length"),
        ("b", 0, "timeout", "stop"), ("b", 1, "incorrect", "stop"),
    ]  # fmt: skip
    lines = [
        {"benchmark": "aime24", "problem": p, "sample": s, "verdict": v, "finish": f, "answer": "7", "tokens": 5}
        for p, s, v, f in rows
    ]
    path = run.evaluation("step-000000") / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (grid,) = grids(collect(run))
    assert {problem: strips[0].cells for problem, strips in grid.rows} == {"a": ("y", "x"), "b": ("o", "n")}
    assert tally(grid.rows[0][1][0]) == "7 x 2"


def test_many_samples_and_problems_are_cut_and_it_is_said(tmp_path):
    run = Run(tmp_path / "run")
    write_scores(run, "step-000000", {"aime24": verdicts(30, 200, 80), "long": verdicts(2500, 900)}, step=0)
    found = {grid.title.split(":")[0]: grid for grid in grids(collect(run))}
    assert len(found["AIME24"].rows[0][1][0].cells) == SAMPLES
    assert "first 64 of 80" in found["AIME24"].note
    assert len(found["long"].fields[0].cells) == 2000
    assert "2,000 of 2,500" in found["long"].note


def test_completions_keep_within_their_budget(tmp_path):
    run = made_run(tmp_path / "run", steps=40, text_length=60_000, checkpoints=(0, 50), samples=2)
    found, _ = completions(collect(run))
    used = sum(len((text.completion + text.prompt).encode()) for text in found)
    assert 0 < used <= BYTES
    assert all(len(text.completion) <= LONGEST_TEXT + 100 for text in found)
    assert any("characters left out" in text.completion for text in found)


def test_texts_are_drawn_evenly_from_all_samples(tmp_path):
    run = Run(tmp_path / "run")
    write_evaluation(run, 50, (("math_500", 500, 0.5),), 4, 0.0, random.Random(3), length=50)
    first = collect(run).evaluations[0]
    places = sorted(int(text.problem.split("-")[1].split(",")[0]) for text in first.texts)
    assert len(places) == 24
    assert places[0] < 150
    assert places[-1] > 350
    assert collect(run).evaluations[0].texts == first.texts
