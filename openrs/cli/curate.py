"""The command line's way into this room: `openrs curate` and `openrs data show`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openrs.curation.settings import Source, load
from openrs.errors import EXIT_DONE, UserError
from openrs.evaluation.shards import shard_from
from openrs.rewards.grading import processors
from openrs.run.progress import Progress


def curate(recipe: str, overrides: Sequence[str], out: Path | None, workers: int | None, shard: str | None) -> int:
    """Run a curation recipe; `out` is datasets/NAME when None."""
    from openrs.curation import chain

    settings = load(recipe, overrides)
    part = shard_from(shard) if shard is not None else None
    chain.curate(settings, out or Path("datasets") / (Path(recipe).stem or "own"), _workers(workers), part)
    return EXIT_DONE


def show(
    path: str,
    *,
    benchmarks: Sequence[str] | None,
    data: str | None,
    golds: int,
    workers: int | None,
    html: Path | None,
    as_json: bool,
    columns: Mapping[str, str | None],
    revision: str | None,
) -> int:
    """Look at a dataset; print what was found, and write the page where one is asked for."""
    from openrs.curation import show as room
    from openrs.curation.show_page import lines, write_page
    from openrs.run.libraries import quiet

    quiet()
    if golds < 0:
        raise UserError(f"--golds {golds} is no number of golds", fix="--golds 1000, or 0 for none")
    given = {name: column for name, column in columns.items() if column is not None}
    source = Source.model_validate({"path": path, "revision": revision, "allow_unpinned": True, **given})
    progress = Progress(stream=sys.stderr)
    shown = room.look(
        source, benchmarks=benchmarks, data=data, golds=golds, workers=_workers(workers), progress=progress
    )
    if html is not None:
        write_page(shown, html)
    text = json.dumps(room.as_json(shown), indent=2, ensure_ascii=True) if as_json else "\n".join(lines(shown))
    print(text if html is None or as_json else f"{text}\npage: {html}")  # noqa: T201 - the verb's own output
    return EXIT_DONE


def _workers(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise UserError(f"--workers {asked}", fix="at least one process")
    return asked or min(processors(), 32)
