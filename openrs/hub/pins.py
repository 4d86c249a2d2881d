"""What is pinned (pins.yaml), and what a recipe refers to. A reference without a pin is refused."""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.config.yaml_lines import read_yaml
from openrs.errors import UserError

PINS = Path(__file__).with_name("pins.yaml")
Kind = Literal["model", "dataset"]
COMMIT = re.compile(r"[0-9a-f]{40}")
BEGINNING = re.compile(r"[0-9a-f]{7,39}")

# Files of a model that are fetched: weights as safetensors, the configuration, the tokenizer.
MODEL_FILES = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "vocab.txt",
    "merges.txt",
    "LICENSE*",
    "README.md",
)
PICKLES = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository that a recipe needs, and for what.

    revision: a commit (40 digits); its beginning (7 to 39), to be looked up; or "main": the newest, locked at the first
    fetch unless `unpinned`, which takes the newest each time. sha256: of files, where known beforehand.
    """

    kind: Kind
    repo: str
    revision: str
    purpose: str
    unpinned: bool = False
    gated: bool = False
    files: tuple[str, ...] | None = None
    bytes: int | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Key in the lock: models/owner/name or datasets/owner/name."""
        return f"{self.kind}s/{self.repo}"

    @property
    def exact(self) -> bool:
        return COMMIT.fullmatch(self.revision) is not None


@functools.cache
def _pins() -> dict[str, Any]:
    return read_yaml(PINS)[0]


def checkpoint(experiment: str, step: int) -> tuple[str, str]:
    """Repository and commit of an authors' checkpoint. Raises UserError listing the steps that there are."""
    table = _pins()["checkpoints"]
    steps = table.get(experiment) if experiment != "repository" else None
    if steps is None or str(step) not in steps:
        known = "; ".join(f"{name} at {', '.join(map(str, table[name]))}" for name in table if name != "repository")
        raise UserError(f"the authors published no checkpoint {experiment}@{step}", fix=f"there are {known}")
    return table["repository"], steps[str(step)]


def reference(kind: Kind, repo: str, purpose: str, revision: str | None = None, *, allow_unpinned: bool = False,
              pickles: bool = False) -> Reference:  # fmt: skip
    """A reference to a hub repository at the given revision, or as pinned here.

    Raises UserError for one that nobody pinned (and nobody allowed unpinned), and for a revision that can move.
    """
    pin = _pins()[f"{kind}s"].get(repo, {})
    if not pin and revision is None and not allow_unpinned:
        raise UserError(
            f"{purpose}: {kind} {repo} has no pinned revision",
            "the hub may serve something else tomorrow",
            f"give a commit ({'model' if kind == 'model' else 'data'}.revision), or allow_unpinned: true",
        )
    chosen = revision or pin.get("revision") or pin.get("starts") or "main"  # main: the first fetch decides
    moves = COMMIT.fullmatch(chosen) is None and BEGINNING.fullmatch(chosen) is None
    if moves and revision is not None and not allow_unpinned:
        raise UserError(
            f"{purpose}: revision {revision} of {kind} {repo} is not a commit",
            "a branch or a tag can move",
            "give the commit's 40 hexadecimal digits (or its first 7 or more)",
        )
    return Reference(
        kind, repo, chosen, purpose,
        unpinned=moves and (revision is not None or not pin),
        gated=bool(pin.get("gated", False)),
        files=(MODEL_FILES + PICKLES if pickles else MODEL_FILES) if kind == "model" else None,
        bytes=pin.get("bytes") if chosen == pin.get("revision") else None,
        sha256=pin.get("sha256", {}) if chosen == pin.get("revision") else {},
    )  # fmt: skip


def references(recipe: Recipe) -> list[Reference]:
    """Every hub repository that a recipe needs: its model, its training data, its benchmarks. Each repository once.

    Raises UserError for an unpinned one, all of them in one message.
    """
    found: list[Reference] = []
    problems: list[str] = []
    model, data = recipe.model, recipe.data
    wanted: list[Callable[[], Reference]] = []
    if model.toy is None and is_hub_name(model.name):
        options = {"allow_unpinned": model.allow_unpinned, "pickles": model.allow_pickle_weights}
        wanted.append(functools.partial(reference, "model", model.name, "model", model.revision, **options))
    if data.source != "toy-sums" and is_hub_name(data.source):
        take = functools.partial(reference, allow_unpinned=data.allow_unpinned)
        wanted.append(functools.partial(take, "dataset", data.source, "training data", data.revision))
    for name, repo, revision in _benchmarks(recipe):
        wanted.append(functools.partial(reference, "dataset", repo, f"benchmark {name}", revision))
    for ask in wanted:
        try:
            new = ask()
        except UserError as error:
            problems.append(str(error))
            continue
        if all((new.name, new.revision) != (old.name, old.revision) for old in found):
            found.append(new)
    if problems:
        raise UserError("\n".join(problems))
    return found


def _benchmarks(recipe: Recipe) -> list[tuple[str, str, str | None]]:
    """(benchmark, data set, revision or None) for those that come from the hub, a user's own YAML files included."""
    if recipe.evaluation.data is not None:
        return []
    found: list[tuple[str, str, str | None]] = []
    for name in recipe.evaluation.benchmarks:
        if name.endswith((".yaml", ".yml")):
            entries = read_yaml(Path(name))[0]
            found += [
                (key, str(entry["hub"]), entry.get("revision"))
                for key, entry in entries.items()
                if isinstance(entry, dict) and entry.get("hub")
            ]
        elif (repo := _pins()["benchmarks"].get(name)) is not None:
            found.append((name, repo, None))
    return found


def target(name: str) -> list[Reference] | None:
    """References for `paper:base`, `paper:exp3@50`, `paper:open-rs3`, `paper:deepscaler` ...; None for other names.

    Raises UserError for a name of this form that the paper has not.
    """
    if not name.startswith("paper:"):
        return None
    what = name.removeprefix("paper:").lower()
    if what == "base":
        return [reference("model", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", name)]
    released = re.fullmatch(r"open-rs([123])", what)
    if released:
        return [reference("model", f"knoveleng/Open-RS{released[1]}", name)]
    step = re.fullmatch(r"(exp[123])@(\d+)", what)
    if step:
        repo, commit = checkpoint(step[1], int(step[2]))
        return [reference("model", repo, name, commit)]
    if what in baselines():
        return [reference("model", baselines()[what]["repository"], name)]
    if what.startswith("rstar"):
        raise UserError(f"there is no {name}", "no weights of rStar-Math-7B are known", "take another baseline")
    others = ", ".join(f"paper:{one}" for one in baselines())
    raise UserError(
        f"there is no {name}", fix=f"paper:base, paper:open-rs1 to 3, a checkpoint like paper:exp3@50, {others}"
    )


def baselines() -> Mapping[str, Mapping[str, str]]:
    """Baselines of the paper's table -> repository, and model as the table has it."""
    found: dict[str, dict[str, str]] = _pins()["baselines"]
    return found
