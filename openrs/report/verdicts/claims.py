"""Every claim of the paper as data, and the words that a verdict on it can have.

The words are in WORDS, and what each means in docs/report.md. Nothing is reproduced without new data: the authors' own
logs are none. A published single draw can be compatible or not, never more. Below three trainings nothing is said of
training. What the recipe fixes is true or false by construction, before anything runs. The rules are in the *_rules.py,
how often they err in docs/verdicts.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.cost import Ledger

Word = Literal[
    "reproduced",
    "compatible",
    "cannot tell",
    "smaller than the margin",
    "not reproduced",
    "by construction",
    "not tested",
]
WORDS: tuple[Word, ...] = get_args(Word)
NO_EVIDENCE: tuple[Word, ...] = ("by construction", "not tested")  # words that need no measurement
UNDECIDED: tuple[Word, ...] = ("cannot tell", "not tested")  # words after which more data may decide
ALPHA = 0.05
SEEDS = 3  # trainings of one experiment below which no verdict on training is given

# The most that data can say on a claim, by its kind; `reproduced` where it is not named.
AT_MOST: Mapping[str, tuple[Word, str]] = {
    "score": ("compatible", "the printed number is one draw, and one draw says no more"),
    "average": ("compatible", "the printed number is a mean of five single draws"),
    "gain": ("compatible", "the printed gain is one draw against another report's number"),
    "samples": ("by construction", "the recipe fixes it before anything runs"),
    "outputs": ("by construction", "the recipe fixes it before anything runs"),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim. kind: the rule that decides. level: what testing it takes (L0 ... L3). published: as printed.

    logged: the published score with all its digits, from the authors' log. follows_from: what else of the list it is
    made of; then it is no finding of its own. margin: in points, of a claim that is not the paper's.
    """

    id: str
    text: str
    where: str
    kind: str
    level: str
    needs: str
    model: str | None = None
    benchmark: str | None = None
    published: float | None = None
    logged: float | None = None
    follows_from: str | None = None
    threshold: float | None = None
    margin: float | None = None
    experiments: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def at_most(self) -> Word:
        return AT_MOST.get(self.kind, ("reproduced", ""))[0]

    @property
    def limit(self) -> str:
        """Why no data can say more than `at_most`, or ""."""
        return AT_MOST.get(self.kind, ("reproduced", ""))[1]


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """What is known of a claim. said: in words, with the numbers. rule: what decided. numbers: for report.json."""

    word: Word
    said: str
    rule: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All there is: scores, runs, and the ledger of each run (by the run's place)."""

    measured: Sequence[Measured]
    runs: Sequence[RunData]
    ledgers: Sequence[Ledger | None]


def claims() -> list[Claim]:
    """The fifteen scores and three averages of the main table, then the claims of reference.yaml."""
    found = []
    for model in reference.released():
        row = reference.row(model)
        found += [_score_claim(model, benchmark, float(row[benchmark])) for benchmark in reference.TABLE_BENCHMARKS]
        found.append(
            Claim(
                id=f"average-{model.lower()}",
                text=f"{model} scores {row['average']} on average",
                where="main results table",
                kind="average",
                level="L2",
                needs=f"{model} evaluated on all five benchmarks with the paper's inputs and sampling",
                model=model,
                published=float(row["average"]),
                logged=sum(_logged(model, benchmark) for benchmark in reference.TABLE_BENCHMARKS) / 5,
                follows_from=f"the five scores of {model}",
            )
        )
    for tree in reference.tree()["claims"]:
        lists = {name: tuple(tree[name]) for name in ("experiments", "steps") if name in tree}
        found.append(Claim(**{**tree, **lists}))
    return found


def _score_claim(model: str, benchmark: str, published: float) -> Claim:
    name = reference.name(benchmark)
    return Claim(
        id=f"score-{model}-{benchmark}".lower().replace("_", "-"),
        text=f"{model} scores {published} on {name}",
        where="main results table; one sample per problem",
        kind="score",
        level="L2",
        needs=f"{model} evaluated on {name} with the paper's inputs and sampling, best with many samples a problem",
        model=model,
        benchmark=benchmark,
        published=published,
        logged=_logged(model, benchmark),
    )


def _logged(model: str, benchmark: str) -> float:
    return next(one.accuracy for one in reference.logs() if (one.model, one.benchmark) == (model, benchmark))


def not_tested(claim: Claim, why: str = "", **numbers: Any) -> ClaimVerdict:
    """Without evidence there is no verdict; `why` says what is there and does not count."""
    return ClaimVerdict("not tested", why or f"needs {claim.needs}", "no evidence, no verdict", numbers)


def as_json(claim: Claim, verdict: ClaimVerdict) -> dict[str, Any]:
    always = ("model", "benchmark", "published")
    tree = {key: value for key, value in asdict(claim).items() if key in always or value not in (None, ())}
    tree["at_most"], tree["limit"] = claim.at_most, claim.limit
    tree["verdict"] = verdict.word
    tree["said"], tree["rule"] = verdict.said, verdict.rule
    tree["evidence_level"], tree["sources"] = verdict.level, list(verdict.sources)
    tree["numbers"] = dict(verdict.numbers)
    return tree
