"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real benchmarks, raw training problems and the authors' logs: not in the repository, so tests skip where they aren't."""
    folder = Path(os.environ.get("OPENRS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared data is not here ({folder}); set OPENRS_SHARED_DATA to its folder")
    return folder
