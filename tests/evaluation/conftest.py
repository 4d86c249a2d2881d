"""The fixtures of evaluation_fixtures.py. Its helpers are imported by that name: `conftest` means several files."""

import pytest
from evaluation_fixtures import *  # noqa: F403


@pytest.fixture(autouse=True)
def _forked_engines(forked_engines: None) -> None:
    """All tests here but those that ask for fresh processes themselves."""
