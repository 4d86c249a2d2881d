"""Rewards as TRL 1.16 calls them: f(prompts, completions, completion_ids, **columns) -> list[float | None].

How one reward comes about: Trainer._calculate_rewards has RewardSet.judge ask the judge (grading.py) once a batch, by
the rules that REWARDS names; each function turns the verdict on a completion into a number; TRL sums the numbers by
weight. To add a reward: CONTRIBUTING.md, "How to add".

Two modes. `paper` is the published code (src/open_r1/rewards.py of knoveleng/open-rs at 2889c47), number for number and
with its defects; `corrected` mends them:

| | paper | corrected |
|---|---|---|
| gold that can't be parsed | 1.0 for any answer (accuracy and cosine) | None, and counted |
| comparison | verify(answer, gold), the wrong way round, to six decimals | our own, exact (docs/judging.md) |
| a box in a thought without end | counts | no answer |
| a box between dollars or brackets | opened for accuracy, not for cosine (worker.py) | opened |
| cosine: length | characters, against a max_len given as tokens | tokens |
| cosine: beyond max_len | turns back, repeats every 2 x max_len | stays at the value of max_len |
| judge timed out or crashed | as a wrong answer | as a wrong answer |

The published code had no limit for the whole of a comparison; math-verify's own time-outs (3 s each) made a wrong
answer of most that took long, and so does ours at the judge's 5 s. A wrong answer it stays in `corrected`: None for one
completion of a group would pay it more than its wrong neighbours.

A fourth, `overlong`, is not the paper's: TRL's soft penalty for lengths near the cap.

None is TRL's "does not apply": the weighted sum leaves it out. All completions of a group share their gold, so in a
group whose gold can't be parsed every completion misses the same term, and the group learns from what is left (format),
or, when nothing is left, not at all: TRL then sets the advantages to 0. (GRPOTrainer._generate_and_score_completions:
nansum, unscorable_mask.)
"""

import functools
import importlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from openrs.config.faults import did_you_mean
from openrs.config.schema import Reward
from openrs.errors import UserError
from openrs.rewards.extraction import as_continued
from openrs.rewards.grading import Item, Judge, Rule, Verdict

Mode = Literal["paper", "corrected"]
RewardFunction = Callable[..., list[float | None]]
Verdicts = Mapping[Rule, Verdict]  # of one completion, by each rule that a reward asks
END_OF_THOUGHT = "\n</think>\n"


@dataclass(slots=True)
class RewardStats:
    """What happened since the last drain(), in this process. Completions are counted once, however many rewards ask
    about them."""

    completions: int = 0  # judged
    correct: int = 0
    unparseable_golds: int = 0
    no_answers: int = 0
    timeouts: int = 0
    crashes: int = 0
    cosine_beyond: int = 0  # longer than max_len: in paper mode the curve turns back there, in corrected mode it stays
    cosine_wraps: int = 0  # paper mode: longer than 2 x max_len, where the curve starts again
    seconds: float = 0.0  # waited for the judge

    def count(self, verdicts: Set[Verdict]) -> None:
        """A completion was judged; two rules that agree on it count once."""
        self.completions += 1
        self.correct += Verdict.CORRECT in verdicts
        self.unparseable_golds += Verdict.UNPARSEABLE_GOLD in verdicts
        self.no_answers += Verdict.NO_ANSWER in verdicts
        self.timeouts += Verdict.TIMEOUT in verdicts
        self.crashes += Verdict.CRASH in verdicts

    def drain(self) -> dict[str, float]:
        """The counts as metrics, `judge/...`, and back to zero."""
        counts = {f"judge/{field.name}": float(getattr(self, field.name)) for field in fields(self)}
        for field in fields(self):
            setattr(self, field.name, field.default)
        return counts


