"""What counts as evidence: only means, only what agrees with itself, each draw once, in whatever order it is named."""

import itertools
import json
from pathlib import Path

import pytest
from made_run import made_run, verdicts, write_scores
from test_claims import BASE, judged, varied

from openrs.report.evidence.sources import gather, is_mean
from openrs.report.pages.document import document
from openrs.run.directory import Run

MEANS = (
    "extractive_match", "avg@n:n=8", "avg@k:k=4", "avg@64", "math_avg@64", "pass@1:8_samples", "math_pass@1:4_samples",
    "pass@k:k=1&n=8", "pass@k:k=1",
)  # fmt: skip
OTHERS = (
    "pass@k:k=8&n=8", "pass@k:k=4&n=16", "maj@8", "maj@4:8_samples", "g-pass@k:k=8", "pass@8", "pass@10:16_samples",
    "math_pass@8:8_samples", "codegen", "f1",
)  # fmt: skip
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32768}


def result_file(folder: Path, metrics: dict[str, float], *, model: str = "knoveleng/Open-RS3", sampling=SAMPLING):
    """A lighteval result of AIME24, with or without its sampling. Values are made up."""
    general = {"model_name": model, "model_config": {"model_name": model, "generation_parameters": sampling or {}}}
    task = "custom|aime24|0"
    tree = {"config_general": general, "results": {task: metrics}, "config_tasks": {task: {"effective_num_docs": 30}}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results_2026-01-01T00-00-00.000.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("metric", OTHERS)
def test_a_score_that_is_no_mean_decides_nothing_and_is_shown_with_its_metric(tmp_path, metric):
    assert not is_mean(metric, 8)
    path = result_file(tmp_path, {metric: 0.9})
    word, verdict = judged(path)["score-open-rs3-aime24"]
    assert word == "not tested"
    rows = document(gather([str(path)]))["results"]
    assert all((row["metric"], row["counts"]) == (metric, False) for row in rows)
    assert not rows or metric in verdict.said


@pytest.mark.parametrize("metric", MEANS)
def test_means_over_samples_count(tmp_path, metric):
    assert is_mean(metric, 8)
    assert judged(result_file(tmp_path, {metric: 0.3}))["score-open-rs3-aime24"][0] == "cannot tell"


@pytest.mark.parametrize("mean", [0.3, 0.0])
def test_the_order_of_metrics_in_a_file_decides_nothing(tmp_path, mean):
    metrics = {"avg@n:n=8": mean, "pass@k:k=8&n=8": 0.867, "maj@8": 0.9, "pass@k:k=4&n=8": 0.8}
    found = set()
    for i, order in enumerate(itertools.permutations(metrics)):
        path = result_file(tmp_path / str(i), {name: metrics[name] for name in order})
        word, verdict = judged(path)["score-open-rs3-aime24"]
        found.add((word, verdict.numbers["accuracy"]))
    assert found == {("cannot tell" if mean else "not reproduced", mean)}


def test_a_result_file_without_its_sampling_is_no_evidence(tmp_path):
    word, verdict = judged(result_file(tmp_path, {"extractive_match": 0.3}, sampling=None))["score-open-rs3-aime24"]
    assert word == "not tested"
    assert "does not tell its sampling" in verdict.said


def evaluation(folder: Path, rows, model: str = "knoveleng/Open-RS3", **protocol) -> Run:
    run = Run(folder)
    write_scores(run, model, {"aime24": rows}, **protocol)
    return run


def changed(run: Run, change) -> Run:
    path = next(run.path.rglob("scores.json"))
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return run


def aime(tree):
    return tree["benchmarks"]["aime24"]


CONTRADICTIONS = {
    "unequal k": lambda tree: aime(tree)["per_problem"].update(p0=[1]),
    "a missing problem": lambda tree: aime(tree)["per_problem"].pop("p0"),
    "another problem": lambda tree: aime(tree)["per_problem"].update(new=[1] * 8),
    "another score": lambda tree: aime(tree).update(accuracy=0.9),
    "another k": lambda tree: aime(tree).update(k=16),
    "broken verdicts": lambda tree: aime(tree)["per_problem"].update({f"p{i}": ["x"] for i in range(30)}),
    "no protocol": lambda tree: tree.update(protocol={}),
    "no temperature": lambda tree: tree["protocol"].pop("temperature"),
    "no cap": lambda tree: tree["protocol"].pop("max_tokens"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_evidence_that_contradicts_itself_is_no_evidence_and_says_why(tmp_path, name):
    whole = evaluation(tmp_path / "whole", verdicts(30, 24, 8))
    assert judged(whole.path)["score-open-rs3-aime24"][0] == "not reproduced"
    run = changed(evaluation(tmp_path / "run", verdicts(30, 24, 8)), CONTRADICTIONS[name])
    word, verdict = judged(run.path)["score-open-rs3-aime24"]
    assert word == "not tested"
    assert "verdicts by problem" in verdict.said or "does not tell its sampling" in verdict.said
    assert judged(run.path)["aime24-above-o1-preview"][0] == "not tested"


def test_scores_that_their_own_samples_do_not_give_are_no_evidence(tmp_path):
    run = evaluation(tmp_path, verdicts(30, 24, 8))
    rows = [
        {"benchmark": "aime24", "problem": f"p{i}", "sample": j, "verdict": "correct", "tokens_hash": "00"}
        for i in range(30)
        for j in range(8)
    ]
    folder = next(run.path.rglob("scores.json")).parent
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    word, verdict = judged(run.path)["score-open-rs3-aime24"]
    assert word == "not tested"
    assert "samples.jsonl gives 100.00" in verdict.said


def test_a_score_counts_while_more_samples_are_drawn(tmp_path):
    marks = verdicts(30, 24, 8)
    run = evaluation(tmp_path, marks)
    rows = [
        {"benchmark": "aime24", "problem": problem, "sample": j, "verdict": "correct" if mark else "incorrect"}
        for problem, line in marks.items()
        for j, mark in enumerate([*line, 1])
    ]
    (next(run.path.rglob("scores.json")).parent / "samples.jsonl").write_text("\n".join(map(json.dumps, rows[:200])))
    assert judged(run.path)["score-open-rs3-aime24"][0] == "not tested"  # of the first 8 some are missing
    (next(run.path.rglob("scores.json")).parent / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert judged(run.path)["score-open-rs3-aime24"][0] == "not reproduced"


def test_different_evaluation_seeds_are_pooled_in_any_order(tmp_path):
    paths = [evaluation(tmp_path / f"e{i}", varied(30, 8, seed=i), seed=i).path for i in range(3)]
    found = [judged(*order)["score-open-rs3-aime24"] for order in itertools.permutations(paths)]
    assert {(word, verdict.said) for word, verdict in found} == {(found[0][0], found[0][1].said)}
    assert found[0][1].numbers["k"] == 24
    assert "3 evaluation seeds together" in found[0][1].said


def test_the_same_seed_again_counts_once_and_is_named(tmp_path):
    more, fewer = evaluation(tmp_path / "more", varied(30, 8)), evaluation(tmp_path / "fewer", varied(30, 4))
    for order in ((more, fewer), (fewer, more)):
        verdict = judged(*(run.path for run in order))["score-open-rs3-aime24"][1]
        assert verdict.numbers["k"] == 8
        assert "fewer, knoveleng/Open-RS3: the same evaluation seed again" in verdict.said


@pytest.mark.parametrize("k", [(8, 8), (1, 1), (8, 4)])
def test_two_evaluations_that_cannot_be_pooled_give_one_verdict_in_either_order(tmp_path, k):
    """Another engine: not the same settings. One is taken by samples, then by name, and the other is named."""
    a = evaluation(tmp_path / "a", varied(30, k[0]))
    b = evaluation(tmp_path / "b", verdicts(30, k[1], k[1]), engine="transformers", seed=2)
    found = [judged(*(run.path for run in order))["score-open-rs3-aime24"] for order in ((a, b), (b, a))]
    assert found[0][0] == found[1][0]
    assert found[0][1].said == found[1][1].said
    assert "not taken: b" in found[0][1].said


def test_pairs_are_the_same_in_any_order(tmp_path):
    runs = [
        evaluation(tmp_path / "b0", varied(30, 8, seed=1), BASE, seed=1),
        evaluation(tmp_path / "b1", varied(30, 8, seed=2), BASE, seed=2),
        evaluation(tmp_path / "m0", varied(30, 8, seed=3, shift=0.1), seed=3),
        evaluation(tmp_path / "m1", varied(30, 8, seed=4, shift=0.1), seed=4),
    ]
    found = [judged(*(run.path for run in order))["better-aime24"][1] for order in itertools.permutations(runs)]
    assert len({(verdict.word, verdict.said) for verdict in found}) == 1
    assert found[0].numbers["k"] == [16, 16]


def test_other_peoples_models_do_not_spoil_the_proof_of_inputs(tmp_path):
    own = evaluation(tmp_path / "own", varied(30, 4), inputs="equal")
    stranger = evaluation(tmp_path / "stranger", varied(30, 4), "Qwen/Qwen3-8B", inputs="differs")
    for order in ((own, stranger), (stranger, own)):
        level = document(gather([str(run.path) for run in order]))["levels"][0]
        assert (level["state"], level["tone"]) == ("proven", "good")
        assert "Qwen3-8B" in level["said"]
    alone = document(gather([str(stranger.path)]))["levels"][0]
    assert alone["state"] == "not tried"


def test_a_paper_model_with_other_inputs_is_said_beside_one_that_is_proven(tmp_path):
    one = evaluation(tmp_path / "one", varied(30, 4), inputs="equal")
    two = evaluation(tmp_path / "two", varied(30, 4), "knoveleng/Open-RS2", inputs="differs")
    level = document(gather([str(one.path), str(two.path)]))["levels"][0]
    assert (level["state"], level["tone"]) == ("proven in part", "warn")
    assert "they differ on AIME24 (Open-RS2)" in level["said"]


def test_checkpoints_are_named_by_their_revision(tmp_path):
    name = "quyanh/OpenRS-GRPO@b224d0ff3f66ced97e621b2ad1eeafd53235240c"
    row = document(gather([str(result_file(tmp_path, {"extractive_match": 0.3}, model=name))]))["results"][0]
    assert (row["experiment"], row["step"], row["model"]) == ("exp3", 100, None)


@pytest.mark.slow
def test_a_longer_run_without_evaluations_hides_no_evaluated_one(tmp_path):
    paths = [made_run(tmp_path / f"s{seed}", steps=20, seed=seed, gain=0.2, samples=8).path for seed in range(3)]
    longer = made_run(tmp_path / "longer", steps=60, seed=0, checkpoints=()).path
    for order in ((*paths, longer), (longer, *paths)):
        word, verdict = judged(*order)["gain-by-100-amc23"]
        assert (word, verdict.numbers["seeds"]) == ("reproduced", 3)
