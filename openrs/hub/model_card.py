"""The card of an exported model: data, recipe, results with their intervals, and what it must not be taken for."""

from pathlib import Path
from typing import Any

import yaml

from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.outside import read_shape
from openrs.run import manifest
from openrs.run.checkpoints import step_name
from openrs.run.directory import Run
from openrs.secrets import redact

SCORES = {"benchmarks": {"*": {"accuracy": int | float, "interval": [int | float], "n": int, "k": int}}}
LIMITS = """\
- It was trained on mathematics with a final answer that a program can compare, and measured on nothing else. Nobody
  looked at safety, other languages, or other subjects.
- A score on a benchmark of 30 problems moves by several points from one seed to the next: read the intervals.
- Reasoning that sounds right may be wrong; check answers that matter."""


def card(run: Run, recipe: Recipe, step: int) -> str:
    """README.md of the model of `step`, from what the run knows of itself."""
    known = manifest.read(run)
    head: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["grpo", "openrs"],
    }
    if is_hub_name(recipe.model.name):
        head["base_model"] = recipe.model.name
    if is_hub_name(recipe.data.source):
        head["datasets"] = [recipe.data.source]
    origin, results = "\n".join(_origin(recipe, known)), "\n".join(_results(run, step))
    return redact(f"""\
---
{yaml.safe_dump(head, sort_keys=False).strip()}
---

# {recipe.title}, step {step}

{_base(recipe)}, after {step} steps of GRPO. The base model's licence applies.

## Where it comes from

{origin}

## Results

{results}

## Limits

{LIMITS}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("OWNER/NAME")  # or the folder that this file lies in
```
""")


def _base(recipe: Recipe) -> str:
    if recipe.model.toy is not None:
        return "A tiny model made on the spot (openrs's demo)"
    if not is_hub_name(recipe.model.name):
        return f"The model in the local folder {Path(recipe.model.name).resolve().name}"
    return f"{recipe.model.name} at {recipe.model.revision or 'an unpinned revision'}"


def _source(recipe: Recipe) -> str:
    if recipe.data.source == "toy-sums":
        return "sums made by openrs"
    if not is_hub_name(recipe.data.source):
        return f"the local file or folder {Path(recipe.data.source).resolve().name}"
    return f"{recipe.data.source} at {recipe.data.revision}" if recipe.data.revision else recipe.data.source


def _origin(recipe: Recipe, known: dict[str, Any]) -> list[str]:
    data, code = known.get("data", {}), known.get("openrs", {})
    commit = f" at {code['commit']}{' with changes' if code.get('changed') else ''}" if code.get("commit") else ""
    rewards = ", ".join(f"{reward.name} x {reward.weight:g}" for reward in recipe.rewards.functions)
    files = [f"  - `{name}`, SHA-256 `{digest}`" for name, digest in data.get("files", {}).items()]
    changes = [change for attempt in known.get("attempts", []) for change in attempt.get("accepted", [])]
    return [
        f"- data: {_source(recipe)}, {data.get('problems', 'unknown')} problems" + (":" if files else ""),
        *files,
        f"- recipe: SHA-256 `{recipe.hash}`, in recipe.yaml beside this file",
        f"- rewards: {rewards}, in {recipe.rewards.mode} mode",
        f"- seed {recipe.grpo.get('seed', 42)}, openrs {code.get('version', 'unknown')}{commit}",
        f"- machine: {', '.join(known.get('machine', {}).get('gpus', [])) or 'no GPU'}",
        f"- launches: {len(known.get('attempts', []))}",
        *[f"- changed on the way: {c['setting']} from {c['was']} to {c['now']}" for c in changes],
    ]


def _results(run: Run, step: int) -> list[str]:
    found = [(name, _scores(run, number)) for name, number in (("base", 0), (f"step {step}", step))]
    lines = [
        f"| {name} | {benchmark} | {100 * score['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) |"
        f" {score['n']} | {score['k']} |"
        for name, scores in found
        for benchmark, score in scores.items()
        for low, high in [score["interval"]]
    ]
    if not lines:
        return ["Not evaluated."]
    return [
        "| model | benchmark | accuracy (95 % interval) | problems | samples each |",
        "|---|---|---|---|---|",
        *lines,
    ]


def _scores(run: Run, step: int) -> dict[str, Any]:
    try:
        return dict(read_shape(run.evaluation(step_name(step)) / "scores.json", SCORES)["benchmarks"])
    except UserError:
        return {}