@dataclass(frozen=True, slots=True)
class RewardSet:
    """What GRPOTrainer takes (functions, and their weights for GRPOConfig.reward_weights) and what they need.

    rules: what the functions ask the judge, each rule once; the first is the one that a completion's verdict is
    reported by. A function that needs a verdict finds it in its column `verdicts`, which `judge` makes.
    """

    functions: list[RewardFunction]
    weights: list[float]
    stats: RewardStats
    rules: tuple[Rule, ...] = ()
    grader: Judge | None = None

    def judge(self, completions: Sequence[str], golds: Sequence[str], prompts: Sequence[str]) -> list[Verdicts]:
        """Judge a generated batch, once by every rule, and count: one row of verdicts a completion.

        prompts: rendered; `corrected` must know of a thought that the prompt has opened, the paper's rules do not.
        """
        if not self.rules or self.grader is None:
            return [{} for _ in completions]
        rows = [
            {rule: Item(gold, whole if rule is Rule.CORRECTED else text, rule) for rule in self.rules}
            for gold, text, whole in zip(golds, completions, map(as_continued, prompts, completions), strict=True)
        ]
        items = list(dict.fromkeys(row[rule] for rule in self.rules for row in rows))
        began = time.perf_counter()
        grades = dict(zip(items, self.grader.grade(items), strict=True))
        self.stats.seconds += time.perf_counter() - began
        verdicts: list[Verdicts] = [{rule: grades[item].verdict for rule, item in row.items()} for row in rows]
        for row in verdicts:
            self.stats.count(set(row.values()))
        return verdicts


@dataclass(frozen=True, slots=True)
class Cosine:
    """The cosine reward's curve: r = min + (max - min) / 2 * (1 + cos(pi * length / max_len)).

    A right answer earns from 1.0 (short) to 0.5 (length max_len). A wrong one earns from 0.0 (short) to -0.5: so it was
    run. The paper's text has wrong answers the other way round; exchange min_value_wrong and max_value_wrong for that.
    The names and defaults are those of the published script, but max_len, whose default of 1000 was never used, must be
    given.
    """

    max_len: int
    min_value_wrong: float = 0.0
    max_value_wrong: float = -0.5
    min_value_correct: float = 0.5
    max_value_correct: float = 1.0

    def value(self, correct: bool, length: int) -> float:
        """The reward of an answer of `length`, in whatever unit max_len is meant. Bit for bit the published
        arithmetic."""
        low, high = self.max_value_wrong, self.min_value_wrong
        if correct:
            low, high = self.min_value_correct, self.max_value_correct
        return low + 0.5 * (high - low) * (1.0 + math.cos(length / self.max_len * math.pi))


# --- the three rewards of the paper -----------------------------------------------------------------------------------


def _accuracy(spec: Reward, mode: Mode, _: RewardStats) -> RewardFunction:
    """1.0 for a right answer, 0.0 for any other; a gold that can't be parsed pays 1.0 (paper) or None (corrected)."""
    _check_arguments(spec, ())
    rule = REWARDS["accuracy"].rules[mode]
    pays = {Verdict.CORRECT: 1.0, Verdict.UNPARSEABLE_GOLD: 1.0 if mode == "paper" else None}

    def accuracy(verdicts: Sequence[Verdicts], **_: Any) -> list[float | None]:
        return [pays.get(row[rule], 0.0) for row in verdicts]

    return accuracy


def _format(spec: Reward, *_: object) -> RewardFunction:
    """1.0 when "\\n</think>\\n" occurs exactly once, else 0.0: in effect, thinking ended before the cap."""
    _check_arguments(spec, ())

    def format(completions: Sequence[str], **_: Any) -> list[float | None]:  # noqa: A001 - its name in TRL's metrics
        return [1.0 if text.count(END_OF_THOUGHT) == 1 else 0.0 for text in completions]

    return format


def _cosine(spec: Reward, mode: Mode, stats: RewardStats) -> RewardFunction:
    """The curve's value; a gold that can't be parsed pays 1.0 (paper) or None (corrected)."""
    curve, paper, rule = _curve(spec), mode == "paper", REWARDS["cosine"].rules[mode]

    def cosine(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], verdicts: Sequence[Verdicts], **_: Any
    ) -> list[float | None]:
        rewards: list[float | None] = []
        for row, text, ids in zip(verdicts, completions, completion_ids, strict=True):
            verdict = row[rule]
            length = len(text) if paper else len(ids)
            stats.cosine_beyond += length > curve.max_len
            stats.cosine_wraps += paper and length > 2 * curve.max_len
            if verdict is Verdict.UNPARSEABLE_GOLD:
                rewards.append(1.0 if paper else None)
            else:
                rewards.append(curve.value(verdict is Verdict.CORRECT, length if paper else min(length, curve.max_len)))
        return rewards

    return cosine


