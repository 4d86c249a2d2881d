"""The reference answers of a run, checked before its first step: what is wrong with them is refused or said."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from openrs.config.schema import Recipe
from openrs.data.problems import TOY_SUMS, Problems, is_published, load_problems, shown
from openrs.errors import UserError
from openrs.rewards.functions import rules_asked
from openrs.rewards.grading import Judge, Rule, printable, processors
from openrs.rewards.references import CheckedReferences, ReferenceFault, check_references
from openrs.run.progress import Progress

LIMIT = 0.02  # share of reference answers that may be unusable; data.unreadable_limit sets another
EXAMPLES = 3
MOST_WORKERS = 16  # nothing else runs yet


def rules_of(recipe: Recipe) -> tuple[Rule, ...]:
    """What the recipe's rewards ask the judge; nothing where all of them are the user's own."""
    return rules_asked([reward.name for reward in recipe.rewards.functions], recipe.rewards.mode)


def problems_of(recipe: Recipe) -> Problems:
    """The recipe's training problems, their answers as its rewards need them. Raises UserError as load_problems."""
    return load_problems(recipe.data, judged=bool(rules_of(recipe)))


def judge_of(recipe: Recipe, workers: int | None) -> Judge:
    """A judge of so many processes (None: by the machine) with the recipe's limits."""
    return Judge(workers, recipe.rewards.timeout_seconds, int(recipe.rewards.memory_gib * 2**30))


def check_data(recipe: Recipe, problems: Problems, progress: Progress) -> dict[str, Any]:
    """Have the judge read every reference answer, and say what was found. Returns that for the manifest.

    The paper's own data is counted and never refused. Raises UserError for other data with reference answers that pay
    everybody, or of which more than data.unreadable_limit cannot be used.
    """
    for note in problems.notes:
        progress.say(note)
    rules = rules_of(recipe)
    if not rules or recipe.data.source == TOY_SUMS:
        return {}
    answers = [problem.answer for problem in problems.rows]
    with judge_of(recipe, recipe.rewards.workers or min(processors(), MOST_WORKERS)) as judge:
        checked = check_references(answers, rules, judge, published=is_published(recipe.data))
        rows = [problem.id for problem in problems.rows]
        for line in _lines(checked, rows, answers):
            progress.say(line)
        if not is_published(recipe.data):
            _refuse_paying(recipe, checked, rows, answers, judge)
            _refuse_unusable(recipe, checked, rows, answers)
    counts = Counter(checked.faults.values())
    return {
        "checked": len(answers),
        **{fault.name.lower(): counts[fault] for fault in ReferenceFault},
        "without_box": len(checked.without_box),
        "other_number": len(checked.other_number),
    }


def _lines(checked: CheckedReferences, rows: Sequence[str], answers: Sequence[str]) -> list[str]:
    lines = [f"{len(answers):,} reference answers checked: {len(checked.faults):,} of them cannot be used"]
    for fault in ReferenceFault:
        found = [index for index, one in checked.faults.items() if one is fault]
        if found:
            lines.append(f"  {fault}: {len(found):,}, row {shown([rows[index] for index in found])}")
    for what, found in (
        ("solutions without a \\boxed{...}", checked.without_box),
        ("solutions whose last number is not what was read", checked.other_number),
    ):
        if found:
            first = found[0]
            lines.append(
                f"  {what}: {len(found):,}, row {shown([rows[index] for index in found])};"
                f" row {rows[first]} was read as {printable(checked.read[first])[:80]}"
            )
    return lines


def _refuse_paying(
    recipe: Recipe, checked: CheckedReferences, rows: Sequence[str], answers: Sequence[str], judge: Judge
) -> None:
    """Of data that is not the paper's, what the paper's rewards would pay to any completion."""
    pays = (ReferenceFault.UNREADABLE, ReferenceFault.PAYS_WRONG, ReferenceFault.PAYS_ZERO)
    paying = [index for index, fault in checked.faults.items() if fault in pays]
    if recipe.rewards.mode != "paper" or not paying:
        return
    paid, why = "every completion", "is 1.0 for any text where it cannot read the reference answer as LaTeX"
    if all(checked.faults[index] is ReferenceFault.PAYS_ZERO for index in paying):
        paid, why = "the answer 0.0", "rounds to six decimals"
    left = len(check_references(answers, [Rule.CORRECTED], judge).faults) / len(answers)
    raise UserError(
        f"{recipe.data.source}: {len(paying):,} of {len(answers):,} reference answers pay {paid}"
        f" (rewards.mode: paper):{_examples(paying, rows, answers)}",
        f"the paper's reward {why}; that is kept for the paper's own data only",
        f"--set rewards.mode=corrected{_lift(recipe, left)}, or write these answers as LaTeX between dollars"
        + (", in a larger unit" if paid == "the answer 0.0" else ""),
    )


def _refuse_unusable(recipe: Recipe, checked: CheckedReferences, rows: Sequence[str], answers: Sequence[str]) -> None:
    share = len(checked.faults) / len(answers)
    if lift := _lift(recipe, share):
        counts = Counter(checked.faults.values())
        raise UserError(
            f"{recipe.data.source}: {len(checked.faults):,} of {len(answers):,} reference answers cannot be used, more"
            f" than {_limit(recipe):.0%}:{_examples(list(checked.faults), rows, answers)}",
            "; ".join(f"{fault}: {count:,}" for fault, count in counts.items()),
            f"name the right column in data.answer_column, rewrite the answers, or accept them:{lift}",
        )


def _limit(recipe: Recipe) -> float:
    limit = recipe.data.unreadable_limit
    return LIMIT if limit is None else limit


def _lift(recipe: Recipe, share: float) -> str:
    """The option that accepts such a share of unusable reference answers; nothing where it is below the limit."""
    accepted = math.ceil(share * 100) / 100
    return f" --set data.unreadable_limit={accepted:g}" if share > _limit(recipe) else ""


def _examples(found: Sequence[int], rows: Sequence[str], answers: Sequence[str]) -> str:
    return "".join(f"\n    row {rows[index]}: {printable(answers[index])[-120:]}" for index in found[:EXAMPLES])
