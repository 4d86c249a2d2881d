"""Files of a run changed at random: the report still stands, says valid JSON, and never fails."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from made_run import made_run, write_scores

from openrs.report.evidence.collect import collect
from openrs.report.evidence.sources import gather
from openrs.report.pages.document import document
from openrs.report.pages.markdown import markdown
from openrs.run.directory import Run

ODD = (
    None, True, -1, 0, 1.5, 1e308, 10**30, "", "x", "\ud800\u202e<b>", [], {}, [None], {"a": None}, float("nan"),
    [1, 2, 3], {"x": [{}]},
)  # fmt: skip


def places(tree: Any, here: tuple = ()) -> Iterator[tuple]:
    yield here
    if isinstance(tree, dict):
        for key in tree:
            yield from places(tree[key], (*here, key))
    elif isinstance(tree, list):
        for i in range(min(3, len(tree))):
            yield from places(tree[i], (*here, i))


def changed(tree: Any, draw: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        place = draw.choice(list(places(tree))[1:] or [()])
        if place:
            inner = tree
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = copy.deepcopy(draw.choice(ODD))
    return tree


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return made_run(tmp_path_factory.mktemp("odd") / "run", steps=12, checkpoints=(0, 50), samples=2)


@pytest.mark.parametrize("seed", range(25))
def test_changed_files_never_stop_the_report(run, tmp_path, seed):
    draw = random.Random(seed)
    copied = Run(tmp_path / "run")
    copied.path.mkdir()
    copied.manifest.write_text(json.dumps(changed(json.loads(run.manifest.read_text()), draw)))
    copied.recipe.write_text(json.dumps(changed(yaml.safe_load(run.recipe.read_text()), draw)))
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    copied.metrics.write_text("".join(json.dumps(changed(line, draw)) + "\n" for line in lines))
    for folder in sorted((run.path / "eval").glob("*")):
        there = copied.path / "eval" / folder.name
        there.mkdir(parents=True)
        (there / "scores.json").write_text(json.dumps(changed(json.loads((folder / "scores.json").read_text()), draw)))
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        (there / "samples.jsonl").write_text("".join(json.dumps(changed(row, draw)) + "\n" for row in rows))
    tree = document(gather([str(copied.path)]))
    json.dumps(tree, allow_nan=False).encode()
    assert markdown(tree).encode()


def test_a_score_that_its_own_verdicts_do_not_give_is_said(tmp_path):
    made = Run(tmp_path / "run")
    write_scores(made, "step-000000", {"aime24": {f"p{i}": [int(i < 9)] for i in range(30)}}, step=0)
    path = made.path / "eval/step-000000/scores.json"
    tree = json.loads(path.read_text())
    tree["benchmarks"]["aime24"]["accuracy"] = 0.9
    path.write_text(json.dumps(tree))
    data = collect(made)
    assert data.evaluations[0].scores["aime24"].per_problem == {}
    assert any("verdicts by problem don't give its score" in note for note in data.notes)


def test_a_score_that_its_samples_do_not_give_is_said(tmp_path):
    made = made_run(tmp_path / "run", steps=12, checkpoints=(0,), samples=1)
    path = made.evaluation("step-000000") / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.replace('"incorrect"', '"correct"') for line in lines) + "\n")
    assert any("but samples.jsonl gives 100.00" in note for note in collect(made).notes)
    path.write_text("\n".join(lines[:20]) + "\n")
    assert any("samples.jsonl has 20" in note for note in collect(made).notes)
