"""A recipe read: a YAML file and what it `extends`, unknown keys refused, overrides by `--set`, one typed tree.

Never imports torch: `openrs recipe show`, the planner and the cluster verbs answer on a laptop in well under a second.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from openrs.config.faults import did_you_mean, refuse_secrets, setting_faults
from openrs.config.machine import cuda_visible_devices, has_nvidia_gpu
from openrs.config.schema import WHOLE, Evaluation, Recipe
from openrs.config.yaml_lines import Key, Lines, dump_yaml, override, read_yaml, text_of
from openrs.errors import UserError
from openrs.outside import is_file

RECIPES = Path(__file__).parents[1] / "recipes"
OWN = "own"  # the packaged recipe that lacks a model and data
# What belongs to a model or a data set and says nothing of another one that a later file or --set puts in its place.
BELONGS = {("model", "name"): ("revision", "context", "toy"), ("data", "source"): ("revision", "subset")}


def titles() -> dict[str, str]:
    """Name and title of every recipe that comes with openrs (base.yaml is only there to be extended)."""
    return {
        path.stem: str(read_yaml(path)[0].get("title", ""))
        for path in sorted(RECIPES.glob("*.yaml"))
        if path.stem != "base"
    }


def packaged() -> dict[str, str]:
    """Those of them that are complete."""
    return {name: title for name, title in titles().items() if name != OWN}


def load(name: str, overrides: Sequence[str] = (), *, elsewhere: bool = False, begun: bool = False) -> Recipe:
    """Read a recipe by name or path, lay it over what it extends, apply `--set` overrides, check everything.

    elsewhere: it is for another machine, so that this one's lack of a GPU says nothing (`on_cpu`). begun: it is for a
    run that an openrs which asked less may have begun.
    Raises UserError with file and line for an unknown, misspelt or ill-typed key and for combinations that cannot work.
    """
    from openrs.config.checks import check

    path = _find(name)
    changed = {change.partition("=")[0] for change in overrides}
    gpus = next((change.partition("=")[2] for change in overrides if change.startswith("hardware.gpus=")), None)
    here = not elsewhere and (not has_nvidia_gpu() or cuda_visible_devices() == [])
    cpu = gpus == "0" if gpus is not None else here
    tree, lines = _extended(path, cpu=cpu)
    before = {named: _value(tree, *named) for named in BELONGS}
    for change in overrides:
        override(change, tree, lines, example="grpo.learning_rate=2e-6")
    for (section, key), rest in BELONGS.items():
        if section not in changed and _value(tree, section, key) != before[section, key]:
            for fact in rest:
                if f"{section}.{fact}" not in changed:
                    tree[section].pop(fact, None)
    refuse_secrets(tree, lines)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise _invalid(error, Recipe, lines) from None
    check(recipe, lines, begun=begun)
    return recipe


def load_resolved(path: Path) -> Recipe:
    """Read the recipe.yaml that a run wrote: complete in itself, nothing extended."""
    return load(str(path), begun=True)


def with_changes(settings: Evaluation, changes: Mapping[str, Any]) -> Evaluation:
    """Evaluation settings with some of them changed by hand. Raises UserError naming each value that cannot be."""
    try:
        return Evaluation.model_validate(settings.model_dump() | dict(changes))
    except ValidationError as error:
        raise _invalid(error, Evaluation, {(name,): f"--{name.replace('_', '-')}" for name in changes}) from None


def to_yaml(recipe: Recipe) -> str:
    return dump_yaml(recipe.model_dump())


def to_json(recipe: Recipe) -> str:
    return json.dumps(recipe.model_dump(), indent=2, ensure_ascii=False) + "\n"


def diff(a: Recipe, b: Recipe) -> list[tuple[str, Any, Any]]:
    """Settings that differ, as (dotted key, value in a, value in b); a key that one side lacks shows None there."""
    return diff_trees(a.model_dump(context=WHOLE), b.model_dump(context=WHOLE))


def diff_trees(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The same of two recipes as they are written, also those of another version of openrs."""
    left, right = dict(_flat(a)), dict(_flat(b))
    keys = [*left, *(key for key in right if key not in left)]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or "/" in name:
        if is_file(path):
            return path
        raise UserError(
            f"there is no recipe file {name}", fix="give the path of a YAML file, or a name from: openrs recipe list"
        )
    if is_file(RECIPES / f"{name}.yaml"):
        return RECIPES / f"{name}.yaml"
    hint = did_you_mean(name, titles())
    raise UserError(
        f"there is no recipe called {name}",
        fix=f"{hint} see: openrs recipe list" if hint else "see: openrs recipe list, or give the path of a YAML file",
    )


