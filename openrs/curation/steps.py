"""The chain's bookkeeping: each stage reads the parts of the one before and leaves parts of its own.

work/02-form/part-00007.parquet holds what is left of work/01-verify/part-00007.parquet, removed-00007.parquet what is
not. A part is there whole or not at all, and removed-* is written first: so a killed chain goes on at the part it was
at. A stage's folder says in step.json what it was made from; when that changes (settings, source, code), it is made
anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.curation.pool import Pool
from openrs.curation.rows import Gone, Out, Row, read_gone, read_rows, write_gone, write_rows
from openrs.curation.settings import Curation
from openrs.errors import UserError
from openrs.evaluation.shards import Shard
from openrs.outside import read_object, read_shape
from openrs.run.directory import Lock
from openrs.run.files import write_json
from openrs.run.progress import Progress


@dataclass(frozen=True, slots=True)
class Step:
    """A stage's folder. made_from: hash of all that its rows depend on."""

    name: str
    path: Path
    made_from: str

    def part(self, index: int) -> Path:
        return self.path / f"part-{index:05d}.parquet"

    def removed(self, index: int) -> Path:
        return self.path / f"removed-{index:05d}.parquet"

    def parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    def done(self) -> dict[str, Any] | None:
        """What the finished stage left to know: rows, kept, facts. None when it is not finished."""
        path = self.path / "done.json"
        if not path.is_file():
            return None
        return read_shape(path, {"rows": int, "kept": int, "facts": {}}, "remove the folder to do this stage again")

    def finish(self, facts: Mapping[str, Any]) -> tuple[int, int]:
        """Write done.json. Returns how many rows there were, and are left."""
        kept = sum(map(counts, self.parts()))
        rows = kept + sum(map(counts, self.path.glob("removed-*.parquet")))
        write_json(self.path / "done.json", {"rows": rows, "kept": kept, "facts": dict(facts)})
        return rows, kept

    def begin(self) -> None:
        """Make the folder, and empty it of what was made from something else."""
        marker = self.path / "step.json"
        if self.path.is_dir():
            try:
                known = read_object(marker).get("made_from")
            except UserError:
                known = None
            if known != self.made_from:
                shutil.rmtree(self.path)
        for left in self.path.glob(".*.part"):  # of a write that a kill cut short
            left.unlink()
        if not marker.is_file():
            write_json(marker, {"made_from": self.made_from})

    def put(self, index: int, rows: Sequence[Row], outcome: Sequence[Row | Out]) -> int:
        """Write a part from what a stage said of each of its rows. Returns how many rows there were."""
        kept = [one for one in outcome if isinstance(one, Row)]
        gone = [
            Gone(one.row or row, self.name, one.reason, one.detail, one.other)
            for row, one in zip(rows, outcome, strict=True)
            if isinstance(one, Out)
        ]
        write_gone(self.removed(index), gone)
        write_rows(self.part(index), kept)
        return len(rows)

    def make(self, before: "Step", index: int, decide: Callable[[Row], Row | Out]) -> int:
        """Write a part by what `decide` says of each row of the step before. Returns how many rows there were."""
        rows = read_rows(before.part(index))
        return self.put(index, rows, [decide(row) for row in rows])

    def kept(self) -> Iterator[Row]:
        for path in self.parts():
            yield from read_rows(path)

    def gone(self) -> Iterator[Gone]:
        for path in sorted(self.path.glob("removed-*.parquet")):
            yield from read_gone(path)


@dataclass(frozen=True, slots=True)
class Chain:
    """What the stages of one run share."""

    recipe: Curation
    out: Path
    pool: Pool
    progress: Progress
    shard: Shard | None
    lock: Lock

    @property
    def work(self) -> Path:
        return self.out / "work"


def made_from(before: str, facts: Mapping[str, Any]) -> str:
    """Hash of a stage and all before it. Changes with the code, too: an update must not mix two kinds of rows."""
    return hashlib.sha256(json.dumps([before, facts, code()], sort_keys=True, default=str).encode()).hexdigest()


def code() -> str:
    """SHA-256 over this package's files, and those that it reads rows with."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in [*sorted(here.glob("*.py")), *(here.parent / "data" / name for name in ("rows.py", "shapes.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def counts(path: Path) -> int:
    """Rows of a part, from its footer."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)
