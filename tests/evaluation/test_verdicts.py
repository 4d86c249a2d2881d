"""Two verdicts on every sample: lighteval's, which is the score, and the strict judge's beside it."""

import json

import pytest

from openrs.cli.main import main
from openrs.errors import UserError
from openrs.evaluation.rejudge import rejudge
from openrs.evaluation.run import evaluate
from openrs.evaluation.scores import format_score
from openrs.evaluation.scoring import thinks
from openrs.rewards.grading import Judge
from openrs.run.files import read_jsonl
from openrs.run.progress import Progress

BOTH = {"verdict", "answer", "strict", "strict_answer"}


def run(target, settings, folder):
    with Judge(workers=1, timeout=60) as judge:
        return evaluate(target, settings, folder, Progress(), judge)


def rewritten(folder, change):
    path = folder / "samples.jsonl"
    rows = [change(row) for row in read_jsonl(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_journal_scores_and_results_have_both(stand_in, target, settings, tmp_path):
    scores = run(target, settings(), tmp_path)
    rows = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert all(row.keys() >= BOTH for row in rows)
    for name, score in scores["benchmarks"].items():
        mine = [row for row in rows if row["benchmark"] == name]
        assert score["strict"]["accuracy"] == sum(row["strict"] == "correct" for row in mine) / len(mine)
        # The model's template begins a thought, and these completions do not end it: no answer, for the strict judge.
        assert score["strict"]["verdicts"] == {"no_answer": len(mine)}
        assert score["strict"]["disagree"] == sum(row["verdict"] == "correct" for row in mine) > 0
        assert "strict judge" in format_score(score)
    (file,) = tmp_path.glob("results_*.json")
    strict = json.loads(file.read_text())["config_general"]["openrs"]["strict"]
    assert {name: one["disagree"] for name, one in strict.items()} == {
        name: score["strict"]["disagree"] for name, score in scores["benchmarks"].items()
    }


def test_disagreements_are_counted_and_listed_and_the_score_stays_lightevals(
    stand_in, target, settings, tmp_path, capsys
):
    """A chain of false equations whose end is right: lighteval takes it, the strict judge does not."""
    before = run(target, settings(), tmp_path)
    gold = {f"{name}/{n}": 30 + 4 * n for name, count in (("sums", 12), ("more", 5)) for n in range(count)}
    changed = rewritten(tmp_path, lambda row: {**row, "text": f"</think> $\\boxed{{1=2={gold[row['problem']]}}}$"})
    with Judge(workers=1, timeout=60) as judge:
        rejudge(str(tmp_path), None, judge, Progress())
    assert f"of {len(changed)} verdicts" in capsys.readouterr().out
    for name, score in json.loads((tmp_path / "scores.json").read_text())["benchmarks"].items():
        assert (score["accuracy"], score["strict"]["accuracy"]) == (1.0, 0.0)
        assert score["strict"]["only_lighteval"] == score["strict"]["disagree"] == len(score["strict"]["rows"])
        assert score["strict"]["rows"][0] == {
            "problem": next(iter(score["per_problem"])), "sample": 0, "verdict": "correct", "strict": "incorrect"
        }  # fmt: skip
        assert score["n"] == before["benchmarks"][name]["n"]


def test_an_old_journal_is_judged_anew_and_nothing_is_sampled(stand_in, target, settings, tmp_path, monkeypatch):
    scores = run(target, settings(), tmp_path)
    whole = list(read_jsonl(tmp_path / "samples.jsonl"))
    old = rewritten(tmp_path, lambda row: {key: v for key, v in row.items() if not key.startswith("strict")})
    known = json.loads((tmp_path / "scores.json").read_text())
    for score in known["benchmarks"].values():
        del score["strict"]
    (tmp_path / "scores.json").write_text(json.dumps(known))

    def refuse(_):
        raise AssertionError("an engine was loaded")

    monkeypatch.setattr("openrs.evaluation.run.load", refuse)
    again = run(target, settings(), tmp_path)
    rows = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert rows == whole
    assert [{key: row[key] for key in one} for row, one in zip(rows, old, strict=True)] == old
    for name, score in again["benchmarks"].items():
        assert score == scores["benchmarks"][name]


def test_rejudge_changes_nothing_where_the_judge_is_the_same(stand_in, target, settings, tmp_path, capsys):
    scores = run(target, settings(), tmp_path)
    assert main(["evaluate", "--rejudge", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "scores.json").read_text())
    assert again["benchmarks"] == scores["benchmarks"]
    assert "0 of lighteval's and 0 of the strict judge's are others" in " ".join(capsys.readouterr().out.split())


def test_rejudge_refuses_what_is_not_whole(stand_in, target, settings, tmp_path):
    run(target, settings(), tmp_path)
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with Judge(workers=1) as judge:
        with pytest.raises(UserError, match="1 of 34 samples are missing"):
            rejudge(str(tmp_path), None, judge, Progress())
        with pytest.raises(UserError, match="holds no evaluation"):
            rejudge(str(tmp_path / "nothing"), None, judge, Progress())


def test_minervas_limit_stands_where_its_score_is():
    score = {
        "accuracy": 0.2, "interval": [0.1, 0.3], "k": 1, "n": 272, "truncated": 0, "verdicts": {},
        "references": {"e-notation": 58}, "strict": {"accuracy": 0.25, "disagree": 14},
    }  # fmt: skip
    text = format_score(score)
    assert "58 of 272 references are in e-notation, which lighteval misreads" in text
    assert "strict judge 25.0 %, 14 disagree" in text


def test_older_settings_do_not_say_whether_the_prompt_begins_a_thought():
    assert thinks({"thinking": True}, [])
    assert not thinks({"thinking": False}, [{"text": "a</think>b"}])
    assert thinks({}, [{"text": "cut off"}, {"text": "a</think>b"}])
    assert not thinks({}, [{"text": "<think>a</think>b"}])
