"""Power: the fast formulas are the rules' own, with one look the words are the report's, and errors stay within 5 %."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from study_simulation import LOOKS

from openrs.report.evidence import reference
from openrs.report.verdicts import judge
from openrs.report.verdicts.claims import Evidence, claims
from openrs.study import difficulty, power
from openrs.study.sequential import flip_boundaries

SHORT = {name: looks for name, looks in LOOKS.items() if name != "better-math-500"}


def evidence(draws, k_of):
    """The same right samples as the report takes them."""

    def measured(where, trial):
        k = k_of[where[1]]
        marks = (np.arange(k) < draws[where][k][trial][:, None]).astype(int)
        return power.measured(*where, marks)

    return lambda trial: Evidence([measured(where, trial) for where in draws], [], [])


@pytest.mark.parametrize("k", [1, 5])
def test_with_one_look_p_values_and_words_are_those_of_the_report(k, monkeypatch):
    """Every claim against the base: the same samples through the vectorised formulas and through the report's judge."""
    monkeypatch.setattr(power.statistics, "RESAMPLES", 2)
    every = [claim for claim in claims() if claim.id in LOOKS and claim.benchmark != "math_500"]
    looks = {claim.id: (k,) for claim in every}
    words = set()
    for world in power.WORLD_ORDER:
        draws = power._draws(every, looks, world, 6, np.random.default_rng(k))
        tested = [power._tested(claim, (k,), draws, len(every)) for claim in every]
        of_trial = evidence(draws, {"amc23": k, "aime24": k})
        for trial in range(6):
            at = of_trial(trial)
            expected = judge.judge(at, every)
            rules = [judge.RULES[claim.kind](claim, at).p for claim in every]
            one = [
                power._Tested(t.claim, t.looks, t.up[[trial]], {q: h[:, [trial]] for q, h in t.hits.items()})
                for t in tested
            ]
            for claim, t, p_of in zip(every, one, rules, strict=True):
                for question, hits in t.hits.items():
                    levels = [0.05 / m for m in range(1, len(every) + 1)]
                    assert hits[:, 0, 0].tolist() == [p_of[question] < level for level in levels], claim.id
            found, _ = power.words_of(one, 1)
            for claim, verdict in expected:
                assert found[claim.id].tolist() == [verdict.word]
                words.add(verdict.word)
    assert len(words) >= (2 if k == 1 else 4)


def test_formulas_are_the_rules_to_the_last_digit():
    rng = np.random.default_rng(1)
    rates = rng.beta(0.5, 0.5, 40)
    after, before = rng.binomial(6, rates, (1, 40)), rng.binomial(6, rates, (1, 40))
    rows = [(np.arange(6) < right[0][:, None]).astype(int) for right in (after, before)]
    assert power.within_p(after, before, 6, 0.05)[0] == pytest.approx(
        power.statistics.equivalent(rows[0], rows[1], 5).p_value, rel=1e-9
    )
    assert power.above_p(after, 6, 0.4)[0] == pytest.approx(power.statistics.p_against(rows[0], 0.4), rel=1e-9)
    same = np.full((1, 40), 6)
    assert power.within_p(same, same, 6, 0.05)[0] == 1.0


def test_looks_save_samples_and_decide_as_much():
    every = claims()
    words, stops = power.study_words(every, SHORT, "paper", trials=100)
    fixed = power.against_base(every, {name: looks[-1:] for name, looks in SHORT.items()}, "paper", trials=100)
    for name in ("better-amc23", "better-aime24"):
        assert set(words[name]) == {"reproduced"}
        assert stops[name].mean() < 0.6 * SHORT[name][-1]
        assert power.decided(fixed[name]) == 1.0
    assert set(words["amc23-63-to-80"]) == {"compatible"}


def test_without_an_effect_the_family_errs_seldom():
    """The sum over claims bounds the family's rate; 20,000 trials are in benchmarks/study_simulation.py."""
    found = power.against_base(claims(), SHORT, "none", trials=300)
    wrong = sum(found[name].get("reproduced", 0.0) for name in found)
    wrong += sum(found[name].get("not reproduced", 0.0) for name in ("better-amc23", "better-aime24"))
    assert wrong <= 0.05 + 3 * 0.0126
    assert found["aime24-above-o1-preview"]["not reproduced"] > 0.95


def test_a_claim_that_is_looked_at_later_counts_in_holms_correction_before():
    """p 0.03 alone is enough, beside a claim of which nothing is known yet it is not."""
    hits = np.array([[[True]], [[False]]])  # below 0.05, not below 0.025
    early = power._Tested(next(c for c in claims() if c.id == "better-amc23"), (8, 16), np.ones((1, 2), bool), {})
    first = power._Tested(early.claim, (8, 16), early.up, {"differs": np.repeat(hits, 2, axis=2)})
    later = power._Tested(early.claim, (16,), np.ones((1, 1), bool), {"differs": np.zeros((2, 1, 1), bool)})
    at = np.array([[0], [-1]])
    assert power._holm([first, later], "differs", at).tolist() == [[False], [False]]
    assert power._holm([first], "differs", at[:1]).tolist() == [[True]]


def test_flip_hits_of_every_level_are_those_of_the_boundaries():
    rng = np.random.default_rng(4)
    rates = rng.beta(0.5, 0.5, 30)
    differences = rng.binomial(5, np.minimum(1, rates + 0.1), (60, 3, 30)) - rng.binomial(5, rates, (60, 3, 30))
    times = (0.4, 0.7, 1.0)
    hits = power.flip_hits(differences, times, 3)
    sums = np.abs(differences.sum(axis=2).cumsum(axis=1))
    for i in range(3):
        assert (hits[i] == (sums >= flip_boundaries(differences, times, 0.05 / (i + 1))[0])).all()
    assert 0 < hits[2].any(axis=1).mean() < 1


def test_trainings_go_through_the_rules():
    resamples = power.statistics.RESAMPLES
    trained = power.in_training(claims(), {"amc23": 8}, 3, "paper", trials=3)
    assert power.decided(trained["gain-by-100-amc23"]) > 0
    assert set(power.in_training(claims(), {"amc23": 2}, 2, "paper", trials=2)["gain-by-100-amc23"]) == {"cannot tell"}
    assert resamples == power.statistics.RESAMPLES


def test_worlds_are_what_is_published():
    assert difficulty.mean_of("paper", "Open-RS3", "aime24") == pytest.approx(0.467)
    assert difficulty.mean_of("again", "Open-RS3", "aime24") == pytest.approx(0.297)
    assert difficulty.mean_of("none", "Open-RS3", "aime24") == pytest.approx(0.287)
    assert difficulty.mean_of("again", "Still-3-1.5B-Preview", "amc23") == pytest.approx(0.725)
    rates = difficulty.rates(0.297, "aime24")
    assert rates.mean() == pytest.approx(0.297, abs=1e-5)
    assert len(rates) == reference.tree()["problems"]["aime24"]
    # Open-RS1 ... 3 on MATH-500: 83.8, 85.4, 84.4 against 82.8; the last logs 79.8, 82.2, 82.4
    assert difficulty.training_change("paper", "math_500", late=False) == pytest.approx(0.8453 - 0.828, abs=1e-4)
    assert difficulty.training_change("paper", "math_500", late=True) == pytest.approx(0.8147 - 0.8453, abs=2e-3)
    assert difficulty.training_change("again", "amc23", late=False) == pytest.approx((3.5 + 1.5 - 2.3) / 300, abs=1e-5)
    assert (
        difficulty.training_change("again", "amc23", late=True)
        == difficulty.training_change("none", "amc23", late=False)
        == 0
    )
