"""Looks and the report's rules: with one look the verdicts are those of the rules; what is judged once keeps its k."""

import argparse
import math
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from openrs.cli.study import add_options, resuming
from openrs.errors import UserError
from openrs.evaluation import statistics
from openrs.evaluation.difficulty_model import sample_matrix
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.claims import Evidence
from openrs.report.verdicts.judge import judge
from openrs.run.directory import run_at
from openrs.run.progress import Progress
from openrs.study import looks, power, state
from openrs.study.jobs import Job, machine_of
from openrs.study.run import Limits, Runner
from openrs.study.settings import Study, study_claims

AGAINST_BASE = {
    "better-amc23": ("base/amc23", "open-rs2/amc23"),
    "better-math-500": ("base/math_500", "open-rs2/math_500"),
    "better-aime24": ("base/aime24", "open-rs3/aime24"),
    "aime24-above-o1-preview": ("open-rs3/aime24",),
    "amc23-63-to-80": ("base/amc23", "open-rs2/amc23"),
}
SCORE = "score-open-rs3-aime24"
PROBLEMS = {"aime24": 30, "amc23": 40, "math_500": 300}
MODELS = {"base": power.BASE, "open-rs2": "Open-RS2", "open-rs3": "Open-RS3"}


def study_of(at: list[int]) -> Study:
    """The claims against the base, each with these looks but the one that is judged once, and a printed score."""
    tree = {
        "title": "against the base",
        "evaluations": {
            name: {"model": f"paper:{name}", "samples": dict.fromkeys(PROBLEMS, at[-1])} for name in MODELS
        },
        "claims": {
            **{
                name: {"needs": [list(needs)], "looks": [] if name == "amc23-63-to-80" else at}
                for name, needs in AGAINST_BASE.items()
            },
            SCORE: {"needs": [["open-rs3/aime24"]]},
        },
    }
    return Study.model_validate(tree)


def state_in(folder: Path, study: Study) -> state.State:
    folder.mkdir(exist_ok=True)
    return state.opened(folder, study, folder / "s.yaml", {"gpu": "A40", "gpus": 1, "price": 1.0}, accept_changes=False)


def draws(rng: np.random.Generator, k: int) -> list[Measured]:
    """Every model on every benchmark, k samples: some far apart, some alike, some the same."""
    found = []
    for benchmark, n in PROBLEMS.items():
        rates = rng.beta(0.03, 0.03, n)
        for name, model in MODELS.items():
            gain = 0.0 if name == "base" else rng.choice([-0.2, 0.0, 0.0, 0.15])
            found.append(power.measured(model, benchmark, sample_matrix(np.clip(rates + gain, 0, 1), k, rng)))
    return found


@pytest.mark.slow
def test_with_a_single_look_the_verdicts_are_those_of_the_fixed_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random evaluations through a study, claim after claim in any order, and through the report's judge."""
    monkeypatch.setattr(statistics, "RESAMPLES", 2)
    rng = np.random.default_rng(21)
    words: dict[str, set[str]] = {}
    for trial in range(8):
        study = study_of([int(rng.choice([4, 8]))])
        kept = state_in(tmp_path / str(trial), study)
        found = draws(rng, study.evaluations["base"].samples["aime24"])
        for name in rng.permutation([name for name in AGAINST_BASE if study.claims[name].looks]):
            looks.look_at(study, kept, str(name), found)
        every = looks.family(study)
        expected = judge(Evidence(found, [], []), every)
        got = judge(Evidence([], [], []), every, known=looks.prepared(study, kept, found))
        for (claim, fixed), (_, looked) in zip(expected, got, strict=True):
            assert looked.word == fixed.word, (trial, claim.id)
            assert {key: looked.numbers[key] for key in fixed.numbers} == fixed.numbers
            made = kept.looks(claim.id)
            assert not made or made[-1]["word"] == fixed.word  # what is written down is what the report says
            words.setdefault(claim.kind, set()).add(fixed.word)
    assert words["better"] == {"reproduced", "not reproduced", "smaller than the margin", "cannot tell"}
    assert len(words["gain"]) == 2


def test_what_is_judged_once_counts_the_first_look_whatever_was_seen_then(tmp_path: Path) -> None:
    """Evaluations that stopped early and those that went on give the same verdict on a printed draw and a gain."""
    study = study_of([4, 8, 16])
    kept = state_in(tmp_path, study)
    long = draws(np.random.default_rng(3), 16)
    short = [looks.first(one, 4) for one in long]
    fixed = [claim for claim in study_claims(study) if claim.id in (SCORE, "amc23-63-to-80")]
    said = []
    for found in (short, long):
        evidence = Evidence(looks.cut(study, found), [], [])
        known = looks.prepared(study, kept, found)
        said.append(
            [(verdict.word, verdict.said, verdict.numbers) for _, verdict in judge(evidence, fixed, known=known)]
        )
        assert [numbers["k"] for _, _, numbers in said[-1]] == [4, [4, 4]]
    assert said[0] == said[1]


