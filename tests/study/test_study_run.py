"""A study runs, is killed, resumes, reports. Evaluations are stand-ins that leave what real ones leave; the real ones
are in test_whole.py."""

import json
import os
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openrs.cli.main import main
from openrs.errors import Interrupted, UserError
from openrs.report.evidence import reference
from openrs.report.evidence.sources import PAPER_SAMPLING
from openrs.report.pages.document import document
from openrs.report.pages.markdown import ABSENT, markdown
from openrs.run.files import write_json
from openrs.study import looks, settings, state
from openrs.study import report as study_report
from openrs.study import watch as watching
from openrs.study.jobs import Job, machine_of
from openrs.study.report import write_study_report
from openrs.study.run import Limits, Runner, run_study
from openrs.study.sequential import last_boundary

STUDY = """
title: two models
gpu: A40
gpus: 1
evaluations:
  base: {model: "paper:base", samples: {aime24: 16, amc23: 8}}
  open-rs3: {model: "paper:open-rs3", samples: {aime24: 16, amc23: 8}}
claims:
  better-aime24: {needs: [[base/aime24, open-rs3/aime24]], looks: [8, 12, 16]}
  aime24-above-o1-preview: {needs: [[open-rs3/aime24]], looks: [8, 16]}
  score-open-rs3-amc23: {needs: [[open-rs3/amc23]]}
"""
MORE = """  score-open-rs1-amc23: {needs: [[open-rs1/amc23]]}
"""
PARTS = STUDY.replace("claims:", '  open-rs1: {model: "paper:open-rs1", samples: {amc23: 8}}\nclaims:') + MORE
NAMES = {
    "base": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "open-rs1": "knoveleng/Open-RS1",
    "open-rs3": "knoveleng/Open-RS3",
}
PROBLEMS = reference.tree()["problems"]


def score_file(job: Job, place: Path, samples: int, rates: dict[str, float]) -> None:
    """scores.json of an evaluation with so many samples of one benchmark: sample i of a problem never changes."""
    path = place / "eval" / job.entry / "scores.json"
    tree: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"benchmarks": {}}
    name = job.id.partition("/")[2]
    rows = {}
    for problem in range(PROBLEMS[name]):
        draw = random.Random(f"{job.id} {problem}")
        rows[f"{name}/{problem}"] = [int(draw.random() < rates[job.entry]) for _ in range(samples)]
    accuracy = sum(map(sum, rows.values())) / samples / len(rows)
    tree["benchmarks"][name] = {"n": len(rows), "k": samples, "accuracy": accuracy, "per_problem": rows}
    tree |= {
        "model": {"name": NAMES[job.entry], "revision": None, "step": None},
        "inputs": {},
        "seconds": {"load": 1.0},
    }
    tree["protocol"] = {**PAPER_SAMPLING, "engine": "vllm", "bos": 2, "seed": 1234}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, tree)


