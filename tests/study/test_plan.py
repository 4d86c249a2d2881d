"""What a study's plan says, against the planner itself; what is refused, and with which words."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.errors import UserError
from openrs.planner.gpus import find
from openrs.planner.plan import plan as training_plan
from openrs.planner.shapes import shape_of
from openrs.planner.times import Draws, evaluation_seconds
from openrs.report.evidence import reference
from openrs.report.verdicts.claims import claims
from openrs.study import settings
from openrs.study.jobs import jobs_of, machine_of, recipe_of, references_of
from openrs.study.plan import Power, StudyPlan, _Planner, make_plan
from openrs.study.settings import STUDIES, Study

A40 = find("A40")


@pytest.fixture(scope="module")
def paper() -> Study:
    return settings.load(STUDIES / "paper.yaml")


def planned(study: Study, powers: dict[str, Power] | None = None, **limits: float) -> StudyPlan:
    return make_plan(study, machine_of(study, None, None, None), STUDIES, powers or {}, **limits)


def test_every_claim_of_the_paper_is_asked_about(paper: Study) -> None:
    assert set(paper.claims) == {claim.id for claim in claims()}
    for claim in claims():
        assert bool(paper.claims[claim.id].needs) == (claim.at_most != "by construction"), claim.id


def test_costs_are_the_planners(paper: Study) -> None:
    """An evaluation by the planner's formula; a training by its hours, and the second stage without the first."""
    machine = machine_of(paper, "A40", 2, 0.5)
    jobs = {job.id: job for job in jobs_of(paper, machine, STUDIES)}
    shape = shape_of(recipe_of(paper.trainings["exp3-released"], 42, STUDIES, elsewhere=True).model)
    seconds = evaluation_seconds(shape, A40, 2, [Draws(30 * 64, 14_600)], cap=32_768)
    assert seconds is not None
    looked = jobs["base/aime24"].hours
    assert looked is not None
    assert looked.expected == pytest.approx((seconds + 3 * 180) / 3600)  # four looks load the model four times
    once = jobs["open-rs1/amc23"].hours
    seconds = evaluation_seconds(shape, A40, 2, [Draws(40 * 16, 9_500)], cap=32_768)
    assert once is not None
    assert seconds is not None
    assert once.expected == pytest.approx(seconds / 3600)
    assert once.low < once.expected < once.high
    first, second = (jobs[f"exp3-{stage}/seed43"].hours for stage in ("released", "whole"))
    whole = training_plan(recipe_of(paper.trainings["exp3-whole"], 43, STUDIES, elsewhere=True), gpu="A40", gpus=2)
    judged = evaluation_seconds(shape, A40, 2, [Draws(40 * 16, 9_500), Draws(500 * 4, 4_100)], cap=32_768)
    assert first is not None
    assert second is not None
    assert whole.hours is not None
    assert judged is not None
    both = whole.hours + 180 / 3600 + 3 * judged / 3600  # started twice; base, step 50 and step 500 evaluated
    assert first.expected + second.expected == pytest.approx(both, rel=1e-6)
    dollars = machine.dollars(once)
    assert dollars is not None
    assert dollars.expected == pytest.approx(once.expected * 2 * 0.5)


def test_nine_of_ten_logged_evaluations_lie_in_the_planners_range() -> None:
    from openrs.config.schema import Model
    from openrs.evaluation.benchmarks import known
    from openrs.planner.times import LEAST, MOST

    shape = shape_of(Model(name="knoveleng/Open-RS1"))
    inside = []
    for row in reference.tree()["checkpoints"]:
        for name, result in row["results"].items():
            draws = [Draws(result["problems"], result.get("tokens") or known()[name].tokens)]
            seconds = evaluation_seconds(shape, A40, 1, draws, cap=32_768)
            assert seconds is not None
            inside.append(LEAST <= result["seconds"] / seconds <= MOST)
    assert len(inside) == 69
    assert sum(inside) >= 0.9 * len(inside)


