"""What a curation recipe says: sources, stages in their order, the seed. Unknown keys are errors with file and line.

A stage is named by its key; it is of the kind that its name says, or that `stage:` says, so that one kind can stand
twice. `NAME: false` leaves a stage out, `NAME: {}` takes every default.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from openrs.config.faults import did_you_mean, refuse_secrets, setting_faults
from openrs.config.names import COMPRESSED, DATA_FILES, is_hub_name
from openrs.config.schema import Settings
from openrs.config.yaml_lines import Lines, dump_yaml, override, read_yaml, text_of
from openrs.data.shapes import ANSWER_COLUMNS, PROBLEM_COLUMNS
from openrs.errors import UserError
from openrs.hub.pins import reference
from openrs.outside import exists, is_file

RECIPES = Path(__file__).parent / "recipes"


def open_benchmarks() -> list[str]:
    """The benchmarks that come with openrs and that anybody can fetch: all but gated ones and the demo's sums."""
    from openrs.evaluation.benchmarks import known

    return [
        one.name
        for one in known().values()
        if one.hub is not None and not reference("dataset", one.hub, one.name, one.revision).gated
    ]


class Source(Settings):
    """Where problems come from. A column may be a list: the first that a row has. Dots go into nested columns."""

    path: str | list[str] = Field(description="a data file, files, a folder, or a hub data set (owner/name)")
    revision: str | None = Field(None, description="a hub commit; required for a hub data set")
    allow_unpinned: bool = Field(False, description="take whatever the hub serves today; the manifest has its hash")
    subset: str | None = None
    split: str = "train"
    problem: str | list[str] = Field(list(PROBLEM_COLUMNS))
    answer: str | list[str] = Field([name for name in ANSWER_COLUMNS if name != "solution"])
    solution: str | list[str] = Field(["solution"])
    id: str | list[str] = Field([], description="default: the row's place, counted from 0")
    level: str | list[str] = Field(["level"])
    strip_suffix: str = Field("", description="an instruction at the end of each problem that is taken away")
    where: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="only rows whose columns have these values"
    )
    limit: int | None = Field(None, ge=1, description="only the first rows")
    max_characters: int = Field(50_000, ge=1, description="a longer problem, solution or answer is taken out")

    @property
    def hub(self) -> str | None:
        """The hub data set that it is; None for files."""
        return self.path if isinstance(self.path, str) and is_hub_name(self.path) else None

    @model_validator(mode="after")
    def _pinned(self) -> "Source":
        if self.hub is not None and self.revision is None and not self.allow_unpinned:
            raise ValueError(f"{self.path} is a hub data set: give its revision, or allow_unpinned: true")
        return self


class Boxed(Settings):
    """The solution has a \\boxed{...}. Where the source has no answer, the last box is the answer."""


class Verify(Settings):
    """The judge can read the reference answer and finds an answer that repeats it right, as it has to in training."""

    rule: Literal["corrected", "paper", "paper-cosine"] = "corrected"
    fix: bool = Field(True, description="\\frac12 becomes \\frac{1}{2} where only then it verifies; counted")
    text: Literal["drop", "keep"] = Field("drop", description="reference answers that are not mathematics to the judge")
    timeout_seconds: float = Field(5.0, gt=0)


class Rewrite(Settings):
    """Reference answers of kinds that judges misread, in a form that all read alike: `1.6e-19` as 1.6\\times 10^{-19}.
    Nothing is removed; work/NN-rewrite/rewritten.jsonl has every change."""

    kinds: list[Literal["e-notation", "thousands marks", "recurring", "other characters"]] = Field(
        default=["e-notation", "thousands marks", "recurring", "other characters"], min_length=1
    )


class Sampling(Settings):
    """How a model is asked, through the evaluator's engines and journal."""

    model: str = Field(description="a folder, or a hub repository")
    revision: str | None = Field(None, description="hub commit; as pinned, or the newest, when absent")
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    prompt: str = Field(
        description="the user message, with {problem} and {answer} for the problem and its reference answer"
    )
    samples: int = Field(1, ge=1, description="completions per problem")
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    processes: int | None = Field(None, ge=1, description="engines side by side; one a GPU when absent")
    gpu_memory: float = Field(0.9, gt=0, le=1)
    batch_size: int = Field(64, ge=1, description="completions at once, for transformers")

    @model_validator(mode="after")
    def _sensible(self) -> "Sampling":
        if "{problem}" not in self.prompt:
            raise ValueError("the prompt has no {problem} in it")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(f"{self.samples} samples at temperature 0 are {self.samples} copies of one")
        return self


