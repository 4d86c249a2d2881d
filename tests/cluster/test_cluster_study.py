"""`openrs cluster submit STUDY`: one Indexed Job, whose indexes are the parts of the study."""

import math
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from emulator import IMAGE, Emulated

from openrs.cli.main import main, parser
from openrs.cluster import remote
from openrs.cluster.sizes import sizes_of
from openrs.config.load import load
from openrs.study import settings
from openrs.study.jobs import independent, jobs_of, machine_of, recipe_of

pytestmark = pytest.mark.slow

OWN = """
title: does my change help?
gpu: A40
gpus: 4
evaluations:
  base: {model: "paper:base", samples: {amc23: 8}}
  mine: {model: "paper:open-rs1", samples: {amc23: 8}}
trainings:
  mine-early: {recipe: mine.yaml, until: 10, seeds: [1, 2, 3]}
  mine-late: {recipe: mine.yaml, until: 20, seeds: [1, 2, 3], after: mine-early}
claims:
  helps: {text: mine is better than its base, benchmark: amc23, margin: 2, needs: [[mine-late]]}
  score-open-rs1-amc23: {needs: [[mine/amc23]]}
"""


@pytest.fixture(autouse=True)
def without_powers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs.study.run.powers_of", lambda *_: {})


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text("extends: exp3\ntitle: mine\ngrpo: {learning_rate: 2e-6}\n")
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "# my token is hf_abcdefghijklmnop\n")
    return path


