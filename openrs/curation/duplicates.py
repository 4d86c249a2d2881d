"""Copies within the data: the same text, the same text typed otherwise, and near copies.

Near copies are looked for by MinHash (datasketch) in bands as its LSH chooses them, and then compared exactly: n-grams,
numbers, operators, the words that decide, and the answer. The bands are sorted arrays on disk instead of datasketch's
tables, which take 5 KB a row: here a row costs 50 bytes of memory, so a million rows are no trouble.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openrs.curation.rows import Out, Row, read_rows
from openrs.curation.settings import Duplicates
from openrs.curation.text import digest, shingles, signature, tokens

MOST_COMPARED = 20  # earlier rows of a bucket that a row is compared with
Same = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""Whether pairs of answers are the same (references.py asks the judge)."""


@dataclass(frozen=True, slots=True)
class Found:
    """gone: number of a row -> why. facts: what else the card says."""

    gone: dict[int, Out]
    facts: dict[str, int]


def write_keys(rows: Sequence[Row], settings: Duplicates, path: Path) -> None:
    """What finding copies needs of a part: `path`.npz, and its bands as `path`.npy."""
    words = [tokens(row.problem) for row in rows]
    marks = np.array([digest(" ".join(signature(w))) for w in words], dtype=np.uint64)
    hashes = ([zlib.crc32(gram.encode("utf-8")) for gram in shingles(w, settings.ngram)] for w in words)
    grams = [np.unique(np.array(one, dtype=np.uint32)) for one in hashes]
    arrays = {
        "number": np.array([row.number for row in rows], dtype=np.int64),
        "exact": np.array([digest(row.problem) for row in rows], dtype=np.uint64),
        "normal": np.array([digest(" ".join(w)) for w in words], dtype=np.uint64),
        "answer": np.array([digest(" ".join(tokens(row.answer))) for row in rows], dtype=np.uint64),
        "marks": marks,
        "grams": np.concatenate([np.empty(0, np.uint32), *grams]),
        "ends": np.cumsum([len(g) for g in grams], dtype=np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if settings.near:
        np.save(path.with_suffix(".npy"), _bands(grams, marks, settings))
    beside = path.with_suffix(".part.npz")
    np.savez(beside, **arrays)
    beside.replace(path.with_suffix(".npz"))


def write_keys_of(part: Path, settings: Duplicates, path: Path) -> int:
    """The same for the rows of a part's file. Returns how many there are."""
    rows = read_rows(part)
    write_keys(rows, settings, path)
    return len(rows)


def _bands(grams: Sequence[Any], marks: Any, settings: Duplicates) -> Any:
    """(rows, bands) of 64-bit keys: equal where all hashes of a band and all that a copy must share are equal."""
    from datasketch import MinHash, MinHashLSH

    scheme = MinHashLSH(
        threshold=settings.similarity, num_perm=settings.permutations, weights=(0.1, 0.9)
    )  # a pair too many costs a comparison, one too few is a copy that stays
    sketch = MinHash(num_perm=settings.permutations, hashfunc=int)
    values = np.empty((len(grams), settings.permutations), dtype=np.uint64)
    for index, gram in enumerate(grams):
        sketch.clear()
        sketch.update_batch(gram.tolist())
        values[index] = sketch.hashvalues
    keys = np.empty((len(grams), scheme.b), dtype=np.uint64)
    prime = np.uint64(0x9E3779B97F4A7C15)
    for band in range(scheme.b):
        key = marks + np.uint64(band)
        for column in range(band * scheme.r, (band + 1) * scheme.r):
            key = (key ^ values[:, column]) * prime
            key ^= key >> np.uint64(29)
        keys[:, band] = key
    return keys


class _Keys:
    """The keys of all parts; only what is small is held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        loaded = [self._load(path, "number", "exact", "normal", "answer", "marks") for path in paths]
        self.number, self.exact, self.normal, self.answer, self.marks = (
            np.concatenate([part[k] for part in loaded]) if loaded else np.empty(0, np.uint64) for k in range(5)
        )
        self.starts = np.cumsum([0, *(len(part[0]) for part in loaded)])

    @staticmethod
    def _load(path: Path, *names: str) -> list[Any]:
        with np.load(path.with_suffix(".npz")) as file:
            return [file[name] for name in names]

    def band(self, index: int) -> Any:
        return np.concatenate([np.load(p.with_suffix(".npy"), mmap_mode="r")[:, index] for p in self.paths])

    def bands(self) -> int:
        return int(np.load(self.paths[0].with_suffix(".npy"), mmap_mode="r").shape[1]) if self.paths else 0

    def grams(self, wanted: Any) -> dict[int, Any]:
        """Position -> its n-grams' hashes, sorted."""
        found = {}
        for part, mine in self.by_part(wanted):
            grams, ends = self._load(self.paths[part], "grams", "ends")
            for position in mine:
                local = position - self.starts[part]
                found[int(position)] = grams[ends[local - 1] if local else 0 : ends[local]]
        return found

    def by_part(self, wanted: Any) -> Iterator[tuple[int, Any]]:
        ordered = np.unique(np.asarray(wanted, dtype=np.int64))
        cuts = np.searchsorted(ordered, self.starts)
        for part in range(len(self.paths)):
            if cuts[part] < cuts[part + 1]:
                yield part, ordered[cuts[part] : cuts[part + 1]]


def groups(values: Any, among: Any) -> Iterator[Any]:
    """Positions (ascending) that share a value, for every value that at least two of `among` have."""
    order = among[np.argsort(values[among], kind="stable")]
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    bounds = np.concatenate([[0], cuts, [len(order)]])
    for index in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[index] : bounds[index + 1]]


def find(parts: Sequence[Path], keys: Sequence[Path], settings: Duplicates, same: Same) -> Found:
    """All copies among the rows of `parts`; the first of each kind stays. keys: what write_keys wrote, part by part."""
    table = _Keys(keys)
    everything = np.arange(len(table.number))
    same_text = list(groups(table.normal, everything))
    gone = _exact(table, same_text, parts, settings, same)
    facts = {
        "texts": len(np.unique(table.exact)), "texts but for typing": len(np.unique(table.normal)),
        "questions with conflicting answers": sum(out.detail.startswith("first of") for out in gone.values()),
    }  # fmt: skip
    if settings.near:
        alive = np.setdiff1d(everything, np.fromiter(gone, dtype=np.int64, count=len(gone)))
        facts |= _near(table, alive, parts, settings, same, gone=gone)
    return Found({int(table.number[position]): out for position, out in gone.items()}, facts)


def _exact(table: _Keys, same_text: Sequence[Any], parts: Sequence[Path], settings: Duplicates, same: Same) -> Any:
    known = _about(table, parts, np.concatenate([np.empty(0, np.int64), *same_text]))
    differing = [group for group in same_text if len(set(table.answer[group].tolist())) > 1]
    pairs = [(int(g[0]), int(p)) for g in differing for p in g[1:] if table.answer[p] != table.answer[g[0]]]
    verdicts = same([(known[a][1], known[b][1]) for a, b in pairs])
    conflicting = {first for (first, _), equal in zip(pairs, verdicts, strict=True) if not equal}
    gone: dict[int, Out] = {}
    for group in same_text:
        first = int(group[0])
        if first in conflicting and settings.conflicts == "drop":
            answers = " | ".join(dict.fromkeys(known[int(p)][1][:60] for p in group))
            for index, position in enumerate(group):
                detail = f"first of {len(group)}: {answers}" if index == 0 else answers
                gone[int(position)] = Out("same question, different answers", detail, known[first][0])
            continue
        seen = {int(table.exact[first])}
        for position in group[1:]:
            typed = int(table.exact[position])
            gone[int(position)] = Out(
                "same text" if typed in seen else "same text, typed otherwise", "", known[first][0]
            )
            seen.add(typed)
    return gone


def _near(
    table: _Keys, alive: Any, parts: Sequence[Path], settings: Duplicates, same: Same, *, gone: dict[int, Out]
) -> dict[str, int]:
    candidates = _candidates(table, alive)
    if not len(candidates):
        return {"near copies with another answer, kept": 0}
    grams = table.grams(candidates.reshape(-1))
    close: list[tuple[int, int, float]] = []
    for first, second in candidates:
        a, b = grams[int(first)], grams[int(second)]
        both = len(np.intersect1d(a, b, assume_unique=True))
        likeness = both / (len(a) + len(b) - both)
        if likeness >= settings.similarity:
            close.append((int(first), int(second), likeness))
    known = _about(table, parts, [p for first, second, _ in close for p in (first, second)])
    unsure = [(a, b) for a, b, _ in close if table.answer[a] != table.answer[b]]
    equal = dict(zip(unsure, same([(known[a][1], known[b][1]) for a, b in unsure]), strict=True))
    root: dict[int, int] = {}
    kept = set()
    for first, second, likeness in sorted(close, key=lambda one: (one[1], one[0])):
        if not equal.get((first, second), True):
            kept.add(second)
        elif second not in root:
            root[second] = root.get(first, first)
            gone[second] = Out("near copy", f"{likeness:.0%} of the {settings.ngram}-grams", known[root[second]][0])
    return {"near copies with another answer, kept": len(kept - set(root))}


def _candidates(table: _Keys, alive: Any) -> Any:
    """(pairs, 2) of positions, the earlier first, that fall into one bucket of some band."""
    found = np.empty((0, 2), dtype=np.int64)
    for index in range(table.bands()):
        pairs = [
            (group[earlier], group[later])
            for group in groups(table.band(index), alive)
            for later in range(1, len(group))
            for earlier in range(max(0, later - MOST_COMPARED), later)
        ]
        if pairs:
            found = np.unique(np.concatenate([found, np.array(pairs, dtype=np.int64)]), axis=0)
    return found


def _about(table: _Keys, parts: Sequence[Path], wanted: Any) -> Mapping[int, tuple[str, str]]:
    """Position -> id and answer."""
    found = {}
    for part, mine in table.by_part(wanted):
        rows = read_rows(parts[part])
        for position in mine:
            row = rows[int(position - table.starts[part])]
            found[int(position)] = (row.id, row.answer)
    return found