class Killed(BaseException):
    """A SIGKILL as a test can have it: nothing after it is written."""


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the runner did, and how good the models are; `kill` counts down the writes of study.json to a kill."""
    told: dict[str, Any] = {"did": [], "rates": {"base": 0.2, "open-rs1": 0.6, "open-rs3": 0.6}, "kill": None}

    def evaluate(self: Runner, job: Job, place: Path, samples: int) -> None:
        told["did"].append((job.id, samples))
        score_file(job, place, samples, told["rates"])

    write = state.State.write

    def counted(self: state.State) -> None:
        if told["kill"] is not None:
            told["kill"] -= 1
            if told["kill"] == 0:
                raise Killed
            if told["kill"] < 0:  # dead: what clean-up code would write is not written either
                return
        write(self)

    monkeypatch.setattr(Runner, "evaluate", evaluate)
    monkeypatch.setattr(state.State, "write", counted)
    monkeypatch.setattr("openrs.study.run.powers_of", lambda *_: {})
    monkeypatch.setattr("openrs.study.run.write_study_report", lambda folder: folder / "report.html")
    return told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(STUDY)
    return path


def run(file: Path, limits: Limits | None = None, **options: Any) -> Path:
    study = settings.load(file)
    machine = machine_of(study, None, None, None)
    return run_study(study, file, file.parent / "run", machine=machine, limits=limits or Limits(), **options)


def report_of(file: Path) -> dict[str, Any]:
    """What report.json would hold: the plots of the page are left out, seconds of them."""
    folder = file.parent / "run"
    return document(study_report.runs_of(folder), None, study_report.facts_of(folder))


def words(tree: dict[str, Any]) -> dict[str, str]:
    return {claim["id"]: claim["verdict"] for claim in tree["claims"]}


def test_a_clear_difference_ends_early_and_rounds_are_whole(file: Path, stand_ins: dict[str, Any]) -> None:
    run(file)
    aime = [(job, samples) for job, samples in stand_ins["did"] if job.endswith("aime24")]
    assert sorted(aime) == [("base/aime24", 8), ("open-rs3/aime24", 8)]  # decided with half of the samples
    tree = report_of(file)
    found = words(tree)
    assert found["better-aime24"] == found["aime24-above-o1-preview"] == "reproduced"
    assert found["score-open-rs3-amc23"] in ("compatible", "not reproduced")
    assert tree["study"]["open"] == []
    claim = next(claim for claim in tree["claims"] if claim["id"] == "better-aime24")
    assert claim["numbers"]["looks"] == [8]
    assert "look 1 of 3, with 8 of 16 samples a problem; repeated 95 % interval" in claim["said"]
    price = last_boundary([0.5, 0.75, 1.0])[1]
    assert price < 0.05
    assert f"the last of 3 looks asks for p < {price:.4f} instead of 0.05" in claim["rule"]


def test_without_a_difference_it_goes_on_to_the_last_look(file: Path, stand_ins: dict[str, Any]) -> None:
    stand_ins["rates"] = {"base": 0.4, "open-rs3": 0.4}
    run(file)
    base = [samples for job, samples in stand_ins["did"] if job == "base/aime24"]
    assert base == sorted(base)
    assert set(base) <= {8, 12, 16}
    kept = state.read(file.parent / "run")
    assert kept is not None
    made = looks.rounds_of(kept, "better-aime24")
    assert made == [8, 12, 16][: len(made)]
    assert looks.closed(settings.load(file), kept, "better-aime24")
    before = list(stand_ins["did"])
    run(file)  # the same command again does nothing
    assert stand_ins["did"] == before


def test_watch_shows_where_a_study_is(
    file: Path, stand_ins: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs with what they took beside the plan, and looks; of a killed launch, too; in a terminal it is drawn again."""
    run(file)
    folder = file.parent / "run"
    kept = state.read(folder)
    assert kept is not None
    (look,) = kept.looks("better-aime24")
    kept.tree["looks"]["better-aime24"] = [
        {**look, "word": "cannot tell"},
        {**look, "samples": 12, "word": "compatible"},
    ]
    kept.tree["looks"]["aime24-above-o1-preview"] = [{"samples": 8, "at": "", "sha256": ""}]
    kept.tree["jobs"]["base/amc23"] = {"attempts": [{"started": 0, "seconds": 7200, "rate": 0.5}], "done": True}
    kept.tree["jobs"]["base/aime24"] |= {"attempts": [{"started": time.time() - 300}], "done": False}
    kept.tree["settings"]["title"] = "\x1b[31mtwo"
    kept.write()
    assert main(["watch", str(folder), "--once"]) == 0
    said = capsys.readouterr().out
    done, every = sum(job["done"] for job in kept.tree["jobs"].values()), len(kept.tree["jobs"])
    for part in (
        "run: two\n",
        f"of the jobs started {done} of {every} jobs done, 2 h 00 min",
        "  base/amc23: done; 2 h 00 min so far, planned ",
        "; $1.00, planned $",
        "  base/aime24: running or killed, started 5 min 00 s ago, 8 samples a problem; 0 s so far",
        "  better-aime24: look 2 of 3, with 12 samples a problem: compatible\n",
        "  aime24-above-o1-preview: look 1 of 2, with 8 samples a problem: not finished\n",
        "log     ",
        f"openrs report {folder}\n",
    ):
        assert part in said, part
    drawn: list[list[str]] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("openrs.study.watch.redraw", drawn.append)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 6)))

    def pause(_: float) -> None:
        if len(drawn) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watching.watch(folder, 2.0, pause=pause)
    assert [len(picture) for picture in drawn] == [5, 5]
    assert all(len(line) <= 40 for picture in drawn for line in picture)


