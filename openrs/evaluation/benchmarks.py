"""Benchmarks as data: what is asked, how the question is put, where the right answer stands, how it is read.

Definitions are YAML (benchmarks.yaml, or a user's own file of the same form). Rows come from a folder (NAME.jsonl or
another data file of that name), from the hub at a pinned revision, or from a generator function. Imports neither torch
nor lighteval, except for a benchmark whose prompt is one of lighteval's own functions (gpqa_diamond).
"""

import functools
import importlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openrs.config.faults import setting_faults
from openrs.config.names import COMPRESSED, DATA_FILES
from openrs.config.yaml_lines import read_yaml, text_of
from openrs.data.rows import MISSING, Row, cell, file_rows, hub_rows
from openrs.data.shapes import question_text
from openrs.errors import UserError
from openrs.outside import is_file

DEFINITIONS = Path(__file__).with_name("benchmarks.yaml")
PROMPTS = Path(__file__).parents[1] / "recipes" / "prompts"
LETTERS = "ABCD"  # the choices of a benchmark whose references are of kind index


class InputHashes(BaseModel):
    """What lighteval wrote into the authors' logs about their inputs: xxh64 over the sorted digests of all problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hash_examples: str
    hash_full_prompts: str
    hash_input_tokens: str


class Benchmark(BaseModel):
    """One benchmark. `rule` names how the judge (openrs.rewards.grading.Rule) reads its reference answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="also the file's name in a --data folder")
    aliases: tuple[str, ...] = Field((), description="names that lighteval's results use for it")
    hub: str | None = None
    subset: str = "default"
    split: str = "test"
    revision: str | None = None
    generator: str | None = Field(None, description="module:function without arguments that returns the rows")
    rows: int = Field(ge=1)
    id: str | None = Field(None, description="column of the problem's id; the question's digest where there is none")
    question: str
    gold: tuple[str, ...] = Field(min_length=1, description="column of the right answer: the first that the data has")
    gold_kind: Literal["expr", "latex", "index"]
    prompt: str | None = Field("eval_math.txt", description="file with {Question}; null puts the question as it is")
    template: str = "{Question}"
    prompt_function: str | None = Field(None, description="lighteval prompt function, module:function, instead")
    tokens: int = Field(
        10_000, ge=1, description="usual length of a completion; only the order of the work depend on it"
    )
    misread: int = Field(0, ge=0, description="references in e-notation, which lighteval reads as a product with e")
    hashes: InputHashes | None = None
    note: str = ""

    @property
    def rule(self) -> str:
        """Value of the judge's rule: expr-gold, latex-gold, index-gold (paper.md section 3, "Metric")."""
        return f"{self.gold_kind}-gold"

    @model_validator(mode="after")
    def _template_fits(self) -> "Benchmark":
        try:
            put = self.template.format(Question="openrs")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"the prompt {self.prompt} is not a template: {error!r}; {{Question}} stands for the question, "
                "and every other brace is written twice"
            ) from None
        if "openrs" not in put:
            raise ValueError(f"the prompt {self.prompt} has no {{Question}} in it")
        return self


@dataclass(frozen=True, slots=True)
class EvalProblem:
    """One problem as it is put and judged.

    id: unique, and the same wherever the rows came from, e.g. "math_500/test/precalculus/807.json".
    question: the column's text, nothing stripped. gold: the text that lighteval's metric gets. prompt: the whole user
    message, without chat format.
    """

    id: str
    question: str
    gold: str
    prompt: str


@functools.cache
def known() -> Mapping[str, Benchmark]:
    """The benchmarks that come with openrs, by name."""
    return read_definitions(DEFINITIONS)