def _overlong(spec: Reward, *_: object) -> RewardFunction:
    """TRL's soft overlong punishment: 0 up to max_len - cache tokens, down to -1 at max_len (DAPO, arXiv 2503.14476,
    equation 13)."""
    _check_arguments(spec, ("max_len", "cache"))
    max_len, cache = (spec.args.get(name) for name in ("max_len", "cache"))
    if not isinstance(max_len, int) or not isinstance(cache, int) or not 0 < cache <= max_len:
        raise UserError(
            "reward overlong needs args max_len and cache, in tokens", fix="e.g. {max_len: 3584, cache: 512}"
        )
    from trl.rewards import get_soft_overlong_punishment

    punish = get_soft_overlong_punishment(max_len, cache)

    def overlong(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
        return list(punish(completion_ids))

    return overlong


# --- the registry -----------------------------------------------------------------------------------------------------


class Registered(NamedTuple):
    """A reward of this kit. rules: what it asks the judge in each mode; none for one that needs no judge."""

    make: Callable[[Reward, Mode, RewardStats], RewardFunction]
    rules: Mapping[Mode, Rule]


REWARDS: dict[str, Registered] = {
    "accuracy": Registered(_accuracy, {"paper": Rule.PAPER, "corrected": Rule.CORRECTED}),
    "format": Registered(_format, {}),
    "cosine": Registered(_cosine, {"paper": Rule.PAPER_COSINE, "corrected": Rule.CORRECTED}),
    "overlong": Registered(_overlong, {}),
}


def rules_asked(names: Sequence[str], mode: Mode) -> tuple[Rule, ...]:
    """The rules by which the judge is asked for these rewards, each once."""
    known = [REWARDS[name].rules for name in names if name in REWARDS]
    return tuple(dict.fromkeys(rules[mode] for rules in known if mode in rules))


def build_rewards(specs: Sequence[Reward], mode: Mode, judge: Judge) -> RewardSet:
    """The reward functions of a recipe, in its order. Their __name__, which TRL's metrics use, is the name in the
    recipe, or the function's own for a `module:function`.

    Raises:
        UserError: an unknown name or argument, a module or function that isn't there, two rewards of one name.
    """
    stats = RewardStats()
    functions: dict[str, RewardFunction] = {}
    for spec in specs:
        function = REWARDS[spec.name].make(spec, mode, stats) if spec.name in REWARDS else _own(spec)
        name = _name(function)
        if name in functions:
            raise UserError(f"two rewards are called {name}", "their metrics would be mixed up", "rename one of them")
        functions[name] = function
    rules = rules_asked([spec.name for spec in specs], mode)
    if rules:
        judge.start()  # its processes import while the caller loads models
    return RewardSet(list(functions.values()), [float(spec.weight) for spec in specs], stats, rules, judge)


def _name(function: Any) -> str:
    """As TRL finds it (trainer/utils.py, get_callable_name)."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _check_arguments(spec: Reward, allowed: Sequence[str]) -> None:
    for unknown in sorted(set(spec.args) - set(allowed)):
        takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none: remove args"
        hint = did_you_mean(unknown, allowed)
        raise UserError(f"reward {spec.name}: unknown argument {unknown}", fix=f"{hint} {takes}".strip())


def _curve(spec: Reward) -> Cosine:
    _check_arguments(spec, [field.name for field in fields(Cosine)])
    if "max_len" not in spec.args:
        raise UserError(
            "reward cosine: max_len is missing", "the published default of 1000 was never used", "the paper ran 3584"
        )
    for name, value in spec.args.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"reward cosine: {name} is {value!r}, not a number")
    if spec.args["max_len"] <= 0:
        raise UserError(
            f"reward cosine: max_len is {spec.args['max_len']}", fix="use a length above 0, for example 3584"
        )
    return Cosine(**spec.args)


def _own(spec: Reward) -> RewardFunction:
    """A user's `module:function`, also from the current folder, which stays at the end of the import path."""
    module_name, colon, attribute = spec.name.partition(":")
    if not (module_name and colon and attribute):
        hint = did_you_mean(spec.name, REWARDS)
        fix = f"{hint} There are {', '.join(REWARDS)}; one of your own is module:function".strip()
        raise UserError(f"unknown reward {spec.name!r}", fix=fix)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"reward {spec.name}: {error}", fix=f"install it, or put {module_name}.py into {here}"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        what = "is not callable" if hasattr(module, attribute) else "is not there"
        raise UserError(f"reward {spec.name}: {attribute} {what} in {module.__file__}")
    if not spec.args:
        return function  # type: ignore[no-any-return]
    given_by_trl = {"prompts", "completions", "completion_ids"}
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    _check_arguments(spec, [name for name in named if name not in given_by_trl])
    return functools.partial(function, **spec.args)
