"""Several evaluations of one model on one benchmark: pooled when they are different draws, else counted once.

The order in which files are named never decides. Different evaluation seeds under the same settings are more samples of
the same thing and go together. The same seed again is the same draw: the one with most samples stands for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from openrs.report.evidence.evaluations import comparable
from openrs.report.evidence.sources import Measured


def pooled(measured: Sequence[Measured]) -> list[Measured]:
    """The same evidence with the draws of released weights pooled, in the order of their first source.

    Only what counts and has verdicts by problem is pooled; a model trained here is another model in each run.
    """
    groups: list[list[Measured]] = []
    for one in measured:
        same = (group for group in groups if _poolable(one) and _poolable(group[0]) and _same_question(group[0], one))
        if (group := next(same, None)) is None:
            groups.append([one])
        else:
            group.append(one)
    return [_together(group) if len(group) > 1 else group[0] for group in groups]


def _poolable(one: Measured) -> bool:
    return one.origin == "released weights" and one.model is not None and bool(one.rows) and not one.excluded_reason


def _same_question(a: Measured, b: Measured) -> bool:
    same = (a.model, a.benchmark, frozenset(a.rows)) == (b.model, b.benchmark, frozenset(b.rows))
    return same and comparable(a.protocol, b.protocol) == "same"


def _together(group: Sequence[Measured]) -> Measured:
    """One Measured of a group that asks one question: its seeds side by side."""
    by_seed: dict[str, list[Measured]] = {}
    for one in group:
        by_seed.setdefault(str(one.protocol.get("seed")), []).append(one)
    chosen = [min(same, key=lambda one: (-one.k, one.source)) for _, same in sorted(by_seed.items())]
    left = _names(one for one in group if not any(one is kept for kept in chosen))
    note = f"{left}: the same evaluation seed again, not counted twice" if left else ""
    if len(chosen) == 1:
        return replace(chosen[0], note=note)
    first = chosen[0]
    rows = {problem: [mark for one in chosen for mark in one.rows[problem]] for problem in first.rows}
    k = sum(one.k for one in chosen)
    seeds = f"{len(chosen)} evaluation seeds together"
    return replace(
        first,
        source=_names(chosen),
        k=k,
        accuracy=sum(one.accuracy * one.k for one in chosen) / k,
        stderr=None,
        rows=rows,
        inputs=first.inputs if len({one.inputs for one in chosen}) == 1 else "not proven",
        tokens=None,
        note=f"{seeds}; {note}" if note else seeds,
    )


def _names(group: Iterable[Measured]) -> str:
    return " + ".join(sorted(one.source for one in group))