def resolve(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name, in the order asked for; a name that ends in .yaml is a file and adds every benchmark in it.

    Raises UserError for an unknown name, a name asked for twice, and a file that is not a list of benchmarks.
    """
    chosen: dict[str, Benchmark] = {}
    for name in names:
        if name.endswith((".yaml", ".yml")):
            new = read_definitions(Path(name))
        elif name in known():
            new = {name: known()[name]}
        else:
            raise UserError(
                f"there is no benchmark {name}",
                fix=f"one of {', '.join(known())}, or the path of a YAML file with your own",
            )
        twice = [key for key in new if key in chosen]
        if twice:
            raise UserError(f"benchmark {twice[0]} is asked for twice", fix="name each benchmark once")
        chosen |= new
    return list(chosen.values())


def read_definitions(path: Path) -> dict[str, Benchmark]:
    """Read a file of definitions. Raises UserError with file and line for what is missing, misspelt or impossible."""
    tree, lines = read_yaml(path)
    if not tree:
        raise UserError(f"{path.name}: no benchmark in it", fix=f"see the head of {DEFINITIONS}")
    found: dict[str, Benchmark] = {}
    for name, given in tree.items():
        where = lines[(name,)]
        if not isinstance(given, dict):
            raise UserError(f"{where}: {name} is not a `key: value` list", fix=f"see the head of {DEFINITIONS}")
        settings = {"name": name, **given}
        if (prompt := given.get("prompt", "eval_math.txt")) is not None:
            settings["template"] = _read_prompt(str(prompt), path.parent, where)
        try:
            found[name] = Benchmark.model_validate(settings)
        except ValidationError as error:
            faults = "\n".join(setting_faults(error, Benchmark, lines, (name,)))
            raise UserError(faults, fix=f"see the head of {DEFINITIONS}") from None
    return found


def _read_prompt(name: str, folder: Path, where: str) -> str:
    for home in (folder, PROMPTS):
        if is_file(home / name):
            return text_of(name, home, where)
    there = ", ".join(sorted(file.name for file in PROMPTS.glob("*.txt")))
    raise UserError(
        f"{where}: there is no prompt file {name}", fix=f"put it beside the YAML file, or take one of: {there}"
    )


def load_problems(benchmark: Benchmark, data_dir: Path | None = None, *, any_count: bool = False) -> list[EvalProblem]:
    """All problems of a benchmark, in the data's order.

    data_dir: folder with NAME.jsonl, or NAME as another kind of data file; None takes the generator, or the hub at the
    pinned revision.
    any_count: do not insist on benchmark.rows (the input check names the rows that are missing instead).
    Raises UserError for a missing or broken file, missing columns (naming those there are), empty or ill-typed
    questions and answers, ids that come twice, and a wrong number of rows.
    """
    problems: list[EvalProblem] = []
    first: dict[str, int] = {}
    rows, source = read_rows(benchmark, data_dir)
    for number, row in enumerate(rows, start=1):
        problem = problem_of(benchmark, row, f"{source}: row {number}")
        if problem.id in first:
            what = f"the id {row[benchmark.id]!r}" if benchmark.id and benchmark.id in row else "the same question"
            raise UserError(
                f"{source}: rows {first[problem.id]} and {number} have {what}",
                "a problem counted twice would count its samples twice",
                "remove one, or name a column with unique ids (id:)",
            )
        first[problem.id] = number
        problems.append(problem)
    if not problems or (len(problems) != benchmark.rows and not any_count):
        raise UserError(
            f"{source}: {len(problems)} rows, {benchmark.name} has {benchmark.rows}",
            "scores over other problems cannot be compared",
            "take the whole file, or define a benchmark of your own with this number of rows",
        )
    return problems


def problem_of(benchmark: Benchmark, row: Row, where: str) -> EvalProblem:
    """One row as a problem. `where` goes into the messages."""
    asked = _column(row, (benchmark.question,), where)
    question, _ = question_text(asked)
    if not question.strip():
        raise UserError(f"{where}: {benchmark.question} is {_shown(asked)}, not a question")
    name = str(row[benchmark.id]) if benchmark.id and benchmark.id in row else None
    if benchmark.prompt_function:
        prompt, choices, index = ask_lighteval(benchmark, row, where)
        gold = choices[index]
    else:
        prompt, gold = benchmark.template.format(Question=question), _gold_text(benchmark, row, where)
    try:
        (prompt + gold).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: half a character (a lone surrogate) in question or answer") from None
    return EvalProblem(f"{benchmark.name}/{name or digest(question)}", question, gold, prompt)


def digest(text: str) -> str:
    """xxh64 of a text as 16 hexadecimal digits, as lighteval hashes (logging/info_loggers.py)."""
    import xxhash

    return str(xxhash.xxh64(text.encode("utf-8")).hexdigest())


def ask_lighteval(benchmark: Benchmark, row: Row, where: str) -> tuple[str, list[str], int]:
    """Query, choices and index of the reference answer from lighteval's own prompt function.

    Such functions draw the place of the right answer at random; seeded by the question, a row always gives one prompt.
    """
    function = _import(benchmark.prompt_function or "", where)
    state = random.getstate()
    random.seed(digest(str(row[benchmark.question])))
    try:
        doc = function(dict(row), benchmark.name)
    except KeyError as error:
        raise UserError(f"{where}: there is no column {error}", f"the columns are {', '.join(map(str, row))}") from None
    finally:
        random.setstate(state)
    return str(doc.query), [str(choice) for choice in doc.choices], int(doc.gold_index)


def _gold_text(benchmark: Benchmark, row: Row, where: str) -> str:
    value = _column(row, benchmark.gold, where)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]  # OlympiadBench's final_answer
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{where}: the answer is {_shown(value)}", fix="a text, a number, or a list of one of them")
    if str(value).strip() in ("", "nan", "inf", "-inf"):
        raise UserError(f"{where}: the answer is {str(value) or 'empty'}")
    if benchmark.gold_kind == "index" and str(value) not in tuple(LETTERS):
        raise UserError(f"{where}: the answer is {_shown(value)}, not one of {', '.join(LETTERS)}")
    if isinstance(value, float) and "e" in str(value):  # lighteval reads 1e-07 as a product with e
        return format(Decimal(repr(value)), "f")
    return str(value)


def _column(row: Row, names: Sequence[str], where: str) -> Any:
    for name in names:
        value = cell(row, name)
        if value is not MISSING:
            return value
    raise UserError(
        f"{where}: there is no column {' or '.join(names)}",
        f"the columns are {', '.join(map(str, row))}",
        "rename the column, or define a benchmark that names yours (question:, gold:)",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def read_rows(benchmark: Benchmark, data_dir: Path | None) -> tuple[Iterator[Row], str]:
    """The raw rows and what to call their source in messages."""
    if benchmark.generator:
        made = _import(benchmark.generator, benchmark.name)()
        return (
            asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in made
        ), benchmark.generator
    if data_dir is None:
        folder = f"give --data a folder with {benchmark.name}.jsonl"
        if benchmark.hub is None:
            raise UserError(f"{benchmark.name} has no hub data set", fix=folder)
        rows = hub_rows(
            benchmark.hub,
            benchmark.revision,
            benchmark.subset,
            benchmark.split,
            f"try again with a network, or {folder}",
        )
        return rows, f"{benchmark.hub}@{(benchmark.revision or 'unpinned')[:7]}"
    for suffix in (*DATA_FILES, *(kind + packed for packed in COMPRESSED for kind in DATA_FILES)):
        file = data_dir / f"{benchmark.name}{suffix}"
        if file.is_file():
            return (row for _, row in file_rows(file)), str(file)
    there = ", ".join(sorted(f.name for f in data_dir.iterdir())) if data_dir.is_dir() else "no such folder"
    raise UserError(
        f"{data_dir} has no {benchmark.name}.jsonl or {benchmark.name}.parquet",
        f"in it: {there or 'nothing'}",
        "give --data the folder that holds the benchmark files",
    )


def _import(name: str, where: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}: {name} cannot be imported: {error}", fix="module:function of something installed"
        ) from None
