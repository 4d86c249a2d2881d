"""The drawn sample: rows in the order of a hash of seed and id. What else is in the data does not move a row."""

import heapq
from collections.abc import Iterable, Sequence

from openrs.curation.rows import Out, Row
from openrs.curation.settings import Draw, Stratum
from openrs.curation.text import digest
from openrs.errors import UserError


def place(seed: int, row: Row) -> int:
    return digest(f"{seed}/{row.id}")


def fits(row: Row, stratum: Stratum) -> bool:
    if stratum.source is not None and row.source != stratum.source:
        return False
    if stratum.level is not None and row.level != stratum.level:
        return False
    if stratum.pass_rate is None:
        return True
    low, high = stratum.pass_rate
    return row.samples is not None and row.right is not None and low <= row.right / row.samples <= high


def strata_of(settings: Draw) -> list[Stratum]:
    return settings.strata or [Stratum(rows=settings.rows or 1)]


def choose(parts: Iterable[Sequence[Row]], settings: Draw, seed: int) -> dict[int, str | None]:
    """Number of each drawn row -> its new level (None: as it was). A row goes into the first stratum that it fits.

    Memory: one entry a drawn row. Raises UserError when there are fewer rows than asked (unless `short: take_all`).
    """
    strata = strata_of(settings)
    heaps: list[list[tuple[int, int]]] = [[] for _ in strata]
    for rows in parts:
        for row in rows:
            index = next((n for n, stratum in enumerate(strata) if fits(row, stratum)), None)
            if index is None:
                continue
            item = (-place(seed, row), -row.number)
            if len(heaps[index]) < strata[index].rows:
                heapq.heappush(heaps[index], item)
            else:
                heapq.heappushpop(heaps[index], item)
    short = [(n, len(heap)) for n, heap in enumerate(heaps) if len(heap) < strata[n].rows]
    if short and settings.short == "refuse":
        missing = "; ".join(f"{strata[n].rows:,} asked of {named(strata[n])}, {there:,} are left" for n, there in short)
        raise UserError(
            f"too few rows to draw from: {missing}",
            fix="ask for fewer, loosen a stage before it, or set short: take_all (what is done so far is kept)",
        )
    return {-number: stratum.label for stratum, heap in zip(strata, heaps, strict=True) for _, number in heap}


def named(stratum: Stratum) -> str:
    facts = [stratum.source, stratum.level, None if stratum.pass_rate is None else f"pass rate {stratum.pass_rate}"]
    return ", ".join(str(fact) for fact in facts if fact) or "all rows"


def leaving(row: Row, settings: Draw) -> Out:
    """Why a row that was not drawn goes."""
    inside = any(fits(row, stratum) for stratum in strata_of(settings))
    return Out("not drawn" if inside else "in no stratum of the draw")
