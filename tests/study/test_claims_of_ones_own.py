"""The rule on a recipe of one's own, and the table that has printed and measured scores side by side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openrs.evaluation.difficulty_model import sample_matrix
from openrs.hub.pins import baselines, target
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.pages.published import published, with_measured
from openrs.report.verdicts.claims import Claim, Evidence
from openrs.report.verdicts.judge import judge
from openrs.study import power

CLAIM = Claim(
    "mine", "mine is better", "a claim of this study", "improves", "L3", "seeds", benchmark="mine", margin=3.0
)


def runs(gain: float, seeds: int, name: str = "mine") -> list[RunData]:
    """Trainings with their base and one checkpoint on 200 problems, eight samples each."""
    rng = np.random.default_rng(seeds)
    found = []
    for seed in range(seeds):
        marks = [{"mine": sample_matrix(np.full(200, rate), 8, rng)} for rate in (0.4, 0.4 + gain)]
        evaluated = [power.evaluated(step, one) for step, one in zip((0, 20), marks, strict=True)]
        run = RunData(f"{name}-seed{seed}", Path(), evaluations=evaluated)
        run.manifest = {"seeds": {"training": seed}}
        found.append(run)
    return found


@pytest.mark.parametrize(
    ("gain", "seeds", "word"),
    [(0.1, 4, "reproduced"), (-0.1, 4, "not reproduced"), (0.0, 6, "smaller than the margin"), (0.1, 2, "cannot tell")],
)
def test_a_recipe_against_its_base(gain: float, seeds: int, word: str) -> None:
    other = runs(-gain, seeds, "another")  # another recipe's runs are no evidence on this one
    every = [*runs(gain, seeds), *other]
    own = {"mine": [f"mine-seed{seed}" for seed in range(seeds)]}
    ((_, verdict),) = judge(Evidence([], every, [None] * len(every)), [CLAIM], own)
    assert verdict.word == word, verdict.said
    assert set(verdict.sources) == set(own["mine"])


def test_every_baseline_is_a_target_and_a_row_of_the_papers_table() -> None:
    rows = {row["model"] for row in reference.tree()["table"]}
    for name, facts in baselines().items():
        (ref,) = target(f"paper:{name}") or ()
        assert ref.repo == facts["repository"]
        assert not ref.unpinned  # a commit, or what the first fetch locks
        assert facts["model"] in rows


def test_printed_and_measured_side_by_side() -> None:
    """Most samples count, what counts before what does not; the authors' logs are no measurement."""
    rng = np.random.default_rng(0)
    one = power.measured(power.BASE, "aime24", sample_matrix(np.full(30, 0.3), 4, rng))
    deepscaler = replace(one, model=None, name="agentica-org/DeepScaleR-1.5B-Preview@e3f5")
    short = replace(
        one, model=None, name="Qwen/Qwen2.5-Math-7B-Instruct", excluded_reason="its sampling is not the paper's"
    )
    logged = replace(one, model="Open-RS1", origin="authors' log")
    more = replace(one, k=16, accuracy=0.5)
    rows = {
        row["model"]: row["measured"]
        for row in with_measured(published(), [one, deepscaler, short, logged, more])["table"]
    }
    assert rows[power.BASE]["aime24"] == {"accuracy": 0.5, "n": 30, "k": 16, "why_not": None}
    assert rows["DeepScaleR-1.5B-Preview"]["aime24"]["k"] == 4
    assert rows["Qwen-2.5-Math-7B-Instruct"]["aime24"]["why_not"] == "its sampling is not the paper's"
    assert rows["Open-RS1"] == {}
