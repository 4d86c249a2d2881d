"""docs/first-hour.md: every command of its blocks is understood; those that need no GPU are run; GPUs, docker, kubectl
and the cluster are stand-ins here."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from openrs.cli import main as cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line]
INLINE = [text for text in re.findall(r"`((?:openrs|docker|\./scripts)[^`]+)`", PAGE) if " " in text]
OPENRS = sorted({line for line in [*LINES, *INLINE] if line.startswith("openrs ")})
# Of docker compose's services, those that hand their words to openrs (docker-compose.yml), and the verb that is theirs.
VERBS = {"doctor": "doctor", "train": "train"}


def understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Refused by an option that does not exist alone, so verb, options and other words were understood."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--no-such-option"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.search(r"(?m)unrecognized arguments: --no-such-option\b(?! -)", said), said


@pytest.mark.parametrize(
    "words",
    [["trian", "exp3"], ["train", "exp3", "--untill", "released"], ["cluster", "submit"], ["doctor", "exp3", "--run"]],
)
def test_a_wrong_command_is_seen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        understood(words, capsys)


@pytest.mark.parametrize("command", OPENRS)
def test_a_command_of_openrs_is_known(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    understood(shlex.split(command)[1:], capsys)


@pytest.mark.parametrize("command", [line for line in LINES if line.startswith("docker compose run")])
def test_a_command_in_a_container_is_known(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    assert words[:4] == ["docker", "compose", "run", "--rm"]
    service, rest = words[4], words[5:]
    services = re.findall(r"^  ([\w-]+):$", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert service in services
    if rest:
        understood([VERBS[service], *rest], capsys)


def test_the_blocks_are_shell_and_their_files_exist() -> None:
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for path in re.findall(r"(?<!\S)(?:\./)?((?:scripts|k8s)/[\w-]+)", block):
            assert (ROOT / path).exists()
    known = (
        "openrs ",
        "docker compose run --rm ",
        "./scripts/",
        "OPENRS_LOCK=cuda ./scripts/setup",
        "kubectl apply -k ",
    )
    others = [line for line in LINES if not line.startswith(known)]
    assert [line.split()[0] for line in others] == ["git", ".", "export", "rsync", "tar"]


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  "nvidia-smi -L") for n in 0 1 2 3; do echo "GPU $n: NVIDIA A40"; done ;;
  nvidia-smi*) echo 580.95.05 ;;
esac
"""


def test_the_commands_run_in_order_with_stand_ins(tmp_path: Path) -> None:
    """Each block is given to bash as it is printed; openrs, docker, kubectl and others only note their words."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("openrs", "docker", "kubectl", "git", "nvidia-smi"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    place, calls = tmp_path / "place", tmp_path / "calls"
    for folder in ("scripts", ".venv/bin", "openrs", "runs/exp3/checkpoints/step-000050", "runs/exp3/attempts"):
        (place / folder).mkdir(parents=True)
    (place / ".venv" / "bin" / "activate").write_text("")
    for name in ("setup", "image", "gpu-check", "reproduce"):
        (place / "scripts" / name).write_text(STAND_IN)
        (place / "scripts" / name).chmod(0o755)
    (place / "runs" / "exp3" / "metrics.jsonl").write_text("{}\n")
    (place / "runs" / "exp3" / "checkpoints" / "step-000050" / "model.safetensors").write_text("weights")
    environment = {
        **os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls),
        "BACKUP": str(tmp_path / "backup"),
    }  # fmt: skip
    rsync = commands / "rsync"  # not on every machine; `cp` copies as rsync -a does
    rsync.write_text('#!/bin/sh\nmkdir -p "$4" && cp -a "$3." "$4"\n')
    rsync.chmod(0o755)
    for block in BLOCKS:
        text = block.replace("&& cd openrs", "")  # the stand-in for git makes no folder
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    called = [line.removeprefix("./scripts/") for line in calls.read_text().splitlines()]
    asked = [line for line in LINES if line.startswith(("openrs ", "docker ", "kubectl "))]
    assert [line for line in called if line.startswith(("openrs ", "docker ", "kubectl "))] == asked
    assert (tmp_path / "backup" / "exp3" / "checkpoints" / "step-000050" / "model.safetensors").is_file()
    listed = subprocess.run(
        ["tar", "-tzf", place / "exp3-first-hour.tar.gz"], capture_output=True, text=True, check=True
    ).stdout
    assert "runs/exp3/metrics.jsonl" in listed
    assert "model.safetensors" not in listed  # what is sent back has no weights


def test_a_dry_run_says_what_the_table_promises(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no GPU is run for real: the plan, and the host's part of `scripts/reproduce --dry-run`."""
    monkeypatch.chdir(ROOT)
    assert cli.main(["plan", "exp3"]) == 0
    said = capsys.readouterr().out
    for figure in ("106.0 GiB for the run", "3.3 GiB of cache", "a checkpoint is 26.5 GiB"):
        assert figure in said
    assert "106 GiB for a whole run, and 3.3 GiB of cache" in PAGE
    done = subprocess.run(
        [ROOT / "scripts" / "reproduce", "--dry-run"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for line in ("doctor", "fetch exp3", "nccl exp3 --run exp3"):
        assert line in done.stdout


def test_what_the_page_quotes_is_what_the_code_says() -> None:
    """Words of messages that a reader looks for, each in the sources."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "openrs").rglob("*.py"))
    for words in (
        "GPUs cannot talk to each other", "could not be measured", "are not the same model", "something hangs",
        "train will use ", "bf16 product", "CUDA libraries", "flash attention", "/dev/shm", "other processes",
    ):  # fmt: skip
        assert words in PAGE
        assert words in sources, words