def test_a_look_that_a_crash_left_unfinished_shows_nothing(tmp_path: Path) -> None:
    """Between the crash and the next start the report says what it said before, of the same samples."""
    study = study_of([4, 8, 16])
    kept = state_in(tmp_path, study)
    found = draws(np.random.default_rng(5), 16)
    every = looks.family(study)

    def said() -> dict[str, tuple[str, str]]:
        known = looks.prepared(study, kept, found)
        judged = judge(Evidence([], [], []), every, known=known)
        return {claim.id: (verdict.word, verdict.said) for claim, verdict in judged}

    assert said()["better-aime24"] == ("not tested", "no look was made yet")  # though its samples are there
    looks.look_at(study, kept, "better-aime24", found)
    before = said()
    kept.spend("better-aime24", 8, "crashed here")
    assert said() == before
    kept.tree["looks"]["better-aime24"] = [{**kept.looks("better-aime24")[0], "sha256": "of other samples"}]
    assert said()["better-aime24"][0] == "not tested"


def test_no_look_is_spent_on_nothing(tmp_path: Path) -> None:
    """Evaluations that were removed or replaced since: the look is refused, and still there."""
    study = study_of([4, 8])
    kept = state_in(tmp_path, study)
    found = draws(np.random.default_rng(5), 3)
    for there in ([], found, [one for one in found if one.model == power.BASE]):
        with pytest.raises(UserError, match="is not there with 4 samples"):
            looks.look_at(study, kept, "better-aime24", there)
    assert kept.looks("better-aime24") == []


def test_going_on_in_vain_is_said(tmp_path: Path) -> None:
    """Futility, which binds nobody: at the second look of two equal models a gain of 5 points is out of reach."""
    study = study_of([4, 12, 16])
    kept = state_in(tmp_path, study)
    rng = np.random.default_rng(1)
    found = [power.measured(name, "aime24", rng.integers(0, 2, (30, 16))) for name in (power.BASE, "Open-RS3")]
    assert "%, if there is one" in looks.look_at(study, kept, "better-aime24", found)
    looks.look_at(study, kept, "better-aime24", found)
    tests = looks.prepared(study, kept, found)["better-aime24"]
    ((_, verdict),) = judge(Evidence([], [], []), looks.family(study)[-1:], known={looks.family(study)[-1].id: tests})
    assert 0 <= verdict.numbers["conditional_power"] < 0.1
    assert "hardly worth it" in verdict.said


# --- the state of a study ---------------------------------------------------------------------------------------------


def test_money_counts_killed_attempts_and_each_machine_at_its_price(tmp_path: Path) -> None:
    study = study_of([4])
    kept = state_in(tmp_path, study)
    kept.tree["machine"] = {"gpu": "A40", "gpus": 4, "price": 0.5}
    kept.begin("base/aime24", folder="evaluations")
    kept.tree["jobs"]["base/aime24"]["attempts"][0]["started"] -= 3600
    kept.write()
    (tmp_path / "evaluations" / "eval" / "base").mkdir(parents=True)
    (tmp_path / "evaluations" / "eval" / "base" / "samples.jsonl").write_text("")  # written an hour after the start
    later = state_in(tmp_path, study)  # one GPU at 1.0
    assert later.dollars() == pytest.approx(2.0, rel=1e-2)
    later.begin("base/amc23")
    later.tree["jobs"]["base/amc23"]["attempts"][0]["seconds"] = 1800.0
    assert later.dollars() == pytest.approx(2.5, rel=1e-2)
    assert later.dollars("base/amc23") == pytest.approx(0.5)


def test_an_attempt_under_way_in_another_part_is_counted_as_far_as_its_own_files_tell(tmp_path: Path) -> None:
    kept = state_in(tmp_path, study_of([4]))
    kept.begin("base/aime24", folder="evaluations/eval/base")
    began = kept.attempts("base/aime24")[0]["started"]
    for model, hours, counted in (("base", 1, 1), ("open-rs1", 5, 1), ("base", 2, 2)):
        samples = tmp_path / "evaluations" / "eval" / model / "samples.jsonl"
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text("")
        os.utime(samples, (began + 3600 * hours,) * 2)
        other = state_in(tmp_path, study_of([4]))  # another part starts
        other.settle(["open-rs1/amc23"])
        assert other.seconds() == pytest.approx(3600 * counted)
    other.settle(["base/aime24"])  # killed, and its own part starts again
    os.utime(samples, (began + 3600 * 9,) * 2)
    known = state.read(tmp_path)
    assert known is not None
    assert known.seconds() == pytest.approx(7200)


