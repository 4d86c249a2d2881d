"""The small form of benchmarks/verdict_rates.py: the rules err seldom, and find what is there. Seeds are fixed."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import verdict_rates

from openrs.report.verdicts import training_rules

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small():
    return verdict_rates.simulate(24, **verdict_rates.SMALL)


def of(found, what, scenario, value=None):
    return next(
        one
        for one in found["conditions"]
        if (one["what"], one["scenario"]) == (what, scenario) and value in (None, one["value"])
    )


def test_no_family_of_claims_errs_more_often_than_promised(small):
    assert len(small["conditions"]) == 7
    assert verdict_rates.too_high(small) == []


def test_the_rules_find_what_is_there(small):
    """A rule that never decides errs never: gains as large as the paper's must be found."""
    paper = of(small, "scores", "paper")["words"]
    assert paper["Open-RS2 is better than its base on AMC23"]["reproduced"] > 0.7
    assert paper["printed score, AIME24 (3)"]["compatible"] > 0.95
    equal = of(small, "scores", "equal")["words"]
    assert equal["Open-RS3 scores 46.7 on AIME24, above o1-preview's 44.6"]["not reproduced"] > 0.9
    trained = of(small, "training", "paper", 0)["words"]
    assert trained["Scores fall again after 150 to 200 steps"]["reproduced"] > 0.7
    assert trained["KL grows unstable late in training"]["reproduced"] > 0.9


def test_a_rule_that_takes_the_trainings_for_all_there_are_is_seen(monkeypatch):
    """The test over seeds replaced by one that knows no seeds, as it was: with trainings 2 points apart it errs."""
    over_seeds = training_rules.over_seeds
    monkeypatch.setattr(
        training_rules, "over_seeds", lambda before, after: replace(over_seeds(before, after), p_up=0.0, p_down=0.0)
    )
    found = verdict_rates.simulate(24, samples=(), spreads=(2,), seeds=(3,))
    assert any("rise and fall in training? false" in line for line in verdict_rates.too_high(found))


def test_the_table_says_everything_that_was_counted(small):
    page = "\n".join(verdict_rates.page(small))
    assert page.count("\n| Are the printed scores what the released models give? |") == 1 + 3
    assert page.count("\n| Do scores rise and fall in training? |") == 1 + 2
    assert "| any claim |" in page
    assert "24 evidence sets" in page