class Form(Settings):
    """One question with one answer, no proof, no picture that is not there."""

    parts: bool = Field(True, description="take out questions with several parts")
    proofs: bool = Field(True, description="take out proofs and explanations")
    pictures: bool = Field(True, description="take out questions that need a picture; [asy] code is text and stays")
    choices: bool = Field(False, description="take out multiple choice whose answer is a letter")
    llm: Sampling | None = Field(None, description="ask a model too; its last word must be KEEP or REMOVE")


class Duplicates(Settings):
    """Exact copies, the same text typed otherwise, and near copies (MinHash by datasketch, then compared exactly)."""

    near: bool = True
    similarity: float = Field(0.8, gt=0, le=1, description="Jaccard, of word n-grams")
    ngram: int = Field(3, ge=1)
    permutations: int = Field(128, ge=16, le=1024)
    conflicts: Literal["drop", "keep_first"] = Field(
        "drop", description="the same question with different answers: all go (one answer is wrong), or the first stays"
    )


class Decontaminate(Settings):
    """No question of a benchmark: not the same text, and no overlap of word n-grams with the same numbers."""

    benchmarks: list[str] = Field(default_factory=open_benchmarks, min_length=1)
    data: str | None = Field(None, description="folder with NAME.jsonl files; the hub at pinned revisions when absent")
    ngram: int = Field(5, ge=1)
    overlap: float = Field(0.7, gt=0, le=1, description="share of the question's n-grams that the row has")
    overlap_long: float = Field(0.55, gt=0, le=1, description="the same for questions of 60 n-grams or more")
    overlap_short: float = Field(0.95, gt=0, le=1, description="and of fewer than 20")
    same_numbers: bool = Field(True, description="the row must have all of the question's numbers")


class Difficulty(Sampling):
    """Pass rate of a model: right answers of `samples`. The rate stays as a column."""

    samples: int = Field(4, ge=1)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    prompt: str = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    rule: Literal["corrected", "paper"] = "corrected"
    keep_min: float = Field(0.0, ge=0, le=1, description="pass rates below this go")
    keep_below: float | None = Field(1.0, gt=0, le=1, description="pass rates of this and above go; null keeps them")


class Language(Settings):
    """English in Latin script; LaTeX is not a language."""

    max_foreign: float = Field(0.1, ge=0, le=1, description="share of letters of another script")
    english: bool = Field(
        True, description="texts of 8 different words and more must have some of the commonest English words"
    )


class Length(Settings):
    """Tokens of the prompt as training puts it. Without a tokenizer only characters are counted."""

    tokenizer: str | None = Field(None, description="a model's folder or hub repository")
    revision: str | None = None
    system: str | None = Field(
        None, description="the system message that training will use, or @FILE beside the recipe"
    )
    max_tokens: int | None = Field(None, ge=1)
    min_characters: int = Field(10, ge=0)
    max_characters: int = Field(10_000, ge=1)


class Stratum(Settings):
    """So many rows of a kind. pass_rate: from, to, both included."""

    rows: int = Field(ge=1)
    source: str | None = None
    level: str | None = None
    pass_rate: tuple[float, float] | None = None
    label: str | None = Field(None, description="what their `level` becomes")


class Draw(Settings):
    """A sample by the recipe's seed: rows in the order of a hash of seed and id, so a removed row moves no other."""

    rows: int | None = Field(None, ge=1, description="of all; or:")
    strata: list[Stratum] = Field(default_factory=list)
    short: Literal["refuse", "take_all"] = Field("refuse", description="when there are fewer rows than asked")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Draw":
        if (self.rows is None) == (not self.strata):
            raise ValueError("give either rows or strata")
        return self


STAGES = (Boxed, Verify, Rewrite, Form, Duplicates, Decontaminate, Difficulty, Language, Length, Draw)
KINDS: dict[str, type[Settings]] = {kind.__name__.lower(): kind for kind in STAGES}