def last_words(folder: Path) -> dict[str, list[tuple[int, str]]]:
    kept = state.read(folder)
    assert kept is not None
    return {name: [(one["samples"], one["word"]) for one in made] for name, made in kept.tree["looks"].items()}


def killed_and_resumed(folder: Path, stand_ins: dict[str, Any], kill: int) -> Path | None:
    """A study killed at its write number `kill` and run again; None when it ended before."""
    file = folder / "two.yaml"
    folder.mkdir()
    file.write_text(STUDY)
    stand_ins["kill"] = kill
    try:
        run(file)
    except Killed:
        stand_ins["kill"] = None
        before = state.read(folder / "run")
        run(file)
        after = state.read(folder / "run")
        assert after is not None
        for name, made in (before.tree["looks"] if before else {}).items():
            kept = after.looks(name)[: len(made)]
            assert [(one["samples"], one["sha256"]) for one in made] == [(o["samples"], o["sha256"]) for o in kept]
        return folder / "run"
    finally:
        stand_ins["kill"] = None
    return None


@pytest.mark.parametrize("kill", [7])
def test_a_kill_gives_no_look_back(file: Path, stand_ins: dict[str, Any], tmp_path: Path, kill: int) -> None:
    """After a kill and a restart the looks are those of an undisturbed study. 7: a look is spent and not yet said."""
    stand_ins["rates"] = {"base": 0.2, "open-rs3": 0.3}
    run(file)
    resumed = killed_and_resumed(tmp_path / "killed", stand_ins, kill)
    assert resumed is not None
    assert last_words(resumed) == last_words(file.parent / "run")


@pytest.mark.soak
def test_a_kill_at_any_write_gives_no_look_back(file: Path, stand_ins: dict[str, Any], tmp_path: Path) -> None:
    stand_ins["rates"] = {"base": 0.4, "open-rs3": 0.42}
    run(file)
    for kill in range(1, 100):
        resumed = killed_and_resumed(tmp_path / f"killed-{kill}", stand_ins, kill)
        if resumed is None:
            break
        assert last_words(resumed) == last_words(file.parent / "run")
    assert kill > 10