def _extended(path: Path, below: tuple[Path, ...] = (), *, cpu: bool) -> tuple[dict[str, Any], Lines]:
    """The tree of a file laid over that of the recipe it extends, as deep as the chain goes.

    below: the files that extend this one. cpu: whether the `on_cpu` section of a file, settings for a machine without a
    GPU, is laid over the rest of it; a file below that sets hardware.gpus decides it. Raises UserError for a chain that
    comes back to one of the files.
    """
    tree, lines = read_yaml(path)
    _inline_files(tree, path.parent, lines)
    parent = tree.pop("extends", None)
    on_cpu = tree.pop("on_cpu", None)
    if cpu and isinstance(on_cpu, dict):
        tree = _merge(tree, on_cpu)
        laid_over = {key[1:]: where for key, where in lines.items() if len(key) > 1 and key[0] == "on_cpu"}
        sections = {key[:end] for key in laid_over for end in range(1, len(key))}
        shown = {key: where for key, where in laid_over.items() if key not in sections or key not in lines}
        lines = _without_replaced(lines, laid_over, on_cpu) | shown
    if parent is None:
        return tree, lines
    if (gpus := _value(tree, "hardware", "gpus")) is not None:
        cpu = gpus == 0
    where = lines[("extends",)]
    base, chain = _parent(parent, path, where), (*below, path)
    if any(base.samefile(other) for other in chain):
        names = " -> ".join(other.name for other in (*chain, base))
        raise UserError(f"{where}: the recipes extend each other in a circle: {names}", fix="remove one of the extends")
    base_tree, base_lines = _extended(base, chain, cpu=cpu)
    for (section, key), rest in BELONGS.items():
        own = _value(tree, section, key)
        if own is not None and own != _value(base_tree, section, key) and isinstance(base_tree.get(section), dict):
            for fact in rest:
                base_tree[section].pop(fact, None)
    return _merge(base_tree, tree), _without_replaced(base_lines, lines, tree) | lines


def _value(tree: dict[str, Any], section: str, key: str) -> Any:
    inside = tree.get(section)
    return inside.get(key) if isinstance(inside, dict) else None


def _parent(name: Any, path: Path, where: str) -> Path:
    """The recipe that the file at `path` extends: a file named relative to it, else a packaged recipe."""
    beside = [path.parent / str(name), path.parent / f"{name}.yaml"]
    found = next((file for file in beside if file.suffix in {".yaml", ".yml"} and is_file(file)), None)
    if found is None or (found.samefile(path) and is_file(RECIPES / f"{name}.yaml")):
        found = RECIPES / f"{name}.yaml"  # exp3.yaml of your own may extend the packaged exp3
    if not isinstance(name, str) or not is_file(found):
        raise UserError(
            f"{where}: there is no recipe {name} to extend",
            fix="name a recipe file, relative to this file, or one of: openrs recipe list",
        )
    return found


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    def both(key: str) -> bool:
        return isinstance(above[key], dict) and isinstance(below.get(key), dict)

    return below | {key: _merge(below[key], value) if both(key) else value for key, value in above.items()}


def _without_replaced(below: Lines, above: Lines, tree: dict[str, Any]) -> Lines:
    """The lines of a file that stay when `tree`, written at the lines `above`, is laid over it: a list or a value there
    takes the place of all that the file has inside the same key."""

    def replaces(key: Key) -> bool:
        value: Any = tree
        for part in key:
            value = value.get(part) if isinstance(value, dict) else None
        return key in above and not isinstance(value, dict)

    return {key: at for key, at in below.items() if not any(replaces(key[:end]) for end in range(1, len(key)))}


def _inline_files(tree: dict[str, Any], folder: Path, lines: Lines) -> None:
    """Replace `prompt.x: "@FILE"` by the file's text, byte for byte, so that the resolved recipe is complete."""
    prompt = tree.get("prompt")
    for key in ("system", "user", "chat_template"):
        value = prompt.get(key) if isinstance(prompt, dict) else None
        if isinstance(value, str) and value.startswith("@"):
            prompt[key] = text_of(value[1:], folder, lines["prompt", key])  # type: ignore[index]


def _invalid(error: ValidationError, model: type[BaseModel], lines: Lines) -> UserError:
    missing = {item["loc"] for item in error.errors() if item["type"] == "missing"}
    return UserError(
        "\n".join(setting_faults(error, model, lines)),
        fix="--set model.name=FOLDER --set data.source=FILE, or openrs recipe new mine.yaml --model FOLDER --data FILE"
        if missing & {("model", "name"), ("data",), ("data", "source")}
        else "openrs recipe show demo prints every key there is",
    )
