"""The verdict of a training's completion is the recorded one, never a guess from what a reward paid."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrs.report.evidence.collect import collect
from openrs.run.directory import Run


@pytest.mark.parametrize("reward", ["accuracy", "cosine", "mine"])
@pytest.mark.parametrize("paid", [1.0, 0.0, -0.5, None])
@pytest.mark.parametrize("recorded", ["correct", "unparseable_gold", "timeout", None])
def test_the_verdict_is_the_recorded_one(tmp_path: Path, reward: str, paid: float | None, recorded: str | None) -> None:
    """In paper mode a reference answer that cannot be parsed pays 1.0 for any completion."""
    run = Run(tmp_path)
    run.completions.mkdir()
    row: dict[str, Any] = {"id": "p", "gold": "x", "prompt": "?", "completion": "!", f"reward/{reward}": paid}
    if recorded is not None:
        row["verdict"] = recorded
    pq.write_table(pa.Table.from_pylist([row]), run.completions / "step-000001.parquet")
    (text,) = collect(run).texts
    assert text.verdict == (recorded or "not judged")
