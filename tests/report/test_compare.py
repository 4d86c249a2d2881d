"""Runs side by side: paired on the same problems, seeds pooled, settings that differ."""

import json
import math
import random
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_run import made_run, verdicts, write_evaluation, write_scores

from openrs.evaluation.difficulty_model import sample_matrix
from openrs.evaluation.statistics import holm, paired_difference
from openrs.report.evidence.collect import collect
from openrs.report.pages import page, plots
from openrs.report.verdicts.compare import _benchmark_pooled, comparison, over_training, seed_groups
from openrs.report.verdicts.paired_rules import paired, pooled
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
    assert row["verdict"] == "better, over 3 seeds"
    assert row["k"] == [24, 24]
    assert row["difference"] == pytest.approx(sum(s["after"] - s["before"] for s in row["by_seed"]) / 3)


def test_better_over_all_seeds_is_green_on_the_page():
    row = {"benchmark": "aime24", "by_seed": [], "difference": 0.1, "interval": None, "p": 0.01}
    words = {"better, over 3 seeds": "good", "better in 2 of 3 seeds": "warn", "not tested": "warn"}
    seeds = [{"runs": [], "benchmarks": [{**row, "verdict": word} for word in words]}]
    pages = page._environment()
    macros = pages.get_template("parts/macros.html").module
    side_by_side = {"runs": [], "comparison": {"against_first": [], "seeds": seeds}}
    html = pages.get_template("parts/comparison.html").render(r=side_by_side, m=macros)
    assert re.findall(r'<span class="badge (\w+)">([^<]+)<', html) == [(tone, word) for word, tone in words.items()]


def test_another_learning_rate_is_another_recipe(tmp_path):
    runs = [collect(made_run(tmp_path / f"s{seed}", steps=20, seed=seed)) for seed in range(2)]
    runs[1].recipe["grpo"]["learning_rate"] = 2e-6
    assert [len(group) for group in seed_groups(runs)] == [1, 1]


def test_pooled_samples_of_an_equal_base_count_once():
    base, other = {"a": [1, 0], "b": [0, 0]}, {"a": [1, 1], "b": [0, 1]}
    assert pooled([base, dict(base), other]) == {"a": [1, 0, 1, 1], "b": [0, 0, 0, 1]}


def test_selection_among_own_checkpoints_takes_the_rates_of_all_together(tmp_path):
    """Every problem always or never solved: nothing is left to chance, and no lead is expected."""
    run = made_run(tmp_path / "run", steps=20, checkpoints=())
    certain = {f"p{i}": [int(i < 9)] * 8 for i in range(30)}
    for step in (0, 50, 100):
        write_scores(run, f"step-{step:06d}", {"aime24": certain}, step=step)
    found = of_run(collect(run))
    assert found is not None
    assert found["rates"] == "problem by problem"
    assert found["expected_best"] == pytest.approx(0.3)
    assert found["expected_lead"] == pytest.approx(0, abs=1e-12)
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


@pytest.mark.parametrize(("n", "k", "sets"), [(30, 8, 250), (40, 10, 150), (30, 1, 250)])
def test_the_lead_of_the_best_of_eight_equals_is_called_rare_in_at_most_5_of_100(n, k, sets):
    """Base and eight checkpoints are equally good: the base's own score is luck as well."""
    rng = np.random.default_rng(5)
    rare = 0
    for _ in range(sets):
        rates = rng.beta(0.35, 0.85, n)
        models = []
        for step in range(9):
            rows = sample_matrix(rates, k, rng)
            per_problem = {str(i): row for i, row in enumerate(rows.tolist())}
            score = SimpleNamespace(n=n, k=k, accuracy=float(rows.mean()), per_problem=per_problem)
            models.append(SimpleNamespace(step=step, scores={"aime24": score}))
        found = of_run(SimpleNamespace(base=models[0], later=models[1:]))
        rare += found["probability"] < 0.05
    assert rare / sets <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / sets), rare / sets


def test_checkpoints_are_corrected_for_each_other(tmp_path):
    """Holm over every row of the table, not over the benchmarks of one checkpoint."""
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0, 50, 100, 150, 200), samples=8)
    rows = over_training(collect(run))
    assert len(rows) == 8
    expected = holm({str(i): row["p"] for i, row in enumerate(rows)})
    assert [row["p_holm"] for row in rows] == list(expected.values())


def test_seeds_that_lie_apart_are_not_better_although_their_samples_together_say_so():
    """Two of three seeds gain much, one loses: all samples together rise with p < 0.05, the recipe may not."""
    gains = (0.25, 0.2, -0.06)
    group = []
    for seed, gain in enumerate(gains):
        rng = np.random.default_rng(seed)
        start = np.linspace(0.05, 0.7, 200)
        scores = [
            SimpleNamespace(
                accuracy=float(rows.mean()), per_problem={str(i): row for i, row in enumerate(rows.tolist())}
            )
            for rows in (sample_matrix(start, 8, rng), sample_matrix(np.clip(start + gain, 0, 1), 8, rng))
        ]
        base, final = (SimpleNamespace(scores={"amc23": score}) for score in scores)
        group.append(SimpleNamespace(name=str(seed), base=base, final=final))
    row = _benchmark_pooled(group, "amc23")
    pools = [pooled([getattr(run, side).scores["amc23"].per_problem for run in group]) for side in ("base", "final")]
    assert paired(*pools).p_value < 0.001
    assert row["p"] > 0.05
    assert row["verdict"] == "better in 2 of 3 seeds"


def test_checkpoints_with_other_samples_are_left_out_of_the_selection(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0, 50, 100))
    write_evaluation(run, 100, (("aime24", 30, 0.3),), 8, 0.0, random.Random(1))
    assert of_run(collect(run)) is None


def test_runs_without_anything_in_common(tmp_path):
    made_run(tmp_path / "a", steps=20)
    (tmp_path / "b").mkdir()
    found = comparison([collect(Run(tmp_path / "a")), collect(Run(tmp_path / "b"))])
    assert found == {"runs": ["a", "b"], "settings": [], "against_first": [], "seeds": []}


def test_a_metric_that_is_zero_throughout_is_not_drawn() -> None:
    columns = {"reward": [0.0, 0.5, 1.0], "completions/clipped_ratio": [0.0, math.nan, 0.0]}
    metrics = SimpleNamespace(has=columns.__contains__, columns=columns, steps=[1, 2, 3])
    runs: Any = [SimpleNamespace(name=name, metrics=metrics) for name in ("a", "b")]
    assert [plot.title for plot in plots.overlay(runs)] == ["Reward"]
