"""The lines that `openrs reproduce` ends with, whatever has been evaluated."""

import pytest

from openrs.reproduce import compare

SCORE = {"accuracy": 0.5, "interval": [0.4, 0.6], "n": 30, "k": 4, "truncated": 0, "verdicts": {"correct": 60}}


@pytest.mark.parametrize("base", [[], ["aime24"], ["aime24", "aime25"], ["math_500"]])
@pytest.mark.parametrize("last", [["aime24"], ["aime24", "aime25"]])
def test_a_benchmark_that_the_base_has_not(base: list[str], last: list[str]) -> None:
    before = {"benchmarks": dict.fromkeys(base, SCORE)}
    after = {"benchmarks": dict.fromkeys(last, SCORE), "model": {"step": 50}}
    labels = [line.partition(":")[0] for line in compare(before, after)]
    assert [label for label in labels if label.endswith("step 50")] == [f"{name}, step 50" for name in last]
    assert [label for label in labels if label.endswith("base")] == [f"{name}, base" for name in last if name in base]
