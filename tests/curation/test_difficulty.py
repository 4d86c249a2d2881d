"""Pass rates by a real (tiny) model: counted, killed and resumed, in shards, changed on the way; opinions."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from curation_helpers import SUFFIX, jsonl, kept, openrs, recipe, removed, stages

from openrs.cli.main import main
from openrs.curation.chain import curate
from openrs.curation.difficulty import Opinions
from openrs.curation.settings import load
from openrs.data.arithmetic import held_out_problems
from openrs.errors import UserError
from openrs.rewards.grading import Item, Rule
from openrs.run.files import read_jsonl


def asking(model: Path, **more: object) -> dict:
    return {
        "model": str(model), "dtype": "float32", "engine": "transformers", "processes": 1, "samples": 4,
        "temperature": 0.7, "max_tokens": 40, "batch_size": 32, "prompt": "{problem}", **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> Path:
    rows = [{"problem": one.problem, "answer": one.answer.strip("$")} for one in held_out_problems()[:24]]
    return jsonl(tmp_path_factory.mktemp("sums") / "sums.jsonl", rows)


def journal(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("work/samples/*/*/samples.jsonl")) for row in read_jsonl(path)]


def counts(out: Path) -> dict[str, tuple[int, int]]:
    """Problem -> right, samples; from what stays and what went."""
    told = {}
    for r in kept(out) + [one for one in removed(out) if one["stage"] == "difficulty"]:
        total = r["samples"]
        told[r["problem"]] = (round(r["pass_rate"] * total), total)
    return told


@pytest.fixture(scope="module")
def undisturbed(sums, taught_model, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rates")
    file = recipe(folder / "r.yaml", sums, {"difficulty": asking(taught_model)})
    assert main(["curate", str(file), "--out", str(folder / "out"), "--workers", "1"]) == 0
    return file, folder / "out"


def test_rates_are_counted_from_the_samples(undisturbed):
    _, out = undisturbed
    samples = journal(out)
    assert len(samples) == 24 * 4
    right = Counter(row["problem"] for row in samples if row["verdict"] == "correct")
    told = counts(out)
    assert len(told) == 24
    assert sorted(r for r, _ in told.values()) == sorted(right[p] for p in {row["problem"] for row in samples})
    assert 10 < sum(right.values()) < 80  # the taught model is right in 35 to 40 of 100
    always = {p for p, (r, _) in told.items() if r == 4}
    gone = [r for r in removed(out) if r["stage"] == "difficulty"]
    assert {r["problem"] for r in gone} == always
    assert all(r["reason"] == "the model always solves it" for r in gone)
    assert all(0 <= r["pass_rate"] < 1 and r["samples"] == 4 for r in kept(out))


def test_killed_and_resumed_it_counts_the_same(undisturbed, tmp_path):
    file, out = undisturbed
    ran = openrs("curate", file, "--out", tmp_path / "out", "--workers", "1")
    while ran.poll() is None and len(journal(tmp_path / "out")) < 32:
        time.sleep(0.02)
    os.killpg(ran.pid, signal.SIGKILL)
    ran.communicate()
    there = len(journal(tmp_path / "out"))
    assert 32 <= there < 96
    curate(load(str(file)), tmp_path / "out", workers=1)
    assert counts(tmp_path / "out") == counts(out)
    assert {(r["problem"], r["sample"]): r["tokens_hash"] for r in journal(tmp_path / "out")} == {
        (r["problem"], r["sample"]): r["tokens_hash"] for r in journal(out)
    }


def test_another_threshold_draws_nothing_anew(undisturbed, tmp_path, capsys):
    import shutil

    file, out = undisturbed
    shutil.copytree(out, tmp_path / "out")
    before = journal(out)
    changes = ["stages.difficulty.keep_below=0.5", "stages.difficulty.keep_min=0.25"]
    curate(load(str(file), changes), tmp_path / "out", workers=1)
    assert journal(tmp_path / "out") == before
    told = counts(out)
    assert {r["problem"] for r in kept(tmp_path / "out")} == {p for p, (r, _) in told.items() if r == 1}
    assert {r["reason"] for r in removed(tmp_path / "out")} <= {"the model always solves it", "too easy", "too hard"}


def test_shards_side_by_side_make_the_whole(undisturbed, tmp_path):
    file, out = undisturbed
    words = ("curate", file, "--out", tmp_path / "out", "--workers", "1", "--shard")
    for ran in [openrs(*words, shard) for shard in ("1/2", "2/2")]:
        said, _ = ran.communicate()
        assert ran.returncode == 0, said
    assert not (tmp_path / "out" / "train.parquet").exists()
    drawn = journal(tmp_path / "out")
    assert len({(r["problem"], r["sample"]) for r in drawn}) == len(drawn) == 96
    curate(load(str(file)), tmp_path / "out", workers=1)
    assert len(journal(tmp_path / "out")) == 96  # nothing was drawn again
    assert set(counts(tmp_path / "out")) == set(counts(out))
    assert stages(tmp_path / "out")["difficulty"][0] == 24


def test_models_that_cannot_be_asked(sums, tmp_path):
    for settings, said in (
        (asking(tmp_path / "none"), "model folder"),
        (asking(tmp_path, prompt="no place"), "has no {problem} in it"),
        (asking(tmp_path, temperature=0), "copies of one"),
    ):
        file = recipe(tmp_path / "r.yaml", sums, {"difficulty": settings})
        with pytest.raises(UserError, match=said):
            curate(load(str(file)), tmp_path / "out", workers=1)


def test_an_opinion_is_the_last_word():
    judged = Opinions(1).grade(
        [Item("", text, Rule.CORRECTED) for text in ("REMOVE? No: KEEP", "So: REMOVE.", "hm", "KEEPER")]
    )
    assert [str(one.verdict) for one in judged] == ["correct", "incorrect", "no_answer", "no_answer"]


def test_form_asks_the_model_only_what_the_rules_leave(made_model, tmp_path):
    rows = [{"problem": f"What is {n}+1 in decimal?", "answer": str(n + 1)} for n in range(6)]
    rows.append({"problem": "Prove that $1+1=2$.", "answer": "2"})
    llm = asking(made_model, samples=1, max_tokens=4, prompt="{problem} KEEP or REMOVE?")
    file = recipe(tmp_path / "r.yaml", jsonl(tmp_path / "raw.jsonl", rows), {"form": {"llm": llm}})
    curate(load(str(file)), tmp_path / "out", workers=1)
    assert len(journal(tmp_path / "out")) == 6
    assert [r["reason"] for r in removed(tmp_path / "out")] == ["asks for a proof"]
    assert len(kept(tmp_path / "out")) == 6  # a model that says neither removes nothing
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"][1]["facts"]
    assert facts["asked"] == 6
    assert len(facts["model"]["sha256"]) == 1


@pytest.mark.vllm
@pytest.mark.limits(processor=900)
def test_vllm_on_200_real_problems_killed_and_resumed(shared_data, made_model, tmp_path):
    """The counts of the undisturbed run; and how many samples are the same to the token."""
    source = shared_data / "training" / "deepscaler_subset_1209.parquet"
    settings = asking(made_model, engine="vllm", temperature=1.0, max_tokens=24, prompt="What is 1+1?\n{problem}")
    chain = {"length": {"max_characters": 600}, "draw": {"rows": 200}, "difficulty": settings}
    file = recipe(tmp_path / "r.yaml", source, chain, strip_suffix=SUFFIX, limit=230)
    outs = {}
    for name in ("undisturbed", "killed"):
        out = tmp_path / name
        kills = 0
        while True:
            ran = openrs("curate", file, "--out", out, "--workers", "2", OMP_NUM_THREADS="1")
            goal = 250 * (kills + 1)
            while ran.poll() is None and (name == "undisturbed" or kills == 2 or len(journal(out)) < goal):
                time.sleep(0.05)
            if ran.poll() is not None:
                break
            os.killpg(ran.pid, signal.SIGKILL)
            ran.communicate()
            kills += 1
            print(f"killed with {len(journal(out))} samples")
        said, _ = ran.communicate()
        assert ran.returncode == 0, said
        assert kills == (2 if name == "killed" else 0)
        outs[name] = out
    one, other = counts(outs["undisturbed"]), counts(outs["killed"])
    assert len(one) == 200
    assert one == other
    a, b = ({(r["problem"], r["sample"]): r["tokens_hash"] for r in journal(out)} for out in outs.values())
    assert len(a) == len(b) == 800
    same = sum(a[key] == b[key] for key in a)
    right = sum(r for r, _ in one.values())
    print(f"800 samples, {right} right, {same} equal to the token")
    assert same > 780
