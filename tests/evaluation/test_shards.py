"""Shards: every (benchmark, sample) in exactly one, and a merge that takes nothing less and nothing more."""

import json
import random
import shutil

import pytest

from openrs.cli.main import main
from openrs.errors import UserError
from openrs.evaluation.run import evaluate
from openrs.evaluation.shards import Shard, assigned, merge, shard_from
from openrs.rewards.grading import Judge
from openrs.run.files import read_jsonl
from openrs.run.progress import Progress

pytestmark = pytest.mark.usefixtures("stand_in")


def test_every_part_goes_to_one_shard_and_the_work_is_even():
    rng = random.Random(1)
    for _ in range(200):
        counts = {f"b{n}": rng.randrange(1, 12) for n in range(rng.randrange(1, 6))}
        weights = {(name, s): rng.randrange(1, 1000) for name, k in counts.items() for s in range(k)}
        of = rng.randrange(1, len(weights) + 1)
        shares = assigned(weights, of)
        assert set(shares) == set(weights)
        assert set(shares.values()) == set(range(1, of + 1))
        loads = [sum(w for pair, w in weights.items() if shares[pair] == n + 1) for n in range(of)]
        assert max(loads) - min(loads) <= max(weights.values())
        assert assigned(dict(reversed(weights.items())), of) == shares


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.5/4"])
def test_shards_that_cannot_be(text):
    with pytest.raises(UserError, match="there is no shard"):
        shard_from(text)


def test_a_shard_by_name(tmp_path):
    assert shard_from("2/4") == Shard(2, 4)
    assert Shard(2, 4).folder(tmp_path) == tmp_path / "shards" / "2-of-4"


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=1) as one:
        yield one


@pytest.fixture
def draw(target, settings, judge, tmp_path):
    """Draw one shard (None: all) of two benchmarks x 3 samples into a folder; returns the evaluation's folder."""

    def one(shard, name="eval", **changes):
        folder = tmp_path / name
        cut = shard_from(shard) if shard else None
        evaluate(target, settings(samples=3, **changes), folder, Progress(), judge, shard=cut)
        return folder

    return one


def samples(folder):
    return sorted(json.dumps(row, sort_keys=True) for row in read_jsonl(folder / "samples.jsonl"))


def merged(*paths, run=None, data=None):
    return list(merge([*paths], run, data))


def test_merged_shards_are_the_evaluation_in_one_piece(draw):
    whole = draw(None, "whole")
    for n in (1, 2, 3, 4):
        folder = draw(f"{n}/4")
    parts = [
        {(r["benchmark"], r["sample"]) for r in read_jsonl(p / "samples.jsonl")} for p in (folder / "shards").iterdir()
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 6
    assert not (folder / "scores.json").exists()
    ((into, scores),) = merged(folder)
    assert into == folder
    assert samples(folder) == samples(whole)
    one = json.loads((whole / "scores.json").read_text())
    assert scores["benchmarks"] == one["benchmarks"]
    assert {key: scores[key] for key in ("model", "protocol", "inputs", "drawn")} == {
        key: one[key] for key in ("model", "protocol", "inputs", "drawn")
    }
    assert scores["drawn"] == 3 * 17
    assert len(list(folder.glob("results_*.json"))) == 1
    assert merged(folder)[0][1]["benchmarks"] == scores["benchmarks"]  # again: the same, nothing counted twice
    assert samples(folder) == samples(whole)


def test_shards_from_several_machines_go_into_a_run(draw, tmp_path):
    for n in (1, 2):
        draw(f"{n}/2", f"machine-{n}")
    paths = [tmp_path / f"machine-{n}" / "shards" / f"{n}-of-2" for n in (2, 1)]
    with pytest.raises(UserError, match="several folders"):
        merged(*paths)
    ((into, scores),) = merged(*paths, run=str(tmp_path / "all"))
    assert into == tmp_path / "all" / "eval" / "made"
    assert scores["benchmarks"]["sums"]["k"] == 3


def test_a_gap_is_refused(draw):
    draw("1/3")
    folder = draw("3/3")
    with pytest.raises(UserError, match="shard 2 of 3 missing"):
        merged(folder)
    draw("2/3")
    path = folder / "shards" / "2-of-3" / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=r"1 samples are missing.*\n.*--shard 2/3"):
        merged(folder)
    path.write_text("".join(lines[:-1]) + lines[-1][:30])  # torn
    with pytest.raises(UserError, match="1 samples are missing"):
        merged(folder)
    path.write_text("".join(lines))
    assert merged(folder)


