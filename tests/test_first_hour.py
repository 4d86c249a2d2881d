"""The commands of docs/first-hour.md, as far as a machine without GPUs can take them: each is understood."""

import re
import shlex
from pathlib import Path

import pytest

from openrs.cli import main as cli

PAGE = (Path(__file__).parents[1] / "docs" / "first-hour.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(openrs [^`]+)`", PAGE)) - {"openrs cluster"})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_known(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--no-such-option"])  # refused by the option alone: verb and other words were understood
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--no-such-option" in said
    assert "invalid choice" not in said


def test_it_names_them_all() -> None:
    assert len(COMMANDS) >= 7
