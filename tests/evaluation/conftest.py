"""The fixtures of evaluation_fixtures.py. Its helpers are imported by that name: `conftest` means several files."""

from evaluation_fixtures import *  # noqa: F403
