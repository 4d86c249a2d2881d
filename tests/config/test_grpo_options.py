"""The packaged list of TRL's options is the installed TRL's."""

import runpy
from pathlib import Path

import pytest

from openrs.config.checks import GRPO_OPTIONS, OWNED_ELSEWHERE, grpo_options


def test_options_equal_the_installed_trl() -> None:
    pytest.importorskip("trl", reason="trl is not installed")
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "grpo-options"))
    assert GRPO_OPTIONS.read_text(encoding="utf-8") == script["document"](), "run .venv/bin/python scripts/grpo-options"


def test_every_option_that_is_owned_elsewhere_exists() -> None:
    assert set(OWNED_ELSEWHERE) <= set(grpo_options())
