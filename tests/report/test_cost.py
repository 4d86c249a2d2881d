"""The cost ledger: seconds by phase and attempt, and what they come to in dollars."""

import json
import os

import pytest
from made_run import made_run, manifest

from openrs.report.evidence.collect import RunData, collect
from openrs.report.verdicts.cost import ledger
from openrs.run.directory import Run


def test_phases_sum_to_the_wall_clock_of_all_attempts(tmp_path):
    run = made_run(tmp_path / "run")
    book = ledger(collect(run))
    assert book is not None
    assert sum(book.phases.values()) == pytest.approx(book.seconds)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert book.phases["generation"] == pytest.approx(sum(row["time/generation"] for row in rows))
    evaluated = 3 * 3180
    assert sum(v for name, v in book.phases.items() if name.startswith("evaluation")) == pytest.approx(evaluated)
    assert book.training_seconds == pytest.approx(book.seconds - evaluated)


def test_two_attempts_on_four_gpus_at_the_recipes_price(tmp_path):
    """6 h of attempts, less than the steps and evaluations add up to: the larger of both is counted."""
    run = made_run(tmp_path / "run", steps=20)
    book = ledger(collect(run))
    assert book is not None
    assert [one.seconds for one in book.attempts] == [7200, 14400]
    assert book.seconds == 21600
    assert book.gpu_seconds == 4 * 21600
    assert book.dollars == pytest.approx(24 * 0.4375)
    assert book.phases["start-up, checkpoints, the rest"] > 0
    tree = book.as_json()
    assert tree["price_from"] == "the recipe"
    assert sum(one["dollars"] for one in tree["phases"]) == pytest.approx(book.dollars)
    assert tree["dollars_per_step"] == pytest.approx(book.training_dollars / 20)
    assert tree["dollars_per_point"] == pytest.approx(book.dollars / book.gain)


def test_a_price_on_the_command_line_goes_over_the_recipes(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    book = ledger(collect(run), 1.89)
    assert book is not None
    assert book.dollars == pytest.approx(24 * 1.89)
    assert book.price_from == "--price"


def test_without_gpus_nothing_is_priced(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    run.recipe.write_text(run.recipe.read_text().replace("gpu: A40, gpus: 4", "gpu: none, gpus: 0"))
    book = ledger(collect(run), 1.0)
    assert book is not None
    assert (book.dollars, book.gpu_seconds, book.gpu) == (None, 0, "")


def test_a_killed_attempt_lasts_until_the_last_line_of_its_log(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    tree = manifest(0)
    tree["attempts"][1] |= {"ended": None, "exit_code": None}
    run.manifest.write_text(json.dumps(tree))
    log = run.path / "attempts/02/log"
    log.parent.mkdir(parents=True)
    log.write_text("step 20\n")
    began = collect(run).attempts[1]["started"]
    assert began == "2026-11-20T10:05:00Z"
    os.utime(log, (1795169100 + 600, 1795169100 + 600))  # 2026-11-20T10:05:00Z and ten minutes
    book = ledger(collect(run))
    assert book is not None
    assert (book.attempts[1].seconds, book.attempts[1].end_from) == (600, "log")


def test_steps_done_again_after_a_kill_are_paid_for(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    folder = run.path / "attempts/02"
    folder.mkdir(parents=True)
    (folder / "superseded.jsonl").write_text('{"step": 20, "time/step": 140}\n{"step": 21, "time/step": 160}\n{"st')
    book = ledger(collect(run))
    assert book is not None
    assert book.phases["steps done again"] == 300


def test_a_clock_that_went_back_and_odd_entries_cost_nothing(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    entries = [
        {"number": 1, "started": "2026-11-20T10:00:00Z", "ended": "2026-11-20T09:00:00Z", "exit_code": 0},
        {"number": "x", "started": 5, "ended": "yesterday"},
    ]
    run.manifest.write_text(json.dumps({"attempts": [*entries, "odd"]}))
    book = ledger(collect(run))
    assert book is not None
    assert [one.seconds for one in book.attempts] == [None, None]


def test_a_run_without_any_time_has_no_ledger(tmp_path):
    assert ledger(RunData("empty", tmp_path)) is None
    (tmp_path / "empty").mkdir()
    assert ledger(collect(Run(tmp_path / "empty"))) is None
