"""The run directory: journals that survive kills, whole files, the lock, and no secrets."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrs.errors import UserError
from openrs.run import directory as rundir
from openrs.run.directory import Lock, Run
from openrs.run.files import Journal, read_jsonl, write_json, write_text
from openrs.secrets import redact

# --- journals ---------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from openrs.run.files import Journal
with Journal(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    number = 0
    while True:
        journal.append({"number": number, "text": "x" * (number % 5000)})
        number += 1
"""


@pytest.mark.slow
def test_a_journal_survives_sigkill_again_and_again(tmp_path: Path) -> None:
    """Ten writers, each killed while it writes as fast as it can: no line is ever torn once the next one has opened."""
    path = tmp_path / "journal.jsonl"
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        size = path.stat().st_size
        while path.stat().st_size < size + 100_000:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with Journal(path) as journal:
        journal.append({"number": "last"})
    rows = list(read_jsonl(path))
    assert rows[-1] == {"number": "last"}
    assert path.read_bytes().count(b"\n") == len(rows)
    assert sum(row["number"] == 0 for row in rows) == 10
    for before, after in itertools.pairwise(rows[:-1]):
        assert after["number"] in (before["number"] + 1, 0)
    assert len(rows) > 300


@pytest.mark.parametrize("torn", [b'{"a": 1', b"{", b"x" * 200_000, b"\0\0\0\0"])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"a": 0}\n' + torn)
    assert list(read_jsonl(path)) == [{"a": 0}]  # a reader leaves the file as it is
    assert path.read_bytes().endswith(torn)
    with Journal(path) as journal:
        journal.append({"a": 1})
    assert path.read_bytes() == b'{"a": 0}\n{"a": 1}\n'


def test_an_only_line_that_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "journal.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"a"')
    Journal(path).close()
    assert path.read_bytes() == b""
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("line", ['{"a": ', "[1, 2]", "nonsense"])
def test_damage_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"a": 0}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(UserError, match=r"journal\.jsonl:2: (not JSON|a list, not an object)"):
        list(read_jsonl(path))


def test_any_text_comes_back(tmp_path: Path) -> None:
    row = {"text": "\ud83d half of an emoji, \x00, \n, \u2028 and ü", "not a number": float("nan")}
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append(row)
    (back,) = read_jsonl(tmp_path / "j.jsonl")
    assert back["text"] == row["text"]
    assert (tmp_path / "j.jsonl").read_bytes().count(b"\n") == 1


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_whole_lines_only(small_disk: Path) -> None:
    path, row = small_disk / "journal.jsonl", {"text": "x" * 3000}
    with Journal(path) as journal:
        for _ in range(20):
            journal.append(row)
        (small_disk / "other").write_bytes(b"0" * (os.statvfs(small_disk).f_bavail * 4096))
        for _ in range(2):  # the file's last page may take one more
            with pytest.raises(OSError, match="[Nn]o space left") as raised:  # noqa: PT012, RUF043
                journal.append(row)
                journal.append(row)
            assert raised.value.errno == errno.ENOSPC
        assert path.read_bytes().endswith(b"}\n")
        (small_disk / "other").unlink()
        journal.append({"text": "room again"})
    rows = list(read_jsonl(path))
    assert len(rows) in (21, 22)
    assert (rows[0], rows[-1]) == (row, {"text": "room again"})


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    write_json(small_disk / "manifest.json", {"sound": True})
    with pytest.raises(OSError, match="No space left"):
        write_text(small_disk / "manifest.json", "x" * 100_000)
    assert json.loads((small_disk / "manifest.json").read_text()) == {"sound": True}
    assert [path.name for path in small_disk.iterdir()] == ["manifest.json"]


# --- whole files ------------------------------------------------------------------------------------------------------

REWRITER = """
import sys
from pathlib import Path
from openrs.run.files import write_text
number = 0
while True:
    write_text(Path(sys.argv[1]), str(number % 10) * 50_000)
    number += 1
    if number == 3: print("going", flush=True)
"""


def test_a_file_that_is_rewritten_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    process = subprocess.Popen([sys.executable, "-c", REWRITER, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(200):
        text = path.read_text()
        assert len(text) == 50_000
        assert len(set(text)) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(set(path.read_text())) == 1


# --- the lock ---------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from openrs.run.directory import Lock, Run
with Lock(Run(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_names_its_holder_and_is_free_however_that_ends(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"is in use by process {process.pid} on {os.uname().nodename} since 20"):
        Lock(Run(tmp_path))
    process.kill()
    process.wait()
    process.stdout.close()
    with Lock(Run(tmp_path)), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        Lock(Run(tmp_path))
    with Lock(Run(tmp_path)):
        pass


def test_a_place_that_cannot_be_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Lock(Run(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        Lock(Run(Path("/proc/run")))


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be had here: flock itself is made to fail as it does on such a one."""

    def failing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(rundir.fcntl, "flock", failing)
    with pytest.raises(UserError, match="cannot be locked: No locks available"):
        Lock(Run(tmp_path))


def test_names_of_runs() -> None:
    assert rundir.run_at("exp3").path == Path("runs/exp3")
    assert rundir.run_at("./exp3").path == Path("exp3")
    assert rundir.run_at("/volume/exp3").path == Path("/volume/exp3")
    with pytest.raises(UserError, match="is not a run directory"):
        rundir.existing_run("./nothing here")
    run = Run(Path("r"))
    assert run.evaluation("../../etc").parent == Path("r/eval")
    assert run.evaluation("owner/name@main").name == "owner--name@main"


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300, "é" * 120, "./" + "y" * 201, "/".join(["deep"] * 700), "", "a\0b", "a\nb", "a\x1b[31m", "a\udcff",
        "./\udc80/b",
    ],
    ids=["long", "bytes", "part", "deep", "empty", "NUL", "line", "escape", "not UTF-8", "part not UTF-8"],
)  # fmt: skip
@pytest.mark.parametrize(
    "verb", [["train", "demo", "--dry-run"], ["train", "demo"], ["reproduce", "demo"]], ids=" ".join
)
def test_names_that_no_run_can_have(
    name: str, verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is loaded or written."""
    from openrs.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main([*verb, "--run", name]) == 2
    said = capsys.readouterr().err
    assert "fix: give a --run of letters, digits, - and _" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bytes \udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="is not UTF-8"):
        rundir.run_at("demo")


def test_names_that_a_run_can_have() -> None:
    for name in ("exp3", "x" * 200, "été", "東京", "a b", "lr=2e-6", "./a/b", "/" + "/".join(["deep"] * 500)):
        assert str(rundir.run_at(name).path).endswith(name.removeprefix("./"))


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-of-the-usual-form")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse")
    monkeypatch.setenv("MY_PASSWORD", "short")
    assert redact("--key 0123456789abcdef not-of-the-usual-form") == "--key [hidden] [hidden]"
    assert redact("falsefalse short") == "falsefalse short"
    assert redact("hf_abcdefghijk sk-abcdefghijk ghp_abcdefghijk") == "[hidden] [hidden] [hidden]"
    assert redact("https://me:secret@host/path") == "https://[hidden]@host/path"
    assert (
        redact("hf_home hf_hub_offline /hf_ab https://host:80/a@b")
        == "hf_home hf_hub_offline /hf_ab https://host:80/a@b"
    )
