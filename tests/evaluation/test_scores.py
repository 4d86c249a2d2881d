"""scores.json from samples made by hand: every number by hand as well."""

import math

import pytest

from openrs.evaluation.benchmarks import EvalProblem
from openrs.evaluation.scores import build_scores, format_score, merge_scores, powers_of_two, score, vote

PROBLEMS = [EvalProblem(f"b/{n}", "?", "1", "?") for n in range(4)]
VERDICTS = {  # four problems, four samples
    "b/0": ["correct", "correct", "correct", "correct"],
    "b/1": ["correct", "incorrect", "correct", "no_answer"],
    "b/2": ["incorrect", "timeout", "unparseable_gold", "correct"],
    "b/3": ["crash", "incorrect", "incorrect", "incorrect"],
}
ANSWERS = {
    "b/0": ["1", "1", "1", "1"],
    "b/1": ["1", "2 -> 2", "1.0 -> 1", ""],
    "b/2": ["7", "", "7", "1"],
    "b/3": ["", "3", "4", "3"],
}


def rows(verdicts=VERDICTS, answers=ANSWERS):
    return {
        ("b", problem, n): {
            "verdict": verdict, "answer": answers[problem][n], "finish": "length" if n == 3 else "stop",
            "tokens": 10 * (n + 1),
        }
        for problem, line in verdicts.items() for n, verdict in enumerate(line)
    }  # fmt: skip


def test_numbers_by_hand():
    found = score(PROBLEMS, "b", 4, rows())
    shares = [1, 0.5, 0.25, 0]
    mean = 7 / 16
    assert (found["n"], found["k"], found["accuracy"]) == (4, 4, mean)
    assert found["stderr"] == pytest.approx(math.sqrt(sum((s - mean) ** 2 for s in shares) / (4 * 3)))
    assert found["stderr_fixed"] == pytest.approx(math.sqrt(sum(s * (1 - s) / 3 for s in shares)) / 4)
    assert found["pass_at_k"] == pytest.approx({"1": 7 / 16, "2": (1 + 5 / 6 + 1 / 2 + 0) / 4, "4": 3 / 4})
    assert found["majority"] == pytest.approx((1 + 1 + 0 + 0) / 4)  # 1.0 votes for 1; 7 beats 1; 3 is wrong
    assert found["truncated"] == 4
    assert found["mean_tokens"] == 25
    assert found["per_problem"] == {"b/0": [1, 1, 1, 1], "b/1": [1, 0, 1, 0], "b/2": [0, 0, 0, 1], "b/3": [0, 0, 0, 0]}
    assert found["interval"][0] < mean < found["interval"][1]


def test_every_verdict_but_correct_is_wrong_and_the_odd_ones_are_said():
    found = score(PROBLEMS, "b", 4, rows())
    assert found["verdicts"] == {
        "correct": 7, "incorrect": 5, "no_answer": 1, "timeout": 1, "unparseable_gold": 1, "crash": 1
    }  # fmt: skip
    text = format_score(found)
    assert text.startswith("43.8 % right (avg@4, 4 problems, 95 % interval ")
    assert text.endswith(", 4 cut off, 1 timeout, 1 unparseable_gold, 1 crash)")


def test_one_sample_has_no_majority_and_no_error_within_the_problems():
    found = score(PROBLEMS, "b", 1, rows())
    assert (found["k"], found["accuracy"], found["majority"], found["stderr_fixed"]) == (1, 0.5, None, None)
    assert found["pass_at_k"] == {"1": 0.5}
    assert "avg@1, 4 problems" in format_score(found)


def test_more_samples_than_asked_for_are_left_out():
    assert score(PROBLEMS, "b", 2, rows())["accuracy"] == 3 / 8


def test_small_things():
    assert [powers_of_two(k) for k in (1, 2, 3, 10, 16)] == [
        [1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 10], [1, 2, 4, 8, 16]
    ]  # fmt: skip
    assert vote(r"\frac{1}{2} -> 1/2") == "1/2"
    assert vote("12") == "12"
    assert vote("") is None


def document(name, accuracy, states=("equal",), changes=()):
    checks = [{"benchmark": name, "hash": "h", "state": state} for state in states]
    equal = states.count("equal")
    return {
        "benchmarks": {name: {"accuracy": accuracy}},
        "inputs": {
            "checks": checks, "changes": list(changes), "unproven": [], "equal": equal, "of": len(checks),
            "proven": equal == len(checks), "bos": 1,
        },
    }  # fmt: skip


def test_benchmarks_evaluated_before_stay_in_the_scores():
    both = merge_scores(document("a", 0.1), document("b", 0.2))
    assert both["benchmarks"] == {"a": {"accuracy": 0.1}, "b": {"accuracy": 0.2}}
    assert (both["inputs"]["equal"], both["inputs"]["of"], both["inputs"]["proven"]) == (2, 2, True)
    again = merge_scores(both, document("a", 0.3))
    assert again["benchmarks"] == {"b": {"accuracy": 0.2}, "a": {"accuracy": 0.3}}
    assert again["inputs"]["of"] == 2
    doubtful = merge_scores(document("a", 0.1, ("differs",)), document("b", 0.2))
    assert not doubtful["inputs"]["proven"]
    assert merge_scores(None, document("a", 0.1)) == document("a", 0.1)


def test_the_document_carries_what_was_asked_and_how_long_it_took():
    record = {
        "model": {"name": "m"}, "protocol": {"name": "custom"}, "inputs": {"proven": False},
        "benchmarks": {"b": {"n": 4, "k": 4}},
    }  # fmt: skip
    found = build_scores(record, {"b": PROBLEMS}, rows(), {"load": 1.0, "generate": 2.0, "score": 0.5}, 16)
    assert found["schema"] == 1
    assert found["seconds"] == {"load": 1.0, "generate": 2.0, "score": 0.5}
    assert found["drawn"] == 16
    assert found["benchmarks"]["b"]["accuracy"] == 7 / 16
    assert (found["model"], found["protocol"], found["inputs"]) == (
        {"name": "m"}, {"name": "custom"}, {"proven": False}
    )  # fmt: skip
