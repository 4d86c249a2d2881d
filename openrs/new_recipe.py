"""`openrs recipe new`: a commented recipe for a model and data of one's own, written after a look at both."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from openrs.config.checks import grpo_value
from openrs.config.load import load
from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.curation.text import shortened
from openrs.data import prompts
from openrs.data.problem import Problem
from openrs.data.problems import INHERITED, Problems, load_problems
from openrs.data.shapes import as_mathematics
from openrs.data.tokenizer import check_tokenizer, load_tokenizer
from openrs.errors import UserError
from openrs.hub import cache
from openrs.hub.models import commit_of, config_of, context_of, local_model
from openrs.hub.pins import reference
from openrs.planner.render import answer
from openrs.rewards.grading import printable
from openrs.run.files import write_text
from openrs.run.libraries import for_tokenizers, quiet
from openrs.training.preview import first_prompts, read_references
from openrs.training.references import problems_of

LOOKED_AT = 200  # problems whose prompts are tokenized and whose reference answers are judged


class Look(NamedTuple):
    """What was found. lengths: tokens of the prompts, sorted. read: of each reference answer whether the judge can use
    it, and what it reads."""

    bos: str
    system: str | None
    problems: Problems
    lengths: list[int]
    read: list[tuple[bool, str]]


def write(file: Path, model: str, data: str, base: str, *, held_out: int, columns: Mapping[str, str]) -> str:
    """Write the recipe and return what there is to say of it: the first prompts, and the plan.

    held_out: so many problems, drawn with a fixed seed, are kept from training and become the benchmark of the
    evaluations before and after. columns: names of data's columns (problem_column, answer_column), where they are not
    recognised. Raises UserError for a file that is there, for a model or data that training would
    refuse, and for data that has not more problems than are held out.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file} is no name for a recipe", fix="end it in .yaml")
    _refuse_to_overwrite(file)
    quiet()
    folder = _model_folder(model)
    name = model if is_hub_name(model) else str(Path(model).expanduser())
    source = data if is_hub_name(data) else str(Path(data).expanduser())
    named = [f"model.name={_json(name)}", f"data.source={_json(source)}"]
    named += [f"data.{key}={_json(column)}" for key, column in columns.items()]
    start = load(base, [*named, *_unpinned(name, source)])
    with ExitStack() as undo:  # or the next try would be refused because of what this one wrote

        def written(path: Path, text: str) -> None:
            undo.callback(path.unlink, missing_ok=True)
            write_text(path, text)

        if held_out:
            texts, settings = _split(file, start, held_out)
            for path, text in texts.items():
                written(path, text)
            start = load(base, [named[0], *_unpinned(name, ""), *settings])
        with nullcontext() if start.model.trust_remote_code else for_tokenizers():
            written(file, "\n".join(_lines(base, start, folder, _look(start, folder))) + "\n")
            recipe = load(str(file))
            shown = first_prompts(recipe)
        undo.pop_all()
    try:
        plan = answer(recipe, run=None, layout=None, gpu=None, gpus=None, price=None, node_memory=None, assume=[],
                      fit=False, json=False)  # fmt: skip
    except UserError as error:
        plan = f"no plan: {error}\n"
    return f"{shown}\nopenrs plan {file}:\n\n{plan.partition(chr(10) + 'assumed')[0]}"