def test_a_look_is_written_before_it_is_computed(
    file: Path, stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens after spending, the look is spent, and other samples cannot be looked at instead."""

    def broken(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as during:
        during.setattr(looks, "repeated", broken)
        with pytest.raises(Killed):
            run(file)
    kept = state.read(file.parent / "run")
    assert kept is not None
    ((name, (look,)),) = kept.tree["looks"].items()
    assert (look["samples"], "word" in look) == (8, False)
    for path in (file.parent / "run" / "evaluations" / "eval").glob("*/scores.json"):
        tree = json.loads(path.read_text())
        for rows in tree["benchmarks"].get("aime24", {"per_problem": {}})["per_problem"].values():
            rows[0] = 1 - rows[0]
        if "aime24" in tree["benchmarks"]:
            rows = tree["benchmarks"]["aime24"]["per_problem"].values()
            tree["benchmarks"]["aime24"]["accuracy"] = sum(map(sum, rows)) / 8 / 30
        write_json(path, tree)
    with pytest.raises(UserError, match=f"the samples of the look at {name} with 8 a problem have changed"):
        run(file)


def test_a_study_changed_after_its_first_look_is_refused_or_says_so(file: Path, stand_ins: dict[str, Any]) -> None:
    run(file)
    assert report_of(file)["study"]["changed_after_looking"] is False
    file.write_text(STUDY.replace("two models", "another title").replace("gpus: 1", "gpus: 2"))
    run(file)  # neither changes a result
    file.write_text(STUDY.replace("looks: [8, 12, 16]", "looks: [8, 16]"))
    with pytest.raises(UserError, match=r"claims.better-aime24.looks: \[8, 12, 16\] -> \[8, 16\]"):
        run(file)
    run(file, accept_changes=True)
    tree = report_of(file)
    assert tree["study"]["changed_after_looking"] is True
    assert "Changed after looking" in markdown(tree)


@pytest.mark.slow
def test_the_page_of_a_study_that_was_changed(file: Path, stand_ins: dict[str, Any]) -> None:
    run(file)
    file.write_text(STUDY.replace("looks: [8, 12, 16]", "looks: [8, 16]"))
    run(file, accept_changes=True)
    page = write_study_report(file.parent / "run").read_text()
    assert "changed after looking" in page
    assert "What is still open" not in page
    assert "two models" in page


def test_before_anything_was_seen_a_study_may_change(file: Path, stand_ins: dict[str, Any]) -> None:
    stand_ins["kill"] = 3  # in the middle of the first job
    with pytest.raises(Killed):
        run(file)
    stand_ins["kill"] = None
    file.write_text(STUDY.replace("amc23: 8", "amc23: 4"))
    run(file)
    assert report_of(file)["study"]["changed_after_looking"] is False


def test_limits_end_it_at_a_safe_place(file: Path, stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit the study ends as by SIGTERM, says what to type next, and goes on where it was."""

    def slow(self: Runner, job: Job, place: Path, samples: int) -> None:
        while True:  # until the limit's signal
            pass

    with monkeypatch.context() as during:
        during.setattr(Runner, "evaluate", slow)
        with pytest.raises(Interrupted, match=r"hours are over; everything is saved.*: openrs reproduce two.yaml"):
            run(file, Limits(until_hours=1e-6), command="openrs reproduce two.yaml")
    kept = state.read(file.parent / "run")
    assert kept is not None
    assert not kept.done()
    kept.tree["jobs"]["open-rs3/aime24"] = {"attempts": [{"started": 0.0, "seconds": 7200.0}], "done": False}
    kept.write()
    assert kept.dollars() == pytest.approx(2 * 0.4375, rel=0.01)
    with pytest.raises(UserError, match=r"\$0.8\d are spent, and --until-usd is 0.5"):
        run(file, Limits(until_usd=0.5))
    with pytest.raises(UserError, match=r"are spent"):  # what is left is for seconds: no launch would come to anything
        run(file, Limits(until_usd=0.88))
    run(file, Limits(until_usd=100.0))
    assert last_words(file.parent / "run")["better-aime24"] == [(8, "reproduced")]


def test_the_report_says_at_any_time_what_is_open_and_what_it_costs(file: Path, stand_ins: dict[str, Any]) -> None:
    stand_ins["kill"] = 6
    with pytest.raises(Killed):
        run(file)
    stand_ins["kill"] = None
    tree = report_of(file)
    opened = {one["id"]: one for one in tree["study"]["open"]}
    assert "better-aime24" in opened
    assert opened["score-open-rs3-amc23"]["needs"] == ["open-rs3/amc23"]
    assert opened["score-open-rs3-amc23"]["dollars"]["expected"] > 0
    assert re.search(r"\d+ of 3 claims decided", tree["study"]["said"][0])


def test_entries_that_no_claim_needs_are_run_when_asked(file: Path, stand_ins: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--also bace: there is no such entry"):
        run(file, also=["bace"])
    run(file)
    assert ("base/amc23", 8) not in stand_ins["did"]
    run(file, also=["base"])
    assert ("base/amc23", 8) in stand_ins["did"]


def test_parts_side_by_side_do_what_one_process_does(
    file: Path, stand_ins: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part 1 starts and ends while part 0 evaluates: neither's jobs or looks are lost, and the words are the same."""
    file.write_text(PARTS)
    evaluate, started = Runner.evaluate, []

    def meanwhile(self: Runner, job: Job, place: Path, samples: int) -> None:
        evaluate(self, job, place, samples)
        if not started:
            started.append(job.id)
            with pytest.raises(UserError, match=r"run is in use by process"):
                run(file)  # all parts at once
            with pytest.raises(UserError, match=r"parts/0 is in use by process"):
                run(file, part=(0, 2))
            run(file, part=(1, 2))

    with monkeypatch.context() as during:
        during.setattr(Runner, "evaluate", meanwhile)
        run(file, part=(0, 2))
    side_by_side, did = words(report_of(file)), sorted(stand_ins["did"])
    kept = state.read(file.parent / "run")
    assert kept is not None
    assert kept.done() == {"base/aime24", "open-rs3/aime24", "open-rs3/amc23", "open-rs1/amc23"}
    assert all(len(kept.attempts(job)) == 1 and kept.seconds(job) > 0 for job in kept.done())
    stand_ins["did"].clear()
    (tmp_path / "whole").mkdir()
    whole = tmp_path / "whole" / "two.yaml"
    whole.write_text(PARTS)
    run(whole)
    assert sorted(stand_ins["did"]) == did
    assert words(report_of(whole)) == side_by_side
    assert last_words(whole.parent / "run") == last_words(file.parent / "run")
    with pytest.raises(UserError, match="--part 0/3: this study has 2 parts"):
        run(file, part=(0, 3))


def test_a_part_that_starts_closes_no_attempt_of_another_and_leaves_its_price_alone(
    file: Path, stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(PARTS)
    study, folder, evaluate = settings.load(file), file.parent / "run", Runner.evaluate
    seen: list[str] = []

    def meanwhile(self: Runner, job: Job, place: Path, samples: int) -> None:
        if not seen:
            other = machine_of(study, None, None, 9.0)
            seen.append(job.id)
            run_study(study, file, folder, machine=other, limits=Limits(), part=(1, 2))
            kept = state.read(folder)
            assert kept is not None
            assert kept.attempts(job.id)[0].get("seconds") is None
        evaluate(self, job, place, samples)

    monkeypatch.setattr(Runner, "evaluate", meanwhile)
    run(file, part=(0, 2))
    kept = state.read(folder)
    assert kept is not None
    rates = {job: {one["rate"] for one in kept.attempts(job)} for job in kept.done()}
    assert rates.pop("open-rs1/amc23") == {9.0}
    assert list(rates.values()) == [{0.4375}] * 3
    assert kept.attempts("open-rs3/amc23")[0]["folder"] == "evaluations/eval/paper-open-rs3"


def test_parts_share_what_is_left_to_spend(
    file: Path, stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, function: Any) -> None:
            waited.append(interval)
            super().__init__(interval, function)

    monkeypatch.setattr(threading, "Timer", Timer)
    file.write_text(PARTS)
    run(file, Limits(until_usd=4.375, at_once=2), part=(1, 2))
    run(file, Limits(until_usd=4.375), part=(0, 2))
    assert waited == pytest.approx([5 * 3600, 10 * 3600], rel=1e-3)  # at $0.4375 an hour


def test_spent_stands_beside_planned(file: Path, stand_ins: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """Live after each job, and in the report: for an hour that a job took, its dollars and the plan's range."""
    run(file)
    kept = state.read(file.parent / "run")
    assert kept is not None
    assert re.search(
        r"amc23: 0 s so far, planned \d\.\d to \d\.\d h; \$0\.00, planned \$\d\.\d\d \(\d\.\d\d to \d\.\d\d\)",
        capfd.readouterr().out,
    )
    kept.tree["jobs"]["open-rs3/amc23"]["attempts"][0]["seconds"] = 7200.0
    kept.write()
    tree = report_of(file)
    (entry,) = (one for one in tree["study"]["jobs"] if one["id"] == "open-rs3/amc23")
    assert (entry["hours"], entry["dollars"]) == (2, pytest.approx(2 * 0.4375))
    low, high = (entry["planned_dollars"][end] for end in ("low", "high"))
    (row,) = (line for line in markdown(tree).splitlines() if line.startswith("| open-rs3/amc23 | done"))
    assert [cell.strip() for cell in row.split("|")][4:8] == ["2.00", ABSENT, f"{low:.2f} to {high:.2f}", "0.88"]