def test_the_cheapest_way_decides_all_that_can_be_decided(paper: Study) -> None:
    """No other choice of trainings decides as much for less; a claim is ready only when its jobs are done."""
    plan = planned(paper)
    assert sorted(plan.decided) == sorted(plan.decidable)
    assert len(plan.decidable) == 14
    assert len(plan.never) == 21
    done: set[str] = set()
    for row in plan.rows:
        done |= {job.id for job in row.jobs} | {job.entry for job in row.jobs if job.training}
        for name in row.decides:
            assert any(all(need in done for need in needs) for needs in paper.claims[name].needs), name
    entries = {row.jobs[0].entry for row in plan.rows if row.seeds}
    assert "exp1-whole" in entries  # the only one that tells whether exp1's length rises again
    assert not entries & {"exp2-whole", "exp3-whole"}  # what it decides, exp1-whole has decided
    assert len(entries & {"exp2-released", "exp3-released"}) == 1
    sums = [row.total.expected for row in plan.rows if row.total]
    assert sums == sorted(sums)


@pytest.mark.parametrize("budget", [1.0, 6.0, 20.0, 50.0])
def test_a_budget_is_kept_and_what_it_leaves_out_is_said(paper: Study, budget: float) -> None:
    plan = planned(paper, budget=budget)
    if plan.rows:
        assert plan.rows[-1].total is not None
        assert plan.rows[-1].total.expected <= budget
    left = [name for row in plan.beyond for name in row.decides]
    assert sorted([*plan.decided, *left]) == sorted(plan.decidable)
    richer = planned(paper, budget=2 * budget)
    assert len(richer.decided) >= len(plan.decided)


def test_power_decides_the_order(paper: Study) -> None:
    """What is nearly sure to give a verdict comes before what is hopeless, at about the same price."""
    hopeless = {"better-aime24": Power(0.0, 0.0), "aime24-above-o1-preview": Power(0.0, 0.0)}
    order = [row.name for row in planned(paper, hopeless).rows]
    assert order.index("open-rs2/amc23") < order.index("open-rs3/aime24")
    hopeless = {"better-amc23": Power(0.0, 0.0)}
    order = [row.name for row in planned(paper, hopeless).rows]
    assert order.index("open-rs3/aime24") < order.index("open-rs2/amc23")


def test_other_gpus_cannot_decide_what_four_a40_take(paper: Study) -> None:
    plan = make_plan(paper, machine_of(paper, "H100", 1, None), STUDIES, {})
    said = {claim.id: reason for claim, reason in plan.never}
    for name in ("hours-24", "dollars-42"):
        assert "four A40" in said[name]
        assert name not in plan.decided