def _split(file: Path, start: Recipe, held_out: int) -> tuple[dict[Path, str], list[str]]:
    """The files of the problems to train on, and of the others as a benchmark that asks them as training would; and the
    settings that name both. Answers stay as in the data. Problems that differ in spaces and capitals only land on one
    side."""
    problems = load_problems(start.data.model_copy(update={"answer_template": "{answer}"})).rows
    if any(problem.system for problem in problems):
        raise UserError("data.keep_system: a benchmark has no system messages", fix="leave --hold-out out")
    different = {_spelt(problem): problem for problem in problems}
    if held_out >= len(different):
        raise UserError(
            f"--hold-out {held_out}: {start.data.source} has {len(different)} different problems",
            "some must be left to train on",
            "hold out fewer",
        )
    apart = {text: different[text] for text in random.Random(0).sample(list(different), held_out)}
    name = re.sub("^[^A-Za-z0-9]+", "", re.sub("[^A-Za-z0-9_.-]", "-", f"{file.stem}-held-out"))  # as benchmarks may be
    training, benchmark = file.with_name(f"{file.stem}-train.jsonl"), file.with_name(f"{name}.yaml")
    asked = start.prompt.user.replace("{", "{{").replace("}", "}}").replace("{{problem}}", "{Question}")
    columns = f"id: id, question: problem, gold: [answer], gold_kind: latex, prompt: {name}.txt"
    training_rows = [{"problem": one.problem, "answer": one.answer} for one in problems if _spelt(one) not in apart]
    held_out_rows = [
        {
            "id": f"{number} {shortened(' '.join(printable(one.problem).split()), 40)}",
            "problem": one.problem,
            "answer": as_mathematics(one.answer),
        }
        for number, one in enumerate(apart.values(), start=1)
    ]
    texts = {
        training: "".join(json.dumps(row) + "\n" for row in training_rows),
        benchmark.with_suffix(".jsonl"): "".join(json.dumps(row) + "\n" for row in held_out_rows),
        benchmark.with_suffix(".txt"): asked,
        benchmark: f"{json.dumps(name)}: {{rows: {held_out}, {columns}}}\n",
    }
    for path in texts:
        _refuse_to_overwrite(path)
    return texts, [
        f"data.source={_json(str(training))}",
        "data.problem_column=problem",
        "data.answer_column=answer",
        f"evaluation.benchmarks={_json([str(benchmark)])}",
        f"evaluation.data={_json(str(file.parent))}",
    ]


def _spelt(problem: Problem) -> str:
    """Its text without what typing varies."""
    return " ".join(problem.problem.split()).casefold()


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already", "it would be overwritten", "give another name, or remove it")


def _unpinned(name: str, source: str) -> Iterator[str]:
    """For the first look only: the file names what was looked at."""
    for section, one in (("model", name), ("data", source)):
        if is_hub_name(one):
            yield f"{section}.allow_unpinned=true"


def _model_folder(model: str) -> Path:
    if not is_hub_name(model):
        return local_model(model)
    folder = cache.fetched("model", model)
    if folder is None:
        command = f"openrs fetch demo --set model.name={model} --set model.allow_unpinned=true"
        raise UserError(f"{model} is not in the cache", fix=f"{command}, or give a folder")
    return folder


def _look(start: Recipe, folder: Path) -> Look:
    tokenizer = load_tokenizer(folder, trust_remote_code=start.model.trust_remote_code)
    bos_added = check_tokenizer(tokenizer, folder)
    system = start.prompt.system
    try:
        prompts.check_prompt(tokenizer, start.prompt)
    except UserError:
        if system is None:
            raise
        prompts.check_prompt(tokenizer, start.prompt.model_copy(update={"system": None}))
        system = None
    problems = problems_of(start)
    read = read_references(start, [problem.answer for problem in problems.rows[:LOOKED_AT]])
    prompt = start.prompt.model_copy(update={"system": system})
    texts = [prompts.render(tokenizer, prompt, problem.problem) for problem in problems.rows[:LOOKED_AT]]
    lengths = sorted(len(row) for row in prompts.tokenize(tokenizer, prompt, texts))
    return Look(_bos(tokenizer, texts[0], bos_added), system, problems, lengths, read)


def _bos(tokenizer: Any, text: str, added: int) -> str:
    if not tokenizer.bos_token:
        return "no BOS token"
    if text.startswith(tokenizer.bos_token):
        return "one BOS in front, by the template"
    return "no BOS in front" + (", though the tokenizer would add one to plain text" if added else "")