def test_an_overlap_is_refused(draw, tmp_path):
    for n in (1, 2):
        folder = draw(f"{n}/2")
    copy = shutil.copytree(folder / "shards" / "1-of-2", tmp_path / "copy")
    with pytest.raises(UserError, match="shard 1 of 2 is there twice"):
        merged(copy, *(folder / "shards" / f"{n}-of-2" for n in (1, 2)), run=str(tmp_path / "x"))
    first, second = (folder / "shards" / f"{n}-of-2" / "samples.jsonl" for n in (1, 2))
    foreign = second.read_text().splitlines(keepends=True)[0]
    before = first.read_text()
    first.write_text(before + foreign)
    with pytest.raises(UserError, match=r"overlap with other shards.*belongs to shard 2"):
        merged(folder)
    stranger = json.dumps(json.loads(foreign) | {"problem": "sums/99"}) + "\n"
    first.write_text(before + stranger)
    with pytest.raises(UserError, match="belongs to no shard"):
        merged(folder)
    first.write_text(before * 2)  # the same lines twice count once
    assert merged(folder)[0][1]["benchmarks"]["sums"]["k"] == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"temperature": 0.5}, "temperature 0.7 instead of 0.5|temperature 0.5 instead of 0.7"), ({"seed": 5}, "seed")],
)
def test_shards_of_two_evaluations_are_refused(draw, tmp_path, changes, said):
    first, second = draw("1/2", "a"), draw("2/2", "b", **changes)
    with pytest.raises(UserError, match=said):
        merged(first / "shards" / "1-of-2", second / "shards" / "2-of-2", run=str(tmp_path / "x"))


def test_shards_of_two_cuts_are_refused(draw):
    draw("1/2")
    folder = draw("2/3")
    with pytest.raises(UserError, match=r"cut into 3 and into 2|cut into 2 and into 3"):
        merged(folder)


def test_unfinished_shards_are_refused(draw):
    draw("1/2")
    folder = draw("2/2")
    (folder / "shards" / "2-of-2" / "done.json").unlink()
    with pytest.raises(UserError, match=r"shard 2 of 2 is not finished(.|\n)*--shard 2/2"):
        merged(folder)


def test_a_shard_cannot_grow(draw):
    draw("1/2")
    with pytest.raises(UserError, match="other benchmarks or samples"):
        draw("1/2", samples_small=5)


def test_other_problems_at_the_merge_are_refused(draw, sums, tmp_path):
    for n in (1, 2):
        folder = draw(f"{n}/2")
    data = shutil.copytree(sums, tmp_path / "data")
    (data / "more.jsonl").write_text((data / "more.jsonl").read_text().replace("What is 11", "What was 11"))
    with pytest.raises(UserError, match="problems of more here are not those"):
        merged(folder, data=str(data))


def test_samples_of_another_evaluation_are_not_overwritten(draw):
    folder = draw(None, samples_small=2)
    for n in (1, 2):
        draw(f"{n}/2")
    with pytest.raises(UserError, match=r"samples.jsonl holds 34 samples of another evaluation"):
        merged(folder)


def test_more_shards_than_parts(draw):
    with pytest.raises(UserError, match="7 shards for 6 parts"):
        draw("1/7")


def test_the_merge_by_command(draw, capsys, tmp_path):
    for n in (1, 2):
        folder = draw(f"{n}/2")
    assert main(["evaluate", "--merge", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "made, sums: " in out
    assert "avg@3, 12 problems" in out
    for path, said in ((tmp_path, "has no shards"), (tmp_path / "nowhere", "is not a folder")):
        assert main(["evaluate", "--merge", str(path)]) == 2
        assert said in capsys.readouterr().err
