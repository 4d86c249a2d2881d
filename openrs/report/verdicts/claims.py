"""Every claim of the paper as data, and a verdict on each: with its evidence, its numbers, and the rule that decided.

Verdicts: `reproduced`, `compatible`, `not reproduced`, `not tested`. Nothing is reproduced without new data: the
authors' own logs are none. A published single draw can be compatible or not, never more. One seed can't reproduce a
claim on training. The rules are in the *_rules.py beside this file, and in words in docs/report.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.sources import Measured
from openrs.report.verdicts.cost import Ledger

Word = Literal["reproduced", "compatible", "not reproduced", "not tested"]
WORDS: tuple[Word, ...] = ("reproduced", "compatible", "not reproduced", "not tested")
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim. kind: the rule that decides. level: what testing it takes (L0 ... L3). published: as printed."""

    id: str
    text: str
    where: str
    kind: str
    level: str
    needs: str
    model: str | None = None
    benchmark: str | None = None
    published: float | None = None
    threshold: float | None = None
    experiments: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


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


Rule = Callable[[Sequence[Claim], Evidence], list[ClaimVerdict]]


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
    )


def not_tested(claim: Claim, why: str = "", **numbers: Any) -> ClaimVerdict:
    """Without evidence there is no verdict; `why` says what is there and does not count."""
    return ClaimVerdict("not tested", why or f"needs {claim.needs}", "no evidence, no verdict", numbers)


def as_json(claim: Claim, verdict: ClaimVerdict) -> dict[str, Any]:
    """One entry of report.json's claims."""
    always = ("model", "benchmark", "published")
    tree = {key: value for key, value in asdict(claim).items() if key in always or value not in (None, ())}
    tree["verdict"] = verdict.word
    tree["said"], tree["rule"] = verdict.said, verdict.rule
    tree["evidence_level"], tree["sources"] = verdict.level, list(verdict.sources)
    tree["numbers"] = dict(verdict.numbers)
    return tree