def _lines(base: str, start: Recipe, folder: Path, look: Look) -> Iterator[str]:
    source, window = start.data.source, context_of(folder) or 1 << 20
    longest, median = look.lengths[-1], look.lengths[len(look.lengths) // 2]
    room = min(max(64, -(-longest // 64) * 64), window - 1)
    completion = min(grpo_value(start, "max_completion_length"), window - room)
    per_step = grpo_value(start, "per_device_train_batch_size") * grpo_value(start, "gradient_accumulation_steps")
    yield "# Written by `openrs recipe new` after a look at the model and the data. Every other key can be set here as"
    yield f"# well: openrs recipe show {base} prints them."
    yield f"extends: {_json(base)}"
    yield f"title: {_json(f'{Path(start.model.name).name} on {Path(source).name}')}"
    yield from _model_lines(start, folder)
    yield "prompt:"
    yield f"  # the chat template was checked with this prompt: {look.bos}"
    yield _key("system", look.system, "the template takes none" if start.prompt.system and not look.system else "")
    yield _key("user", start.prompt.user)
    yield _key("max_tokens", room, f"the longest of {len(look.lengths)} prompts has {longest}, half up to {median}")
    yield _key("too_long", start.prompt.too_long)
    yield "data:"
    yield _key("source", source, f"{len(look.problems.rows):,} problems")
    if is_hub_name(source):
        commit = cache.locked_commit(reference("dataset", source, "data", allow_unpinned=True))
        yield _key("revision", commit, "" if commit else "not fetched: whatever the hub serves today")
        yield _key("allow_unpinned", commit is None)
    for note in look.problems.notes:
        yield f"  # {_comment(note)}"
    for key in ("problem_column", "answer_column"):
        if (column := start.data.model_dump()[key]) not in INHERITED:
            yield _key(key, column)
    yield "  # another shape: problem_column and answer_column name the columns (docs/data.md)"
    readable = sum(usable for usable, _ in look.read)
    shown = f"{look.problems.rows[0].answer[:60]!r}: {look.read[0][1]}"
    yield f"  # the judge can use {readable} of {len(look.read)} reference answers; {_comment(shown)}"
    yield "rewards:"
    yield _key("mode", start.rewards.mode)
    yield '  functions:  # or your own, in a file beside: {name: "myrewards:function", weight: 1.0} (docs/own-model.md)'
    for reward in start.rewards.functions:
        yield f"    - {_json({'name': reward.name, 'weight': reward.weight, 'args': reward.args})}"
    yield "grpo:"
    yield f"  # {per_step * max(1, start.hardware.world_size)} completions a step, in groups of num_generations"
    for option in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations"):
        yield _key(option, grpo_value(start, option))
    yield _key("max_completion_length", completion, "tokens; longer ones are cut off and rarely earn a reward")
    if (engine := grpo_value(start, "vllm_max_model_length")) is not None and engine < room + completion:
        yield _key("vllm_max_model_length", room + completion, "the longest prompt and the longest completion")
    for option in ("max_steps", "learning_rate", "warmup_steps", "beta", "save_steps", "seed"):
        yield _key(option, grpo_value(start, option))
    yield "evaluation:"
    yield _key("benchmarks", start.evaluation.benchmarks, "names, or a YAML file of your own (docs/own-model.md)")
    if start.evaluation.data is not None:
        yield _key("data", start.evaluation.data, "the folder of the benchmarks' rows")
    yield _key("max_tokens", min(start.evaluation.max_tokens, window))
    yield "hardware:"
    for option in ("gpu", "gpus", "layout", "zero_stage"):
        yield _key(option, start.hardware.model_dump()[option])


def _model_lines(start: Recipe, folder: Path) -> Iterator[str]:
    revision, config = commit_of(folder), config_of(folder)
    stored = config.get("dtype") or config.get("torch_dtype") or "unknown"
    yield "model:"
    yield _key("name", start.model.name)
    yield _key("revision", revision, "" if revision else "a local folder has none")
    yield _key("dtype", start.model.dtype, f"the weights are stored as {stored}")
    yield _key("context", context_of(folder), "the model's window in tokens, by its config.json")


def _key(name: str, value: Any, comment: str = "") -> str:
    return f"  {name}: {_json(value)}" + (f"  # {comment}" if comment else "")


def _json(value: Any) -> str:
    """JSON is YAML as well; only a character that YAML cannot hold has to be escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _comment(text: str) -> str:
    """Data's own words in a comment: one short line."""
    return printable(text)[:150]
