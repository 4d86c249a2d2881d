"""Looks and the report's rules: with one look the verdicts are those of the rules; what is judged once keeps its k."""

from pathlib import Path

import numpy as np
import pytest

from openrs.evaluation import statistics
from openrs.evaluation.difficulty_model import sample_matrix
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.claims import Evidence
from openrs.report.verdicts.judge import judge
from openrs.study import looks, power, state
from openrs.study.settings import Study, study_claims

AGAINST_BASE = {
    "better-amc23": ("base/amc23", "open-rs2/amc23"),
    "better-math-500": ("base/math_500", "open-rs2/math_500"),
    "better-aime24": ("base/aime24", "open-rs3/aime24"),
    "aime24-above-o1-preview": ("open-rs3/aime24",),
    "amc23-63-to-80": ("base/amc23", "open-rs2/amc23"),
}
SCORE = "score-open-rs3-aime24"
PROBLEMS = {"aime24": 30, "amc23": 40, "math_500": 300}
MODELS = {"base": power.BASE, "open-rs2": "Open-RS2", "open-rs3": "Open-RS3"}


def study_of(at: list[int]) -> Study:
    """The claims against the base, each with these looks but the one that is judged once, and a printed score."""
    tree = {
        "title": "against the base",
        "evaluations": {
            name: {"model": f"paper:{name}", "samples": dict.fromkeys(PROBLEMS, at[-1])} for name in MODELS
        },
        "claims": {
            **{
                name: {"needs": [list(needs)], "looks": [] if name == "amc23-63-to-80" else at}
                for name, needs in AGAINST_BASE.items()
            },
            SCORE: {"needs": [["open-rs3/aime24"]]},
        },
    }
    return Study.model_validate(tree)


def state_in(folder: Path, study: Study) -> state.State:
    folder.mkdir(exist_ok=True)
    return state.opened(folder, study, folder / "s.yaml", {"gpu": "A40", "gpus": 1, "price": 1.0}, accept_changes=False)


def draws(rng: np.random.Generator, k: int) -> list[Measured]:
    """Every model on every benchmark, k samples: some far apart, some alike, some the same."""
    found = []
    for benchmark, n in PROBLEMS.items():
        rates = rng.beta(0.03, 0.03, n)
        for name, model in MODELS.items():
            gain = 0.0 if name == "base" else rng.choice([-0.2, 0.0, 0.0, 0.15])
            found.append(power.measured(model, benchmark, sample_matrix(np.clip(rates + gain, 0, 1), k, rng)))
    return found


def test_with_a_single_look_the_verdicts_are_those_of_the_fixed_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random evaluations through a study, claim after claim in any order, and through the report's judge."""
    monkeypatch.setattr(statistics, "RESAMPLES", 2)
    rng = np.random.default_rng(21)
    words: dict[str, set[str]] = {}
    for trial in range(8):
        study = study_of([int(rng.choice([4, 8]))])
        kept = state_in(tmp_path / str(trial), study)
        found = draws(rng, study.evaluations["base"].samples["aime24"])
        for name in rng.permutation([name for name in AGAINST_BASE if study.claims[name].looks]):
            looks.look_at(study, kept, str(name), found)
        every = looks.family(study)
        expected = judge(Evidence(found, [], []), every)
        got = judge(Evidence([], [], []), every, known=looks.prepared(study, kept, found))
        for (claim, fixed), (_, looked) in zip(expected, got, strict=True):
            assert looked.word == fixed.word, (trial, claim.id)
            assert {key: looked.numbers[key] for key in fixed.numbers} == fixed.numbers
            made = kept.looks(claim.id)
            assert not made or made[-1]["word"] == fixed.word  # what is written down is what the report says
            words.setdefault(claim.kind, set()).add(fixed.word)
    assert words["better"] == {"reproduced", "not reproduced", "smaller than the margin", "cannot tell"}
    assert len(words["gain"]) == 2


def test_what_is_judged_once_counts_the_first_look_whatever_was_seen_then(tmp_path: Path) -> None:
    """Evaluations that stopped early and those that went on give the same verdict on a printed draw and a gain."""
    study = study_of([4, 8, 16])
    kept = state_in(tmp_path, study)
    long = draws(np.random.default_rng(3), 16)
    short = [looks.first(one, 4) for one in long]
    fixed = [claim for claim in study_claims(study) if claim.id in (SCORE, "amc23-63-to-80")]
    said = []
    for found in (short, long):
        evidence = Evidence(looks.cut(study, found), [], [])
        known = looks.prepared(study, kept, found)
        said.append(
            [(verdict.word, verdict.said, verdict.numbers) for _, verdict in judge(evidence, fixed, known=known)]
        )
        assert [numbers["k"] for _, _, numbers in said[-1]] == [4, [4, 4]]
    assert said[0] == said[1]
