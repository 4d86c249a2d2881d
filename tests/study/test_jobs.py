"""The jobs of a study: which need nothing of each other, and which launches of a run each of them made."""

from datetime import datetime
from pathlib import Path

import pytest

from openrs.report.verdicts.cost import Attempt, Ledger
from openrs.study import report as study_report
from openrs.study import settings, state
from openrs.study.jobs import Job, independent, jobs_of, machine_of


def test_what_depends_on_each_other_is_in_one_part() -> None:
    study = settings.load(settings.STUDIES / "paper.yaml")
    jobs = jobs_of(study, machine_of(study, None, None, None), settings.STUDIES)
    parts = independent(study, jobs)
    assert sorted(job.id for part in parts for job in part) == sorted(job.id for job in jobs)
    assert all(part == [job for job in jobs if job in part] for part in parts)
    where = {job.id: i for i, part in enumerate(parts) for job in part}
    for one in study.claims.values():
        assert len({where[job] for job in (one.needs[0] if one.looks else ())}) <= 1
    runs = [settings.place_of_run(study, job.entry, job.seed) for job in jobs if job.seed is not None]
    evaluated = {study.evaluations[job.entry].model for job in jobs if not job.training}
    tied = {"paper:base", "paper:open-rs2", "paper:open-rs3"}  # by claims with looks
    assert len(parts) == len(set(runs)) + len(evaluated - tied) + 1
    assert {where[f"{name}/{b}"] for name in ("base", "open-rs2", "open-rs3") for b in ("aime24", "amc23")} == {0}


def test_a_job_counts_the_launches_of_its_run_that_it_made() -> None:
    """A later stage of the same run is another job."""
    launches = [("2026-11-29T07:00:00Z", 100.0), ("2026-11-29T07:10:00Z", 50.0), ("2026-11-29T07:10:55Z", 9.0)]
    made = tuple(Attempt(i, began, took, 0, "", "manifest") for i, (began, took) in enumerate(launches, 1))
    book = Ledger(made, {}, 159.0, "", 0, None, "nowhere", 0, None)
    first = datetime.fromisoformat(launches[0][0]).timestamp()
    entry = {"attempts": [{"started": first + 0.7, "seconds": 101.0, "folder": "a-seed1"}], "done": False}
    entry["attempts"].append({"started": first + 600.2, "seconds": 55.0, "folder": "a-seed1"})
    later = {"attempts": [{"started": first + 655.3, "seconds": 9.0, "folder": "a-seed1"}], "done": False}
    never = {"attempts": [], "done": True}  # written by hand
    jobs = {"a/seed1": entry, "b/seed1": later, "c/seed1": never}
    kept = state.State(Path(), {"jobs": jobs, "machine": {"gpus": 1}})
    study = settings.load(settings.STUDIES / "paper.yaml")
    for name, seconds in (("a", 150), ("b", 9), ("c", None)):
        job = Job(f"{name}/seed1", name, None, 1, None, None)
        found = study_report.job_entry(kept, job, machine_of(study, None, None, None), {"a-seed1": book})
        assert found["ledger_hours"] == (seconds and pytest.approx(seconds / 3600))