def kind_of(stage: Settings) -> str:
    return type(stage).__name__.lower()


class Curation(Settings):
    """One dataset, whole."""

    title: str
    seed: int = 42
    sources: dict[str, Source] = Field(min_length=1)
    stages: dict[str, Any] = Field(default_factory=dict)

    @property
    def boxed(self) -> bool:
        """Whether a stage takes a missing answer from the solution's box."""
        return any(isinstance(stage, Boxed) for stage in self.stages.values())

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved tree: equal exactly when every setting is."""
        return hashlib.sha256(json.dumps(tree_of(self), sort_keys=True).encode()).hexdigest()


def tree_of(recipe: Curation) -> dict[str, Any]:
    """The resolved tree as plain values; a stage carries its kind."""
    stages = {name: {"stage": kind_of(stage), **stage.model_dump()} for name, stage in recipe.stages.items()}
    return recipe.model_dump(exclude={"stages"}) | {"stages": stages}


def to_yaml(recipe: Curation) -> str:
    return dump_yaml(tree_of(recipe))


def packaged() -> dict[str, str]:
    """Name and title of every curation recipe that comes with openrs."""
    return {path.stem: str(read_yaml(path)[0].get("title", "")) for path in sorted(RECIPES.glob("*.yaml"))}


def load(name: str, overrides: Sequence[str] = ()) -> Curation:
    """A recipe by name or path; a JSONL or parquet file, or a folder of them, is taken through the recipe `own`.

    Raises UserError with file and line for what is misspelt, ill-typed or missing.
    """
    path = Path(name)
    data = path.suffix.lower() in (*DATA_FILES, *COMPRESSED) or path.is_dir()
    recipe_file = RECIPES / "own.yaml" if data else _find(name)
    tree, lines = read_yaml(recipe_file)
    if data:
        if not exists(path):
            raise UserError(f"there is no file {name}", fix="give a data file, a folder of them, or a recipe")
        tree["title"] = path.stem or "own"
        tree["sources"] = {(path.stem or "own").replace(".", "-"): {"path": name}}
    for change in overrides:
        override(change, tree, lines, example="stages.length.max_tokens=256", false_is_empty=True)
    refuse_secrets(tree, lines)
    faults: list[str] = []
    stages = tree.pop("stages", None) or {}
    try:
        recipe = Curation.model_validate({**tree, "stages": _stages(stages, lines, faults, recipe_file.parent)})
    except ValidationError as error:
        faults += setting_faults(error, Curation, lines)
    if faults:
        raise UserError("\n".join(faults), fix=f"every key there is: docs/curation.md, or {RECIPES / 'own.yaml'}")
    return recipe


def _stages(given: Any, lines: Lines, faults: list[str], folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    if not isinstance(given, dict):
        faults.append(f"{lines.get(('stages',), 'the recipe')}: stages is not a `name: settings` list")
        return stages
    for name, value in given.items():
        if value is False:
            continue
        where = lines.get(("stages", name), "the recipe")
        if value is not None and not isinstance(value, dict):
            faults.append(f"{where}: the stage {name} is {value!r}, not a list of settings, or false")
            continue
        settings = dict(value or {})
        kind = str(settings.pop("stage", name))
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or f"there are {', '.join(KINDS)}"
            faults.append(f"{where}: there is no stage {kind}; {hint}")
            continue
        if isinstance(system := settings.get("system"), str) and system.startswith("@"):
            settings["system"] = text_of(system[1:], folder, where)
        try:
            stages[name] = KINDS[kind].model_validate(settings)
        except ValidationError as error:
            faults += setting_faults(error, KINDS[kind], lines, ("stages", name))
    return stages


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if is_file(path):
            return path
        raise UserError(f"there is no recipe file {name}", fix="give the path of a YAML file, or a name")
    if is_file(RECIPES / f"{name}.yaml"):
        return RECIPES / f"{name}.yaml"
    there = packaged()
    raise UserError(
        f"there is no curation recipe {name}",
        fix=did_you_mean(name, there) or f"one of {', '.join(there)}, a YAML file, or a data file",
    )
