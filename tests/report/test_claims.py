"""Verdicts on the paper's claims: by which rule, from which evidence, and never without any."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from made_run import made_run, manifest, metrics_row, verdicts, write_evaluation, write_scores

from openrs.evaluation.single_draws import count_of, middle_of, new_draw, p_values
from openrs.report.evidence import reference
from openrs.report.evidence.collect import collect
from openrs.report.evidence.sources import Sources, gather, measured, pooled
from openrs.report.pages.document import document
from openrs.report.verdicts.claims import NO_EVIDENCE, WORDS, Evidence, claims
from openrs.report.verdicts.cost import ledger
from openrs.report.verdicts.judge import judge
from openrs.run.directory import Run

BASE = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"


def judged(*paths: Path) -> dict[str, tuple]:
    sources = gather([str(path) for path in paths])
    evidence = Evidence(pooled(measured(sources)), sources.runs, [ledger(run) for run in sources.runs])
    return {claim.id: (verdict.word, verdict) for claim, verdict in judge(evidence)}


def varied(n: int, k: int, seed: int = 0, shift: float = 0.0) -> dict[str, list[int]]:
    """Problems of all difficulties, k samples each, about half right before the shift."""
    draw = random.Random(seed)
    ease = [random.Random(i).random() for i in range(n)]
    return {f"p{i}": [int(draw.random() < e + shift) for _ in range(k)] for i, e in enumerate(ease)}


def test_every_claim_of_the_table_and_the_text_is_there_with_what_it_needs():
    every = claims()
    assert len({claim.id for claim in every}) == len(every) == 35
    assert all(claim.text and claim.needs and claim.level in ("L0", "L1", "L2", "L3") for claim in every)
    printed = {(c.model, c.benchmark): c.published for c in every if c.kind == "score"}
    assert printed["Open-RS3", "aime24"] == 46.7
    assert len(printed) == 15
    assert [c.published for c in every if c.kind == "average"] == [53.0, 55.7, 56.3]


def test_nothing_is_reproduced_or_even_tested_without_data():
    tree = document(Sources())
    words = {claim["id"]: claim["verdict"] for claim in tree["claims"]}
    assert {id_ for id_, word in words.items() if word == "by construction"} == {"samples-7000", "outputs-42000"}
    assert set(words.values()) == {"by construction", "not tested"}
    assert {word: count for word, count in tree["verdicts"].items() if count} == {
        "by construction": 2,
        "not tested": 33,
    }
    assert [level["state"] for level in tree["levels"]] == ["not tried"] * 4


def test_the_authors_own_logs_equal_the_table_and_are_no_new_measurement(shared_data):
    sources = gather([str(shared_data / "paper_logs")])
    tree = document(sources)
    found = {(row["model"], row["benchmark"]): row for row in tree["results"]}
    assert {key: round(100 * row["accuracy"], 1) for key, row in found.items()} == {
        ("Open-RS2", "aime24"): 30.0,
        ("Open-RS2", "math_500"): 85.4,
        ("Open-RS2", "amc23"): 80.0,
        ("Open-RS2", "minerva"): 30.5,
        ("Open-RS2", "olympiadbench"): 52.4,
        ("Open-RS3", "aime24"): 46.7,
        ("Open-RS3", "math_500"): 84.4,
        ("Open-RS3", "amc23"): 72.5,
        ("Open-RS3", "minerva"): 26.8,
        ("Open-RS3", "olympiadbench"): 51.3,
    }
    assert {(row["inputs"], row["as_printed"], row["origin"]) for row in found.values()} == {
        ("verified", True, "authors' log")
    }
    assert {claim["verdict"] for claim in tree["claims"]} == {"not tested", "by construction"}
    levels = {level["level"]: level["state"] for level in tree["levels"]}
    assert levels == {"L0": "proven", "L1": "not tried", "L2": "not tried", "L3": "not tried"}
    averages = {c["model"]: c["numbers"] for c in tree["claims"] if c["kind"] == "average"}
    assert averages["Open-RS2"]["as_printed"]
    assert averages["Open-RS3"]["as_printed"]
    assert averages["Open-RS3"]["accuracy"] == pytest.approx(0.56333, abs=5e-6)


def test_a_published_draw_is_judged_by_the_prediction_of_a_new_one(tmp_path):
    run = Run(tmp_path / "evaluations")
    near, far = varied(30, 16, shift=-0.05), verdicts(30, 48, 16)
    write_scores(run, "knoveleng/Open-RS3", {"aime24": near})
    write_scores(run, "knoveleng/Open-RS2", {"aime24": {p: [0] * 16 for p in far}})
    found = judged(run.path)
    word, verdict = found["score-open-rs3-aime24"]
    chances = new_draw(list(near.values()))
    assert word == "compatible"
    assert verdict.numbers["p"] == p_values(chances)[count_of(14 / 30, 30)]
    assert verdict.numbers["prediction"] == [middle_of(chances).low, middle_of(chances).high]
    assert verdict.level == "L2"
    assert found["score-open-rs2-aime24"][0] == "not reproduced"
    assert found["score-open-rs1-aime24"][0] == "not tested"


def test_a_single_draw_can_never_be_more_than_compatible(tmp_path):
    """A model that gives exactly what is printed, on all five benchmarks."""
    run = Run(tmp_path / "evaluations")
    logs = [one for one in reference.logs() if one.model == "Open-RS3"]
    rows = {one.benchmark: verdicts(one.n, round(one.accuracy * one.n) * 4, 4) for one in logs}
    write_scores(run, "knoveleng/Open-RS3", rows)
    found = judged(run.path)
    words = {
        claim: word for claim, (word, _) in found.items() if claim.startswith(("score-open-rs3", "average-open-rs3"))
    }
    assert set(words.values()) == {"compatible"}
    assert len(words) == 6


@pytest.mark.parametrize(
    ("right", "word"), [(14, "cannot tell"), (9, "cannot tell"), (1, "not reproduced"), (30, "not reproduced")]
)
def test_two_single_draws_are_compared_by_fishers_exact_test(tmp_path, right, word):
    run = Run(tmp_path / "evaluations")
    write_scores(run, "knoveleng/Open-RS3", {"aime24": verdicts(30, right)})
    found = judged(run.path)["score-open-rs3-aime24"]
    assert found[0] == word
    assert "Fisher" in found[1].numbers["method"]


@pytest.mark.parametrize(
    ("n", "more", "why"),
    [
        (30, {"temperature": 0.8}, "sampling is not the paper's: temperature 0.8"),
        (30, {"max_tokens": 4096}, "max_tokens 4096"),
        (29, {}, "it has 29 problems, the paper 30"),
        (30, {"inputs": "differs"}, "inputs are not the paper's"),
    ],
)
def test_evidence_that_does_not_count_is_named_and_decides_nothing(tmp_path, n, more, why):
    run = Run(tmp_path / "evaluations")
    write_scores(run, "knoveleng/Open-RS3", {"aime24": verdicts(n, 14, 1)}, **more)
    word, verdict = judged(run.path)["score-open-rs3-aime24"]
    assert word == "not tested"
    assert why in verdict.said


def test_better_than_the_base_is_a_paired_test_on_the_same_problems(tmp_path):
    run = Run(tmp_path / "evaluations")
    base = varied(40, 8, seed=1)
    write_scores(run, BASE, {"amc23": base, "math_500": varied(500, 32, seed=1)})
    write_scores(run, "knoveleng/Open-RS2", {"amc23": varied(40, 8, 2, 0.17), "math_500": varied(500, 32, seed=2)})
    found = judged(run.path)
    assert found["better-amc23"][0] == "reproduced"
    assert found["better-amc23"][1].numbers["difference"] > 0.1
    assert found["better-math-500"][0] == "smaller than the margin"
    assert "no gain of the margin's size, 2 points" in found["better-math-500"][1].said
    assert found["better-aime24"][0] == "not tested"
    assert found["amc23-63-to-80"][0] == "compatible"


def test_a_gain_much_smaller_than_the_published_one_is_not_reproduced(tmp_path):
    run = Run(tmp_path / "evaluations")
    write_scores(run, BASE, {"amc23": varied(40, 64, seed=1)})
    write_scores(run, "knoveleng/Open-RS2", {"amc23": varied(40, 64, seed=2)})
    word, verdict = judged(run.path)["amc23-63-to-80"]
    assert word == "not reproduced"
    assert verdict.numbers["published"] == pytest.approx(0.171)


def test_pairs_with_other_sampling_are_no_pairs(tmp_path):
    run = Run(tmp_path / "evaluations")
    write_scores(run, BASE, {"amc23": varied(40, 8, seed=1)}, engine="transformers")
    write_scores(run, "knoveleng/Open-RS2", {"amc23": varied(40, 8, 2, 0.17)})
    assert judged(run.path)["better-amc23"][0] == "not tested"


def test_a_threshold_is_passed_by_the_whole_interval_only(tmp_path):
    for right, word in ((30 * 16, "reproduced"), (14 * 16 - 8, "cannot tell"), (3 * 16, "not reproduced")):
        run = Run(tmp_path / str(right))
        write_scores(run, "knoveleng/Open-RS3", {"aime24": varied_to(30, 16, right)})
        assert judged(run.path)["aime24-above-o1-preview"][0] == word


def varied_to(n: int, k: int, right: int) -> dict[str, list[int]]:
    """`right` of the n k samples right, the first problems half, so that the interval has a width."""
    rows = verdicts(n, right, k)
    return {p: marks if right == n * k else sorted(marks) for p, marks in rows.items()}


@pytest.mark.parametrize("right", [0, 14, 29])
@pytest.mark.parametrize("count", [1, 2])
def test_models_trained_here_say_nothing_on_the_authors_weights(tmp_path, right, count):
    """Neither for nor against: whatever the checkpoints of one or two seeds score, on every claim of level L2."""
    paths = []
    for seed in range(count):
        run = made_run(tmp_path / f"run{seed}", steps=20, seed=seed, checkpoints=(0,), benchmarks=(("amc23", 40, 0.6),))
        every = {
            name: verdicts(n, round(right / 30 * n) * 8, 8)
            for name, n in reference.tree()["problems"].items()
            if name in reference.TABLE_BENCHMARKS
        }
        write_scores(run, "step-000050", every, step=50)
        paths.append(run.path)
    tested = {id_: verdict for id_, (word, verdict) in judged(*paths).items() if word not in NO_EVIDENCE}
    about = [verdict for id_, verdict in tested.items() if not id_.startswith(("gain-by", "length", "kl", "decay"))]
    assert {"score-open-rs3-aime24", "average-open-rs3", "aime24-above-o1-preview"} <= set(tested)
    assert {verdict.word for verdict in about} == {"cannot tell"}
    assert all("another training" in verdict.said for id_, verdict in tested.items() if "open-rs3" in id_)


def seeds(folder: Path, gain: float, count: int, **options) -> list[Path]:
    paths = []
    for seed in range(count):
        run = made_run(folder / f"seed{seed}", steps=20, seed=seed, gain=gain, samples=8, **options)
        paths.append(run.path)
    return paths


@pytest.mark.slow
def test_three_seeds_reproduce_a_claim_on_training_and_one_does_not(tmp_path):
    paths = seeds(tmp_path, 0.2, 3)
    assert judged(*paths)["gain-by-100-amc23"][0] == "reproduced"
    for some in (paths[:1], paths[:2]):
        word, verdict = judged(*some)["gain-by-100-amc23"]
        assert word == "cannot tell"
        assert verdict.numbers["seeds"] == len(some)
        assert "3 are needed" in verdict.said
    levels = {level["level"]: level for level in document(gather([str(path) for path in paths]))["levels"]}
    assert levels["L3"]["state"] == "3 seeds"


def test_the_same_seed_three_times_is_one_seed(tmp_path):
    paths = [made_run(tmp_path / f"copy{i}", steps=20, seed=7, gain=0.2, samples=8).path for i in range(3)]
    word, verdict = judged(*paths)["gain-by-100-amc23"]
    assert word == "cannot tell"
    assert verdict.numbers["seeds"] == 1


def test_a_run_of_another_experiment_is_no_evidence(tmp_path):
    paths = seeds(tmp_path, 0.2, 3)
    for path in paths:
        recipe = path / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("paper: {experiment: exp3, released_step: 50}", ""))
    assert {word for word, _ in judged(*paths).values()} == {"not tested", "by construction"}


@pytest.mark.slow
def test_no_gain_in_six_seeds_is_smaller_than_the_margin(tmp_path):
    folder = tmp_path / "none"
    paths = seeds(folder, 0.0, 6, benchmarks=(("math_500", 500, 0.8),), checkpoints=(0, 50, 250))
    found = judged(*paths)
    assert found["gain-by-100-math-500"][0] == "smaller than the margin"
    assert found["decay-after-150"][0] == "smaller than the margin"
    assert "no change of the margin's size (2 points)" in found["decay-after-150"][1].said


@pytest.mark.slow
def test_decay_is_found_between_an_early_and_a_late_checkpoint(tmp_path):
    paths = seeds(tmp_path, 0.0, 3, benchmarks=(("math_500", 500, 0.8),), checkpoints=(0, 50))
    for seed, path in enumerate(paths):
        write_evaluation(Run(path), 250, (("math_500", 500, 0.8),), 8, -0.1, random.Random(seed + 9))
    word, verdict = judged(*paths)["decay-after-150"]
    assert word == "reproduced"
    assert verdict.numbers["difference"] < -0.05


def whole_run(path: Path, hours: float = 22.0, steps: int = 500, gpus: int = 4) -> Run:
    """A run of exp3 on A40s with its time and data recorded; its KL jumps after step 240."""
    run = made_run(path, steps=20, checkpoints=())
    draw = random.Random(1)
    with run.metrics.open("w") as file:
        for step in range(1, steps + 1):
            row = metrics_row(step, steps, draw) | {"problems": [f"p{i}" for i in range(12)]}
            row["kl"] = 20.0 if step == 250 else 0.01
            file.write(json.dumps(row) + "\n")
    tree = manifest(0) | {"data": {"rows": 7000}, "machine": {"gpus": ["NVIDIA A40, 46068 MiB, 580.1"] * gpus}}
    end = f"2026-11-{20 + int(hours // 24):02d}T{int(hours % 24):02d}:00:00Z"
    tree["attempts"] = [
        {"number": 1, "started": "2026-11-20T00:00:00Z", "ended": end, "exit_code": 0, "reason": "done"}
    ]
    run.manifest.write_text(json.dumps(tree))
    run.recipe.write_text(run.recipe.read_text().replace("learning_rate", "num_generations: 6, learning_rate"))
    return run


def whole_runs(folder: Path, count: int, **options) -> list[Path]:
    """Several whole runs, each with a seed of its own."""
    paths = []
    for seed in range(count):
        run = whole_run(folder / f"whole{seed}", **options)
        tree = json.loads(run.manifest.read_text())
        run.manifest.write_text(json.dumps(tree | {"seeds": {"training": seed}}))
        paths.append(run.path)
    return paths


COSTS = ("hours-24", "dollars-42", "cheaper-than-baselines")


def test_what_the_recipe_fixes_is_by_construction_and_a_faithful_run_contradicts_nothing(tmp_path):
    found = judged(whole_run(tmp_path / "run").path)
    for id_ in ("samples-7000", "outputs-42000"):
        assert found[id_][0] == "by construction"
    assert found["samples-7000"][1].numbers == {"prompts": 6000, "rows": [7000]}
    assert found["outputs-42000"][1].numbers == {"by_recipe": 36000, "outputs": [36000]}
    assert "6,000 prompts" in found["samples-7000"][1].said
    assert found["dollars-42"][1].numbers["dollars"] == pytest.approx([22 * 4 * 0.4375])


@pytest.mark.parametrize("hours", [3, 22, 30, 300])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_runs_reproduce_no_cost_and_refute_none(tmp_path, hours, count):
    found = judged(*whole_runs(tmp_path, count, hours=hours))
    assert {found[id_][0] for id_ in (*COSTS, "kl-late")} == {"cannot tell"}
    assert "3 are needed" in found["hours-24"][1].said


@pytest.mark.parametrize(("hours", "word"), [(3, "reproduced"), (22, "reproduced"), (30, "not reproduced")])
def test_three_whole_runs_decide_on_at_most_24_hours(tmp_path, hours, word):
    found = judged(*whole_runs(tmp_path, 3, hours=hours))
    assert found["hours-24"][0] == found["dollars-42"][0] == word
    assert "at most 24 hours" in found["hours-24"][1].said
    assert "follows from" in found["dollars-42"][1].said


def test_a_part_of_a_run_and_other_gpus_test_no_hours(tmp_path):
    part = judged(whole_run(tmp_path / "part", steps=100).path)["hours-24"]
    assert part[0] == "not tested"
    assert "100 of 500 steps" in part[1].said
    other = judged(whole_run(tmp_path / "other", gpus=2).path)
    assert other["hours-24"][0] == "not tested"


def test_an_evaluation_with_the_authors_tokens_is_bit_for_bit(tmp_path, monkeypatch):
    """The hash of the tokens is what is compared; a real one needs an A40."""
    run = Run(tmp_path / "evaluations")
    write_scores(run, "knoveleng/Open-RS3", {"aime24": verdicts(30, 14)})
    samples = [
        {"benchmark": "aime24", "problem": f"p{i}", "sample": 0, "tokens_hash": f"{i:016x}", "verdict": "correct"}
        for i in range(30)
    ]
    folder = run.path / "eval/knoveleng--Open-RS3"
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    states = [level["state"] for level in document(gather([str(run.path)]))["levels"]]
    assert states[1] == "other tokens"
    monkeypatch.setattr("openrs.report.evidence.evaluations.combined", lambda _: "fd81113ccd505a4e")
    states = [level["state"] for level in document(gather([str(run.path)]))["levels"]]
    assert states[1] == "proven"


def test_equivalence_with_the_reevaluation_is_level_2(tmp_path):
    run = Run(tmp_path / "evaluations")
    rows = varied_to(30, 64, round(0.297 * 30 * 64))
    write_scores(run, "knoveleng/Open-RS3", {"aime24": rows}, temperature=0.8, top_p=0.9, inputs="equal")
    levels = {level["level"]: level for level in document(gather([str(run.path)]))["levels"]}
    assert levels["L2"]["state"] == "equivalent"
    assert levels["L0"]["state"] == "proven"
    far = Run(tmp_path / "far")
    write_scores(far, "knoveleng/Open-RS3", {"aime24": verdicts(30, 15 * 64, 64)}, temperature=0.8, top_p=0.9)
    levels = {level["level"]: level for level in document(gather([str(far.path)]))["levels"]}
    assert levels["L2"]["state"] == "0 of 1 equivalent"


def test_verdicts_are_counted_over_all_claims(tmp_path):
    run = made_run(tmp_path / "run", steps=20)
    tree = document(Sources((collect(run),)))
    assert sum(tree["verdicts"].values()) == len(tree["claims"]) == 35
    assert tuple(tree["verdicts"]) == WORDS


def test_every_kind_of_claim_has_a_place_on_the_page() -> None:
    novel = replace(claims()[0], id="novel", kind="novelty")
    with pytest.raises(ValueError, match="claims of kind novelty answer no question"):
        judge(Evidence((), (), ()), [*claims(), novel])
