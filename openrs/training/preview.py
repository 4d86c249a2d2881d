"""What a dry run shows of the data: the first prompts as the model reads them, and what the judge reads as reference.

Needs the model's tokenizer and the data on this disk; downloads nothing and imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.data import prompts
from openrs.data.problems import TOY_SUMS, Problems
from openrs.data.tokenizer import load_tokenizer
from openrs.errors import UserError
from openrs.hub import cache
from openrs.hub.pins import Kind
from openrs.rewards.references import check_references
from openrs.run.libraries import quiet
from openrs.training.references import judge_of, problems_of, rules_of

SHOWN = 2
LOOKED_AT = 200  # rows, where the first ones are dropped


def first_prompts(recipe: Recipe) -> str:
    """The first prompts with the number of their token ids and their reference answers, checked as training checks
    them; a line instead where model or data are not on this disk. Raises UserError for data and templates that
    training would refuse."""
    absent = _absent(recipe)
    if absent:
        return f"first prompts: not shown, because {absent}\n"
    quiet()
    if recipe.model.toy is not None:
        from openrs.training.demo_model import make_tokenizer

        tokenizer = make_tokenizer()
    else:
        folder = _place("model", recipe.model.name, recipe.model.revision)
        assert folder is not None  # _absent looked
        tokenizer = load_tokenizer(folder, trust_remote_code=recipe.model.trust_remote_code)
    prompts.check_prompt(tokenizer, recipe.prompt)
    problems, prompted = _first(recipe, tokenizer)
    read = read_references(recipe, [problem.answer for problem in prompted.problems[:SHOWN]])
    parts = [f"{note}\n" for note in problems.notes]
    for text, ids, problem, (_, value) in zip(prompted.prompts, prompted.ids, prompted.problems, read, strict=False):
        body = "".join(f"  | {line}\n" for line in text.split("\n"))
        parts.append(
            f"prompt of row {problem.id}: {len(ids)} tokens\n{body}  reference answer: {problem.answer}; {value}\n"
        )
    return "\n".join(parts)


def _first(recipe: Recipe, tokenizer: Any) -> tuple[Problems, prompts.TokenizedProblems]:
    """The first rows: more of them than are shown only where the recipe drops all of these."""
    drops = "drop" in (recipe.data.missing_answer, recipe.prompt.too_long)
    for rows in (SHOWN, LOOKED_AT, None) if drops else (SHOWN,):
        limit = recipe.data.limit if rows is None else min(recipe.data.limit or rows, rows)
        first = recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit": limit})})
        try:
            problems = problems_of(first)
            return problems, prompts.tokenize_problems(tokenizer, recipe.prompt, problems.rows)
        except UserError as error:
            refused = error
    raise refused


def read_references(recipe: Recipe, answers: Sequence[str]) -> list[tuple[bool, str]]:
    """Whether the recipe's rewards can use each reference answer, and what the judge reads in it, in words."""
    rules = rules_of(recipe)
    if not rules:
        return [(True, "no reward of this recipe asks the judge about it")] * len(answers)
    with judge_of(recipe, 1) as judge:
        checked = check_references(answers, rules, judge)
    return [
        (False, f"not usable: {checked.faults[n]}") if n in checked.faults else (True, f"read as {checked.read[n]}")
        for n in range(len(answers))
    ]


def _absent(recipe: Recipe) -> str:
    """What is not on this disk, in words."""
    wanted: list[tuple[Kind, str, str | None]] = []
    if recipe.data.source != TOY_SUMS:
        wanted.append(("dataset", recipe.data.source, recipe.data.revision))
    if recipe.model.toy is None:
        wanted.append(("model", recipe.model.name, recipe.model.revision))
    for kind, name, revision in wanted:
        place = _place(kind, name, revision)
        if place is None:
            return f"{name} is not in the cache (openrs fetch RECIPE)"
        if not (place.is_dir() if kind == "model" else place.exists()):
            return f"there is no {'model folder' if kind == 'model' else 'file'} {name}"
    return ""


def _place(kind: Kind, name: str, revision: str | None) -> Path | None:
    """Where it is, or would be; None for what is the hub's and not in the cache."""
    if is_hub_name(name):
        return cache.fetched(kind, name, revision)
    return Path(name).expanduser() if kind == "model" else Path(name)
