"""The JSON schemas: well formed, versioned, true of the examples in docs/run-files.md, and able to refuse."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
from schemas import NAMES, faults_in, schema

from openrs.config.load import load
from openrs.report.pages.document import SCHEMA
from openrs.run import manifest
from openrs.run.directory import Run

PAGE = (Path(__file__).parents[1] / "docs" / "run-files.md").read_text()
EXAMPLES = dict(re.findall(r"^## (\w+)\.jsonl?$.*?^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
VERSIONS = {"scores": 1, "report": SCHEMA, "manifest": 1, "metrics": 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_well_formed_and_says_its_version(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert schema(name)["title"].endswith(f", schema {VERSIONS[name]}")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_the_documents_follows_the_schema(name: str) -> None:
    part = "difference" if name == "report" else ""
    example = json.loads(EXAMPLES[name])
    assert faults_in(name, example, part) == []
    for key in schema(name)["$defs"][part]["required"] if part else schema(name)["required"]:
        less = copy.deepcopy(example)
        del less[key]
        assert faults_in(name, less, part) == [f"$: {key!r} is a required property"]


def test_a_manifest_follows_its_schema_from_the_first_moment_to_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for code in (75, 0):
        manifest.begin(load("demo"), run, ["openrs", "train", "demo"])
        assert faults_in("manifest", manifest.read(run)) == []
        manifest.end(run, code, "said")
        assert faults_in("manifest", manifest.read(run)) == []
    assert manifest.read(run)["schema"] == 1


@pytest.mark.parametrize("wrong", [{"n": 0}, {"accuracy": 46.7}, {"per_problem": {"p": [2]}}, {"interval": [0.1]}])
def test_a_score_that_is_none_is_refused(wrong: dict) -> None:
    tree = json.loads(EXAMPLES["scores"])
    next(iter(tree["benchmarks"].values())).update(wrong)
    assert len(faults_in("scores", tree)) == 1