LOOK = {"samples": 8, "at": "", "sha256": "", "word": "cannot tell"}


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("looks", {"better-aime24": [LOOK, {**LOOK, "samples": 4}]}, "were not made in this order"),
        ("looks", {"better-aime24": [{**LOOK, "samples": 0}]}, "were not made in this order"),
        ("looks", {"better-aime24": [{**LOOK, "p": {"differs": "low"}}]}, "looks.better-aime24.0.p.differs"),
        ("machine", {"gpu": "A40", "gpus": 1, "price": "cheap"}, "machine.price"),
        ("accepted", [{"at": "", "changes": []}], "accepted.0.looked"),
        ("jobs", {"a": {"attempts": [{"started": 0, "seconds": math.nan}], "done": True}}, "an attempt took a time"),
        ("jobs", {"a": {"attempts": [{"started": 0, "seconds": -9.0}], "done": True}}, "an attempt took a time"),
        ("jobs", {"a": {"attempts": [{"started": math.inf}], "done": True}}, "an attempt took a time"),
        ("jobs", {"a": {"attempts": [], "done": True, "samples": "all"}}, "jobs.a.samples"),
    ],
)
def test_a_damaged_state_is_refused_by_its_place(tmp_path: Path, part: str, value: object, said: str) -> None:
    kept = state_in(tmp_path, study_of([4, 8]))
    kept.tree[part] = value
    kept.write()
    with pytest.raises(UserError, match=re.escape(said)):
        state.read(tmp_path)


def test_settings_in_a_state_are_checked_as_those_of_a_file(tmp_path: Path) -> None:
    kept = state_in(tmp_path, study_of([4, 8]))
    state.study_of(kept)
    kept.tree["settings"]["claims"]["better-amc23"]["needs"] = []
    with pytest.raises(UserError, match=r"study.json: .*looks need one set of jobs"):
        state.study_of(kept)


def test_a_run_is_not_taken_for_a_studys_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"attempts": []}')
    with pytest.raises(UserError, match="is a run, and no study"):
        state_in(tmp_path, study_of([4]))
    assert not (tmp_path / "study.json").exists()


# --- what is run next -------------------------------------------------------------------------------------------------


def runner(folder: Path, study: Study, limits: Limits, command: str = "openrs reproduce s.yaml") -> Runner:
    machine = machine_of(study, "A40", 1, 1.0)
    return Runner(
        study, folder / "s.yaml", state_in(folder, study), machine=machine, limits=limits, progress=Progress(),
        command=command, also=[], accept_changes=False,
    )  # fmt: skip


def test_evaluations_go_where_the_looks_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a study that lives in the folder from which it is called (--run .)."""
    kept: list[str] = []
    targets = SimpleNamespace(
        evaluate_model=lambda *_, keep_in, **__: kept.append(keep_in), resolved=lambda *_, **__: (None, None, [])
    )
    monkeypatch.setitem(sys.modules, "openrs.evaluation.targets", targets)
    monkeypatch.chdir(tmp_path)
    run = runner(Path(), study_of([4]), Limits())
    job = Job("base/aime24", "base", 4, None, None, None)
    run.do(job, {job.id})
    assert run_at(kept[0]).path == Path("evaluations")


def test_a_claim_whose_other_jobs_are_not_run_holds_nobody_up(tmp_path: Path) -> None:
    """Above a threshold needs Open-RS3 alone; that the base is beyond the budget must not stop its sampling."""
    study = study_of([4, 8, 16])
    run = runner(tmp_path, study, Limits())
    job = Job("open-rs3/aime24", "open-rs3", 16, None, None, None)
    assert run.next([job]) is job
    run.state.tree["jobs"][job.id] = {"attempts": [], "done": False, "samples": 4}
    run.state.tree["looks"]["aime24-above-o1-preview"] = [{**LOOK, "samples": 4}]
    assert run.next([job]) is job
    assert run.due(job, {job.id}) == 8
    base = Job("base/aime24", "base", 16, None, None, None)
    assert run.next([job, base]) is base
    run.state.tree["looks"]["aime24-above-o1-preview"][0]["word"] = "reproduced"
    assert run.next([job]) is None


def test_what_to_type_next_keeps_the_budget_and_is_not_refused_again(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    for add in (add_options, lambda sub: sub.add_argument("--run")):
        add(parser)
    args = parser.parse_args(["--budget", "20", "--also", "a,b", "--run", "my run", "--until-hours", "8"])
    args.recipe, args.overrides = "paper", ["gpus=1"]
    command = resuming(args)
    assert command == "openrs reproduce paper --run 'my run' --budget 20.0 --also a,b --set gpus=1"
    run = runner(tmp_path, study_of([4]), Limits(until_usd=5.0, until_hours=8.0), command)
    run.state.tree["jobs"]["base/aime24"] = {"attempts": [{"started": 0.0, "seconds": 30.5 * 3600}], "done": False}
    with pytest.raises(UserError, match=r"\$30.50 are spent, and --until-usd is 5") as refused, run.limited():
        pass
    assert refused.value.fix == f"{command} --until-usd 36 --until-hours 8"


def test_what_is_judged_once_is_planned_with_the_first_look() -> None:
    study = study_of([4, 8, 16])
    every = {claim.id: power.looks_of(study, claim) for claim in looks.family(study)}
    assert every == {**{name: [4, 8, 16] for name in AGAINST_BASE}, "amc23-63-to-80": [4]}
