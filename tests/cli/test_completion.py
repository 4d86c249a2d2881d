"""Completion as the shells do it: bash by its own function, zsh by real Tab keys in a terminal."""

import os
import pty
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from waiting import until

from openrs.cli.completion import script, values
from openrs.cli.main import main, parser

pytest.importorskip("shtab")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, a data file with a space in its name, a model folder and two runs."""
    for name in ("mine.yaml", "my sums.jsonl"):
        (tmp_path / name).touch()
    for name in ("model", "runs/demo", "runs/de mo"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


CASES = [
    ("rep", {"report", "reproduce"}),
    ("recipe s", {"show"}),
    ("train --acc", {"--accept-changes"}),
    ("evaluate x --protocol s", {"sober"}),
    ("train exp2", {"exp2", "exp2-lora"}),
    ("train mi", {"mine.yaml"}),
    ("recipe new x.yaml --model mod", {"model"}),
    ("recipe new x.yaml --data my", {"my sums.jsonl"}),
    ("watch d", {"demo", "de mo"}),
    ("evaluate dem", {"demo"}),
    ("plan --gpu A4", set()),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_verbs_options_choices_recipes_runs_and_files(folder: Path) -> None:
    asked = "".join(
        f"COMP_WORDS=({shlex.join(['openrs', *words.split()])}); COMP_CWORD={len(words.split())}; _shtab_openrs\n"
        'printf "%s\\0" "${COMPREPLY[@]}"; printf "\\1"\n'
        for words, _ in CASES
    )
    command = ["bash", "--norc", "-c", f"{script(parser(), 'bash')}\n{asked}"]
    elsewhere = {**os.environ, "CDPATH": str(folder)}  # `cd runs` would say where it went
    done = subprocess.run(command, cwd=folder, env=elsewhere, capture_output=True, text=True, check=True)
    offered = [{word for word in answer.split("\0") if word} for answer in done.stdout.split("\1")[:-1]]
    assert dict(zip([words for words, _ in CASES], offered, strict=True)) == dict(CASES)


def test_every_value_without_choices_completes_files_at_least() -> None:
    top = parser()
    script(top, "bash")
    asked = list(values(top))
    assert len(asked) > 80
    assert [action.dest for action in asked if not vars(action).get("complete")] == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_printer_takes_nothing_away(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(parser(), shell) + "\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here (apt-get install zsh)")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("recipe sh", "recipe show"), ("train mi", "mine.yaml")],
)
def test_zsh_completes_at_the_tab_key(folder: Path, typed: str, completed: str) -> None:
    (folder / "openrs.zsh").write_text(script(parser(), "zsh"), encoding="utf-8")
    terminal, end = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)}
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=folder, env=environment, start_new_session=True, stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    shown = ""

    def shows(text: str) -> bool:
        nonlocal shown
        shown += os.read(terminal, 65536).decode(errors="replace")
        return text in shown

    try:
        os.write(terminal, b'autoload -Uz compinit; compinit -u -D; eval "$(<openrs.zsh)"; PS1=READY; echo LOA""DED\n')
        until(lambda: shows("LOADED"))
        os.write(terminal, f"openrs {typed}\t".encode())
        until(lambda: shows(completed))
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
