"""The benchmarks as tasks of the installed lighteval, and its scores against the judge's verdicts."""

import json
import os
import sys
from pathlib import Path

import forked
import pytest

from openrs.evaluation.benchmarks import known, load_problems
from openrs.rewards.grading import Item, Judge, Rule, Verdict

pytestmark = pytest.mark.slow

FIVE = [benchmark for benchmark in known().values() if benchmark.hashes]
WRAPPED = (
    "so\n</think>\n\nTherefore, the final answer is: $\\boxed{{{}}}$. I hope it is correct",
    "{}",
    "the answer is {}",
    "$\\boxed{{{}}}$, no: the final answer is 5.",
    "$\\boxed{{{}.3}}$",
    "$\\boxed{{{}.000004}}$",
)


def completions(gold: str) -> list[str]:
    answer = (
        gold.rpartition(r"\boxed{")[2].partition("}")[0] if r"\boxed{" in gold else gold.strip("$").removesuffix(".0")
    )
    return [*(text.format(answer) for text in WRAPPED), r"$\boxed{-17.25}$", ""]


@pytest.fixture(scope="module")
def asked(shared_data):
    """Eight completions for each of six problems a benchmark: (problem id, gold, rule, completion)."""
    return [
        (problem.id, problem.gold, Rule(benchmark.rule), completion)
        for benchmark in FIVE
        for problem in load_problems(benchmark, shared_data / "benchmarks")[::5][:6]
        for completion in completions(problem.gold)
    ]


@pytest.fixture(scope="module")
def seen(shared_data, asked):
    run = forked.run(
        [sys.executable, Path(__file__).with_name("lighteval_scores.py"), shared_data / "benchmarks"],
        json.dumps([[problem, completion] for problem, _, _, completion in asked]),
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def test_tasks_build_and_hold_all_problems_without_a_download(seen, shared_data):
    assert seen["docs"] == {benchmark.name: benchmark.rows for benchmark in FIVE}
    for benchmark in FIVE:
        for problem in load_problems(benchmark, shared_data / "benchmarks"):
            assert seen["queries"][problem.id] == problem.prompt


def test_configs_name_repository_and_pinned_revision(seen):
    assert set(seen["configs"]) == set(known())
    revision = "2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
    assert seen["configs"]["aime24"] == ["HuggingFaceH4/aime_2024", revision, 32768, "aime24|0"]


def test_the_papers_metric_gives_the_judges_verdicts(seen, asked):
    with Judge(workers=1, timeout=30) as judge:
        grades = judge.grade([Item(gold, completion, rule) for _, gold, rule, completion in asked])
    scores = [score["extractive_match"] for score in seen["scores"]]
    assert [float(grade.verdict is Verdict.CORRECT) for grade in grades] == scores
    assert 0.3 < sum(scores) / len(scores) < 0.7  # both answers occur often


def test_several_samples_are_averaged(seen):
    assert seen["four"] == [4, {"avg@n:n=4": 0.5}]


def test_gpqa_is_asked_with_lightevals_prompt_and_always_the_same(seen):
    (prompt, gold, name), *again = seen["gpqa"]
    assert again == [[prompt, gold, name]] * 7
    assert f"\n{gold}) this" in prompt
    assert prompt.count("no") >= 3
    assert seen["letters"] == [1, 1, 0, 0]