@pytest.mark.slow
def test_the_plan_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from openrs.cli.main import main; from openrs.study import power;"
        "power.PLAN_TRIALS = 2; power.RULE_TRIALS = 1;"
        "code = main(['reproduce', 'paper', '--plan', '--budget', '20', '--page', 'plan.html']);"
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules); sys.exit(code or str(heavy or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "claims that data can decide can be decided for $" in done.stdout
    assert "what no money decides" in done.stdout
    page = (tmp_path / "plan.html").read_text()
    assert "Dollars against claims decided" in page
    assert "better-aime24" in page


OWN = """
title: does my reward help?
gpu: none
gpus: 0
trainings:
  mine: {recipe: demo, until: 20, seeds: [1, 2, 3]}
claims:
  mine-helps: {text: my recipe is better than its base, benchmark: demo, margin: 3, needs: [[mine]]}
"""


def test_a_study_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    study = settings.load(file)
    (claim,) = settings.study_claims(study)
    assert (claim.kind, claim.margin, claim.benchmark) == ("improves", 3.0, "demo")
    plan = make_plan(study, machine_of(study, None, None, None), tmp_path, {})
    (row,) = plan.rows
    assert row.decides == ("mine-helps",)
    assert row.seeds == [1, 2, 3]
    assert row.hours is None  # how fast a CPU is only a run on it can say


def test_a_limit_that_nobody_can_keep_is_refused(paper: Study, tmp_path: Path) -> None:
    """Without a price everything would be within any budget."""
    (tmp_path / "own.yaml").write_text(OWN)
    own = settings.load(tmp_path / "own.yaml")
    for study, gpu, limits in (
        (own, None, {"budget": 1.0}),
        (own, None, {"hours": 1.0}),
        (paper, "B300x", {"budget": 1.0}),
    ):
        with pytest.raises(UserError, match=r"no price is known|is not known"):
            make_plan(study, machine_of(study, gpu, None, None), tmp_path, {}, **limits)


def test_no_money_decides_what_does_not_fit_or_has_two_seeds(paper: Study, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace("[1, 2, 3]", "[1, 2]"))
    own = settings.load(tmp_path / "own.yaml")
    plan = make_plan(own, machine_of(own, None, None, None), tmp_path, {})
    assert [reason for _, reason in plan.never] == ["fewer than 3 seeds decide nothing"]
    assert not plan.decided
    plan = make_plan(paper, machine_of(paper, "RTX-4090", 1, None), STUDIES, {})
    said = {claim.id: reason for claim, reason in plan.never}
    assert said["decay-after-150"] == "does not fit on 1 x RTX-4090"
    assert set(plan.decided) == {name for name in plan.decidable if paper.claims[name].looks}


def test_a_model_that_no_gpu_holds_ends_no_plan(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    sizes |= {"intermediate_size": 29568, "vocab_size": 152064}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", **sizes}))
    file = tmp_path / "own.yaml"
    file.write_text(
        "title: large\ngpu: A40\nevaluations:\n"
        f"  base: {{model: paper:base, sizes: {tmp_path}, samples: {{amc23: 8}}}}\n"
        "  open-rs2: {model: paper:open-rs2, samples: {amc23: 8}}\n"
        "claims: {better-amc23: {needs: [[base/amc23, open-rs2/amc23]], looks: [4, 8]}}\n"
    )
    study = settings.load(file)
    plan = make_plan(study, machine_of(study, None, None, None), tmp_path, {})
    assert [reason for _, reason in plan.never] == ["does not fit on 1 x A40"]


def test_a_training_continues_one_that_ends_before_it(tmp_path: Path) -> None:
    mine = "mine: {recipe: demo, until: 20, seeds: [1, 2, 3]"
    own = OWN.replace(mine, f"{mine}, after: more}}\n  {mine.replace('mine', 'more')}")
    (tmp_path / "own.yaml").write_text(own.replace("gpu: none\ngpus: 0", "gpu: A40\ngpus: 1"))
    study = settings.load(tmp_path / "own.yaml")
    with pytest.raises(UserError, match="mine continues more to step 20, which ends at step 20"):
        make_plan(study, machine_of(study, None, None, None), tmp_path, {})


def test_the_example_of_the_docs_is_a_study(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "study.md").read_text()
    lines = docs[docs.index("    title: does my reward help?") :].splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("    openrs reproduce"))
    (tmp_path / "own.yaml").write_text("\n".join(line[4:] for line in lines[:end]))
    (tmp_path / "mine.yaml").write_text("extends: exp3\ntitle: mine\n")
    study = settings.load(tmp_path / "own.yaml")
    plan = make_plan(study, machine_of(study, None, None, None), tmp_path, {})
    assert plan.decided == ["mine-helps"]
    assert plan.rows[0].dollars is not None


def test_all_that_a_study_needs_can_be_fetched_before(paper: Study) -> None:
    needed = {ref.repo for ref in references_of(paper, STUDIES)}
    assert {
        "knoveleng/OpenRS-GRPO",
        "PRIME-RL/Eurus-2-7B-PRIME",
        "knoveleng/open-rs",
        "knoveleng/Minerva-Math",
    } <= needed


@pytest.mark.parametrize(
    ("benchmark", "looks", "early"),
    [("amc23", [25, 64], True), ("amc23", [26, 64], False), ("amc23", [4, 10], False), ("amc23", [3, 10], True),
     ("amc23", [10], False), ("aime24", [16, 32, 48, 64], True), ("aime24", [26, 39, 64], False),
     ("math_500", [4, 16], False)],
)  # fmt: skip
def test_few_problems_are_not_looked_at_too_early(
    tmp_path: Path, benchmark: str, looks: list[int], early: bool
) -> None:
    """Before 0.4 of all samples 30 or 40 problems can hardly reach what may be spent there (docs/study-design.md)."""
    name, model = ("better-aime24", "open-rs3") if benchmark == "aime24" else ("better-" + benchmark, "open-rs2")
    name, file = name.replace("_", "-"), tmp_path / "s.yaml"
    entries = "".join(
        f"  {one}: {{model: 'paper:{one}', samples: {{{benchmark}: {looks[-1]}}}}}\n" for one in ("base", model)
    )
    needs = f"[[base/{benchmark}, {model}/{benchmark}]]"
    file.write_text(f"title: t\nevaluations:\n{entries}claims:\n  {name}: {{needs: {needs}, looks: {looks}}}\n")
    if early:
        least = next(look for look in range(1, looks[-1] + 1) if look / looks[-1] >= 0.4)
        with pytest.raises(UserError, match=rf"s.yaml:6: the first look, at {looks[0]} .* look from {least} on"):
            settings.load(file)
    else:
        settings.load(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: [1", "seedz: [1", r"own.yaml:6: there is no setting trainings.mine.seedz; did you mean .*seeds"),
        ("needs: [[mine]]", "needs: [[mein]]", r"own.yaml:8: there is no job mein; did you mean mine"),
        ("mine-helps: {text: my recipe is better than its base, ", "better-amc32: {", r"did you mean better-amc23"),
        ("margin: 3, ", "", r"own.yaml:8: a claim of your own needs benchmark and margin"),
        ("needs: [[mine]]", "looks: [4, 2], needs: [[mine]]", r"looks must be numbers of samples that grow"),
        ("needs: [[mine]]", "looks: [2, 4], needs: [[mine]]", r"is looked at once"),
        ("until: 20", "until: 20, after: yours", r"own.yaml:6: mine cannot continue yours"),
        ("gpus: 0", "gpus: -1", r"own.yaml:4: gpus = -1"),
        ("mine-helps:", "'mine <b>':", r"own.yaml:8: 'mine <b>' is not a name"),
        ("needs: [[mine]]", "needs: [[]]", r"own.yaml:8: needs has an empty set of jobs"),
        ("claims:\n", "claims:\n  better-amc23: {needs: [[mine]]}\n", r"needs evaluations on amc23, and mine is none"),
        ("claims:\n", "evaluations: {e: {model: m, samples: {amc23: 1}}}\nclaims:\n  decay-after-150: {needs: [[e]]}\n",
         r"a claim of kind decay needs trainings, and e is none"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused_with_file_and_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "own.yaml"
    assert old in OWN
    file.write_text(OWN.replace(old, new))
    with pytest.raises(UserError, match=said):
        settings.load(file)


@pytest.mark.parametrize("words", [["--parallel", "2"], ["--plan", "--part", "0/2"]])
def test_what_is_for_parts_is_refused_for_the_whole(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["reproduce", "paper", *words]) == 2
    assert "is for parts that are run" in capfd.readouterr().err


def test_hours_of_jobs_do_not_depend_on_their_order(paper: Study) -> None:
    """A set's order differs from one process to the next, and ways that cost the same would be ordered by it."""
    planner = _Planner(paper, machine_of(paper, None, None, None), STUDIES, {}, budget=None, hours=None)
    names = [name for name, job in planner.jobs.items() if job.hours is not None]
    orders = [random.Random(seed).sample(names, len(names)) for seed in range(20)]
    assert len({planner._hours(order) for order in orders}) == 1
