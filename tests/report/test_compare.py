"""Runs side by side: paired on the same problems, seeds pooled, settings that differ."""

import json
import random

import pytest
from made_run import made_run, verdicts, write_evaluation, write_scores

from openrs.evaluation.statistics import paired_difference
from openrs.report.evidence.collect import collect
from openrs.report.verdicts.compare import comparison, seed_groups
from openrs.report.verdicts.paired_rules import pooled
from openrs.report.verdicts.selection import of_run
from openrs.run.directory import Run


def test_two_runs_are_compared_at_the_checkpoint_fixed_before_training(tmp_path):
    a = made_run(tmp_path / "a", steps=20, seed=1)
    b = made_run(tmp_path / "b", steps=20, seed=2, gain=0.2)
    found = comparison([collect(a), collect(b)])
    assert found is not None
    row = next(row for row in found["against_first"] if row["benchmark"] == "amc23")
    assert (row["a"], row["b"]) == ("a, step 50", "b, step 50")
    rows = [
        json.loads((run.path / "eval/step-000050/scores.json").read_text())["benchmarks"]["amc23"]["per_problem"]
        for run in (a, b)
    ]
    expected = paired_difference(list(rows[1].values()), list(rows[0].values()))
    assert row["difference"] == expected.difference
    assert row["p"] == expected.p_value
    assert row["p_holm"] >= row["p"]


def test_one_run_is_no_comparison(tmp_path):
    assert comparison([collect(made_run(tmp_path / "a", steps=20))]) is None


def test_three_seeds_of_one_recipe_are_taken_together(tmp_path):
    runs = []
    for seed in range(3):
        run = made_run(tmp_path / f"s{seed}", steps=20, seed=seed, gain=0.2, samples=8)
        recipe = run.recipe.read_text().replace("learning_rate:", f"seed: {seed}, learning_rate:")
        run.recipe.write_text(recipe)
        runs.append(collect(run))
    found = comparison(runs)
    assert found is not None
    (group,) = found["seeds"]
    assert group["seeds"] == [0, 1, 2]
    row = next(row for row in group["benchmarks"] if row["benchmark"] == "amc23")
    assert row["verdict"] == "better in every seed"
    assert row["k"] == [24, 24]
    assert row["difference"] == pytest.approx(sum(s["after"] - s["before"] for s in row["by_seed"]) / 3)


def test_another_learning_rate_is_another_recipe(tmp_path):
    runs = [collect(made_run(tmp_path / f"s{seed}", steps=20, seed=seed)) for seed in range(2)]
    runs[1].recipe["grpo"]["learning_rate"] = 2e-6
    assert [len(group) for group in seed_groups(runs)] == [1, 1]


def test_pooled_samples_of_an_equal_base_count_once():
    base, other = {"a": [1, 0], "b": [0, 0]}, {"a": [1, 1], "b": [0, 1]}
    assert pooled([base, dict(base), other]) == {"a": [1, 0, 1, 1], "b": [0, 0, 0, 1]}


def test_selection_among_own_checkpoints_takes_the_bases_own_rates(tmp_path):
    """Every problem always or never solved: nothing is left to chance, and the best expected is the base's score."""
    run = made_run(tmp_path / "run", steps=20, checkpoints=())
    certain = {f"p{i}": [int(i < 9)] * 8 for i in range(30)}
    for step in (0, 50, 100):
        write_scores(run, f"step-{step:06d}", {"aime24": certain}, step=step)
    found = of_run(collect(run))
    assert found is not None
    assert found["rates"] == "problem by problem"
    assert found["expected_best"] == pytest.approx(0.3)
    assert found["probability"] == pytest.approx(1.0)


def test_selection_with_few_samples_uses_one_rate_for_all_problems(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=())
    for step in (0, 50, 100, 150):
        write_scores(run, f"step-{step:06d}", {"aime24": verdicts(30, 9)}, step=step)
    found = of_run(collect(run))
    assert found is not None
    assert found["rates"].startswith("one for all problems")
    assert 0.34 < found["expected_best"] < 0.38
    assert found["checkpoints"] == 3


def test_checkpoints_with_other_samples_are_left_out_of_the_selection(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0, 50, 100))
    write_evaluation(run, 100, (("aime24", 30, 0.3),), 8, 0.0, random.Random(1))
    assert of_run(collect(run)) is None


def test_runs_without_anything_in_common(tmp_path):
    made_run(tmp_path / "a", steps=20)
    (tmp_path / "b").mkdir()
    found = comparison([collect(Run(tmp_path / "a")), collect(Run(tmp_path / "b"))])
    assert found == {"runs": ["a", "b"], "settings": [], "against_first": [], "seeds": []}
