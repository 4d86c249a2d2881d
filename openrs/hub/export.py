"""A checkpoint as a plain Hugging Face model folder that any tool loads, with a card that says where it comes from."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.hub.adapters import base_of, merge
from openrs.hub.loading import check_weights
from openrs.outside import read_object, read_shape
from openrs.run import checkpoints, manifest
from openrs.run.confined import sync_folder
from openrs.run.directory import Run
from openrs.run.files import sha256, write_json, write_text
from openrs.run.folders import DECLARATION, Kind, declaration, kind_of
from openrs.secrets import redact

ORIGIN = DECLARATION[Kind.EXPORT]  # what an export was made from, so that the same command finds it done
SCORES = {"benchmarks": {"*": {"accuracy": int | float, "interval": [int | float], "n": int, "k": int}}}
LIMITS = """\
- It was trained on mathematics with a final answer that a program can compare, and measured on nothing else. Nobody
  looked at safety, other languages, or other subjects.
- A score on a benchmark of 30 problems moves by several points from one seed to the next: read the intervals.
- Reasoning that sounds right may be wrong; check answers that matter."""


def export(run: Run, step: int | None = None, to: Path | None = None, *, trust_remote_code: bool = False) -> Path:
    """Write the checkpoint of `step` (default: the newest) into the folder `to` (default: RUN/export/step-NNNNNN).

    The folder appears whole or not at all. Returns it. Raises UserError for a step without a complete checkpoint, a
    damaged one, one that lacks weights, and a folder that holds something else.
    """
    recipe = manifest.recipe_of(run)
    assert recipe is not None  # existing_run looked
    source = _checkpoint(run, step)
    folder = to if to is not None else run.path / "export" / source.name
    number = checkpoints.step_of(source)
    made_from = {"recipe_sha256": recipe.hash, "step": number, "weights": _weights(source)}
    origin = made_from | {"dtype": recipe.model.dtype}  # in which it is evaluated, as the checkpoint is
    if folder.exists():
        if made_from.items() <= _origin(folder).items():
            write_json(folder / ORIGIN, origin)
            write_text(folder / "README.md", card(run, recipe, number))  # results may be new
            return folder
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"{folder} is there and is not an export of this checkpoint", fix="give another --to")
        folder.rmdir()
    reason = checkpoints.find_corruption(source)
    if reason is not None:
        raise UserError(f"{source} is damaged: {reason}", fix="give another --step")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    if recipe.model.lora is not None:
        beside.parent.mkdir(parents=True, exist_ok=True)
        base = base_of(run, recipe)
        merge(base, source, beside, dtype=recipe.model.dtype, trust_remote_code=trust_remote_code)
    else:
        check_weights(source, trust_remote_code=trust_remote_code)
        beside.mkdir(parents=True)
        _copy(source, beside)
    _make_usable(beside)
    shutil.copyfile(run.recipe, beside / "recipe.yaml")
    write_json(beside / ORIGIN, origin)
    write_text(beside / "README.md", card(run, recipe, number))
    beside.rename(folder)
    sync_folder(folder.parent)
    return folder


def _checkpoint(run: Run, step: int | None) -> Path:
    there = checkpoints.list_complete(run.checkpoints)
    if not there:
        raise UserError(f"{run.path} has no complete checkpoint", fix="train first")
    if step is None:
        return there[-1]
    place = checkpoints.folder_of(run.checkpoints, step)
    if place not in there:
        steps = ", ".join(str(checkpoints.step_of(folder)) for folder in there)
        raise UserError(f"{run.path} has no complete checkpoint of step {step}", fix=f"there are: {steps}")
    return place


def _weights(source: Path) -> dict[str, str]:
    """SHA-256 of the weight files, as the checkpoint's manifest has them."""
    files = checkpoints.read_manifest(source)["files"]
    return {name: facts["sha256"] for name, facts in files.items() if name.endswith(".safetensors")}


def _origin(folder: Path) -> dict[str, Any]:
    """What an export was made from; nothing for any other folder."""
    try:
        return declaration(folder, Kind.EXPORT) if kind_of(folder) is Kind.EXPORT else {}
    except UserError:
        return {}


def _copy(source: Path, folder: Path) -> None:
    """The model's own files, checked once more on the far side."""
    listed = checkpoints.read_manifest(source)["files"]
    for name, facts in listed.items():
        if any(fnmatch(name, pattern) for pattern in checkpoints.MODEL_FILES):
            shutil.copyfile(source / name, folder / name)
            if sha256(folder / name) != facts["sha256"]:
                raise UserError(f"{name} was damaged on the way to {folder}", fix="look at that disk, and try again")


def _make_usable(folder: Path) -> None:
    """Switch the KV cache on: training with gradient checkpointing leaves it off, and the authors' released weights
    have it so, which makes generation about 200 times slower."""
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        settings = read_object(path) if path.is_file() else {}
        write_json(path, settings | {"use_cache": True})


# --- the model card: data, recipe, results with their intervals, and what it must not be taken for --------------------


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
    origin, results = "\n".join(_origin_lines(recipe, known)), "\n".join(_results(run, step))
    return redact(f"""\
---
{yaml.safe_dump(head, sort_keys=False).strip()}
---

# {recipe.title}, step {step}

{_base_said(recipe)}, after {step} steps of GRPO. The base model's licence applies.

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


def _base_said(recipe: Recipe) -> str:
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


def _origin_lines(recipe: Recipe, known: dict[str, Any]) -> list[str]:
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
        return dict(read_shape(run.evaluation(checkpoints.step_name(step)) / "scores.json", SCORES)["benchmarks"])
    except UserError:
        return {}
