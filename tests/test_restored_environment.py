"""conftest.py: what a test, or a library in it, leaves in the environment is gone in the next."""

import os


def test_one_leaves_something_behind() -> None:
    os.environ["MASTER_PORT"] = "29500"
    os.environ.pop("HOME", None)


def test_the_next_does_not_find_it() -> None:
    assert "MASTER_PORT" not in os.environ
    assert "HOME" in os.environ
