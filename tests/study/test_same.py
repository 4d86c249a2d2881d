"""Claims of kind `same`: an evaluation gives, within a margin, what an independent one found; also look by look."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from openrs.errors import UserError
from openrs.evaluation.difficulty_model import sample_matrix
from openrs.evaluation.statistics import equivalent_to_published
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.claims import Evidence
from openrs.report.verdicts.judge import judge
from openrs.study import looks, power, render, sequential, settings, state
from openrs.study.jobs import machine_of
from openrs.study.plan import make_plan
from openrs.study.settings import study_claims

SAME = """title: the same evaluation?
gpu: A40
evaluation: {temperature: 0.8, top_p: 0.9}
evaluations:
  rs3: {model: "paper:open-rs3", samples: {aime24: 64}}
claims:
  rs3-again:
    {kind: same, text: it scores the same, benchmark: aime24, margin: 8, needs: [[rs3/aime24]], looks: [26, 64]}
"""
PUBLISHED, _, SEEDS = reference.reevaluation("Open-RS3", "aime24") or (0.0, 0.0, 0)


def there(rate: float, samples: int, seed: int) -> Measured:
    """Open-RS3 on AIME24, at the re-evaluation's sampling; a third of the problems is always solved or missed."""
    rates = np.clip(np.repeat([0.0, 1.0, rate], [7, 3, 20]), 0, 1)
    one = power.measured("Open-RS3", "aime24", sample_matrix(rates, samples, np.random.default_rng(seed)))
    excluded = "its sampling is not the paper's"  # which is no matter here
    return replace(one, protocol={**one.protocol, "temperature": 0.8, "top_p": 0.9}, excluded_reason=excluded)


@pytest.mark.parametrize(
    ("rate", "word", "made"),
    [(1.5 * PUBLISHED - 0.15, "reproduced", [26]), (0.75, "not reproduced", [26]), (0.4, "cannot tell", [26, 64])],
)
def test_it_is_looked_at_and_said(tmp_path: Path, rate: float, word: str, made: list[int]) -> None:
    (tmp_path / "s.yaml").write_text(SAME)
    study = settings.load(tmp_path / "s.yaml")
    where = {"gpu": "A40", "gpus": 1, "price": 1.0}
    kept = state.opened(tmp_path, study, tmp_path / "s.yaml", where, accept_changes=False)
    found = [there(rate, 64, 1)]
    while looks.next_look(study, kept, "rs3-again") is not None:
        looks.look_at(study, kept, "rs3-again", found)
    known = looks.prepared(study, kept, found)
    ((claim, verdict),) = judge(Evidence([], [], []), study_claims(study), known=known)
    assert (claim.model, verdict.word) == ("Open-RS3", word), verdict.said
    assert verdict.numbers["looks"] == made
    assert "margin 8;" in verdict.said
    ((_, once),) = judge(Evidence(found, [], []), study_claims(study))  # without looks, by the fixed-sample test
    assert once.word == word
    assert all(verdict.numbers[key] >= once.numbers[key] for key in ("p_within", "p_beyond")) or made == [26]
    other = [replace(one, protocol=power.PROTOCOL) for one in found]  # at another sampling nothing is compared
    ((_, none),) = judge(Evidence(other, [], []), study_claims(study))
    assert none.word == "not tested"


def test_it_errs_no_more_often_with_looks() -> None:
    """At the edge of the margin, the published mean drawn, too: equal is said in at most 5 of 100, and so is other."""
    rng, trials, at, margin = np.random.default_rng(21), 4000, (8, 16, 24), 0.09
    rates = np.repeat([0.1, 0.5, 0.8], 10)
    times = [sequential.information(k, 24, SEEDS) for k in at]
    assert times == pytest.approx([(1 / 24 + 1 / SEEDS) / (1 / k + 1 / SEEDS) for k in at])
    equal, other = np.zeros((2, trials), dtype=bool), np.zeros((2, trials), dtype=bool)
    for i, shift in enumerate((margin, 0.0)):
        published = rng.binomial(SEEDS, rates, (trials, len(rates))).mean(axis=1) / SEEDS + shift
        right = np.cumsum([rng.binomial(8, rates, (trials, len(rates))) for _ in at], axis=0)
        for look, (k, marks) in enumerate(zip(at, right, strict=True)):
            se, freedom = sequential.sampling_errors(marks, k)
            se, away = se * np.sqrt(1 + k / SEEDS), marks.mean(axis=1) / k - published
            within = stats.t.sf((margin - np.abs(away)) / se, freedom)
            beyond = stats.t.sf((np.abs(away) - margin) / se, freedom)
            rows = [[1] * ones + [0] * (k - ones) for ones in marks[0].tolist()]
            test = equivalent_to_published(rows, float(published[0]), SEEDS, 100 * margin)
            assert (test.p_value, test.p_beyond) == pytest.approx((within[0], min(1.0, 2 * beyond[0])))
            for found, p_values, side in ((equal, within, 0.05), (other, beyond, 0.025)):
                bound = sequential.boundaries(tuple(times[: look + 1]), side)[-1]
                found[i] |= p_values < stats.norm.sf(bound)
    error = np.sqrt(0.05 * 0.95 / trials)
    assert 0.02 < equal[0].mean() < 0.05 + 3 * error
    assert other[0].mean() < 0.05 + 3 * error
    assert equal[1].mean() > 0.5  # it does decide
    assert other[1].mean() < 0.001


def test_the_repeated_p_value_is_what_the_boundary_says() -> None:
    times = [sequential.information(k, 64, SEEDS) for k in (26, 64)]
    bound = stats.norm.sf(sequential.boundaries(tuple(times), 0.05)[-1])
    assert sequential.normal_p(0.99 * bound, times) < 0.05 < sequential.normal_p(1.01 * bound, times)


def test_a_plan_has_it_with_the_price_of_its_looks(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SAME)
    study = settings.load(tmp_path / "s.yaml")
    plan = make_plan(study, machine_of(study, None, None, None), tmp_path, {})
    assert plan.decided == ["rs3-again"]
    bound, p_value = sequential.last_boundary([sequential.information(k, 64, SEEDS) for k in (26, 64)])
    said = " ".join(render.text(plan).split())
    assert f"asks for z {bound:.3f} (p {p_value:.4f}), not 1.960" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("temperature: 0.8", "temperature: 0.6", "sampled with temperature 0.8, top_p 0.9: set evaluation"),
        ("paper:open-rs3", "me/mine", "has no aime24 of me/mine"),
        ("[[rs3/aime24]]", "[[rs3]]", r"needs one evaluation, \[\[ENTRY/BENCHMARK\]\]"),
        ("[[rs3/aime24]]", "[]", "needs one evaluation"),
        ("[[rs3/aime24]]", "[[rs3/aime24], [rs3/aime24]]", "needs one evaluation"),
        ("benchmark: aime24", "benchmark: amc23", "needs one evaluation"),
        ("margin: 8, ", "", "needs benchmark and margin"),
        ("[26, 64]", "[16, 64]", "the first look, at 16 of 64 samples, is too early"),
        ("kind: same, ", "", "a claim of your own needs trainings"),
        ("kind: same", "kind: equal", "kind"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SAME
    (tmp_path / "s.yaml").write_text(SAME.replace(old, new))
    with pytest.raises(UserError, match=said):
        settings.load(tmp_path / "s.yaml")