def printed(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    assert main(["cluster", "submit", *words, "--image", IMAGE, "--dry-run"]) == 0
    claim, job = yaml.safe_load_all(capfd.readouterr().out)
    kubernetes_validate.validate(job, "1.31", strict=True)
    return claim, job


def containers(job: dict[str, Any]) -> dict[str, Any]:
    pod = job["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


def as_the_kubelet(job: dict[str, Any], folder: Path) -> None:
    """The files that the Pod's volume `recipe` has."""
    notes = job["spec"]["template"]["metadata"]["annotations"]
    (volume,) = (one for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == "recipe")
    for item in volume["downwardAPI"]["items"]:
        (folder / item["path"]).write_text(notes[item["fieldRef"]["fieldPath"].split("'")[1]])


def test_every_index_runs_a_part_by_a_command_of_this_openrs(
    server: Emulated, capfd: pytest.CaptureFixture[str]
) -> None:
    _, job = printed(capfd, "paper", "--also", "exp1-whole", "--set", "price=0.5", "--until-usd", "90", "--parallel=3")
    study = settings.load(settings.STUDIES / "paper.yaml", ["price=0.5"])
    spec = job["spec"]
    assert (spec["completionMode"], spec["parallelism"]) == ("Indexed", 3)
    count = spec["completions"]
    assert count <= len(independent(study, jobs_of(study, machine_of(study, None, None, None), settings.STUDIES)))
    assert containers(job).keys() == {"fetch", "train"}
    fetch = parser().parse_args(containers(job)["fetch"]["args"])
    assert (fetch.recipes, fetch.overrides, fetch.quick) == (["paper"], ["price=0.5"], True)
    for index in (0, count - 1):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in containers(job)["train"]["args"]]
        args = parser().parse_args(words)
        assert (args.recipe, args.run, args.part, args.parallel) == ("paper", "paper", (index, count), 3)
        assert (args.also, args.overrides, args.until_usd) == (["exp1-whole"], ["price=0.5"], 90)
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["FailIndex", "Ignore", "Ignore"]
    assert server.asked("GET") == server.asked("POST") == []


def test_hours_are_the_jobs_deadline_and_the_volume_holds_every_run(
    capfd: pytest.CaptureFixture[str], own: Path
) -> None:
    claim, job = printed(capfd, str(own), "--until-hours", "1.5")
    assert job["spec"]["activeDeadlineSeconds"] == 5400
    assert job["spec"]["completions"] == 4  # three seeds, each to step 10 and on to 20, and one evaluation
    assert job["spec"]["parallelism"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    late = recipe_of(settings.load(own).trainings["mine-late"], 1, own.parent, elsewhere=True)
    whole, single = claim["spec"]["resources"]["requests"]["storage"], sizes_of(late).storage
    assert single is not None
    models = 2 * 2 * 1.78e9 / 2**30  # two models, two bytes a parameter
    assert int(whole[:-2]) == 3 * int(single[:-2]) + math.ceil(1.35 * models)


def test_a_study_of_ones_own_goes_with_the_pod(capfd: pytest.CaptureFixture[str], own: Path, tmp_path: Path) -> None:
    _, job = printed(capfd, str(own))
    assert containers(job)["train"]["args"][1] == "/recipe/own.yaml"
    assert "hf_abc" not in str(job)
    there = tmp_path / "recipe"
    there.mkdir()
    as_the_kubelet(job, there)
    study = settings.load(there / "own.yaml")
    assert study == settings.load(own)
    train = study.trainings["mine-late"]
    assert recipe_of(train, 1, there, elsewhere=True) == recipe_of(train, 1, tmp_path, elsewhere=True)
    assert recipe_of(train, 1, there, elsewhere=True).grpo["learning_rate"] == load("exp3").grpo["learning_rate"] * 2


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("hub", [True, False])
def test_what_is_needed_from_the_hub_is_fetched_first_whatever_the_largest_recipe_needs(
    capfd: pytest.CaptureFixture[str], own: Path, gpus: int, hub: bool
) -> None:
    tree = yaml.safe_load(OWN.replace("mine.yaml", "demo"))
    tree["gpus"], tree["gpu"] = gpus, "A40" if gpus else "none"
    if not hub:
        del tree["evaluations"], tree["claims"]["score-open-rs1-amc23"]
    own.write_text(yaml.safe_dump(tree))
    _, job = printed(capfd, str(own), "--also", "mine-late")
    found = containers(job)
    assert found.keys() == ({"fetch", "train"} if hub else {"train"})
    assert {one["image"] for one in found.values()} == {IMAGE}
    assert ("openrs-fetches" in job["spec"]["template"]["metadata"]["labels"]) == hub


def test_submitted_twice_it_is_one_job_and_another_study_is_refused(
    server: Emulated, capfd: pytest.CaptureFixture[str], own: Path
) -> None:
    server.node("gpu-1")
    words = ["cluster", "submit", str(own), "--image", IMAGE, "--detach", "--storage-class", "x", "--force"]
    for _ in range(2):
        assert main(words) == 0
    assert "Job openrs-own exists already" in capfd.readouterr().out
    assert len(server.asked("POST", "/jobs")) == 3  # two dry runs of the preflight, one that is meant
    recipe = own.with_name("mine.yaml")  # as telling as the study itself
    recipe.write_text(recipe.read_text().replace("2e-6", "3e-6"))
    assert main(words) == 2
    said = capfd.readouterr().err
    assert "created with other options or another file:\n    SHA-256 of the file" in said
    assert "its claim, and what is on it, stays" in said
    command = said[said.index("openrs cluster delete") :].split()[1:4]
    assert main([*command, "--yes"]) == 0  # what the message says goes on with the new settings, on the old claim
    assert main(words) == 0
    assert "claim openrs-own exists and is kept" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["paper", "--train-only"], "--train-only is for recipes"),
        (["exp3", "--parallel", "2"], "--parallel is for studies"),
        (["exp3", "--gpus", "0"], "--gpus is for studies"),
        (["data.yaml"], "the study names files of this machine: evaluation.data: ./here; samples: sums.yaml"),
        (["paper", "--budget", "0.01"], "nothing is planned"),
        (["own.yaml"], "the study names files of this machine: model: /home/me/model"),
        (["above.yaml"], "../mine.yaml is not below the folder"),
    ],
)
def test_what_a_pod_could_not_do_is_refused(
    capfd: pytest.CaptureFixture[str], own: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    below = own.parent / "below"
    below.mkdir()
    sized = "model: /home/me/model, sizes: knoveleng/Open-RS1"
    (below / "own.yaml").write_text(OWN.replace('model: "paper:open-rs1"', sized).replace("mine.yaml", "exp3"))
    (below / "data.yaml").write_text(
        OWN.replace("mine.yaml", "exp3").replace("{amc23: 8}", "{amc23: 8, sums.yaml: 1}", 1)
        + "evaluation: {data: ./here}\n"
    )
    (below / "sums.yaml").write_text("sums: {rows: 4, question: q, gold: [a], gold_kind: expr}\n")
    (below / "above.yaml").write_text(OWN.replace("mine.yaml", "../mine.yaml"))
    monkeypatch.chdir(below)
    assert main(["cluster", "submit", *words, "--dry-run"]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["report", "all"])
def test_of_a_study_its_report_and_its_runs_are_collected_without_weights(tmp_path: Path, kind: str) -> None:
    small = ["study.json", "report.html", "mine-seed1/metrics.jsonl", "mine-seed1/attempts/01/log"]
    small += ["evaluations/eval/base/scores.json"]
    texts = ["mine-seed1/completions.jsonl", "evaluations/eval/base/samples.jsonl", "parts/0/log"]
    for name in (
        *small,
        *texts,
        "mine-seed1/checkpoints/step-10/model.safetensors",
        "mine-seed1/base/x",
        ".state-lock",
    ):
        (tmp_path / "paper" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "paper" / name).write_text("{}")
    found = {str(Path(path).relative_to(tmp_path / "paper")) for path in remote.files(str(tmp_path), kind, [])}
    assert found == {*small, *(texts if kind == "all" else [])}
