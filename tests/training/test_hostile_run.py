"""A stranger's run folder: whatever is planted in the place of anything that a run writes, nothing outside changes."""

import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import runs

from openrs.cli.main import main
from openrs.errors import UserError
from openrs.run import checkpoints
from openrs.run.directory import Lock, Run
from openrs.run.files import Journal, write_text

STEPS = ["--set", "grpo.max_steps=4", "--set", "grpo.save_steps=2"]


# --- what a run writes ------------------------------------------------------------------------------------------------


def note_what_is_written() -> None:
    """A fault for runs.start: every path that Python opens to write, makes, renames or removes, a line each."""
    log = os.open(os.environ["WRITTEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        paths: tuple[Any, ...] = ()
        if event == "open":
            path, _, flags = arguments
            paths = (path,) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else ()
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"):
            paths = arguments[:1]
        elif event == "os.rename":
            paths = arguments[:2]
        for path in paths:
            if isinstance(path, str | os.PathLike):
                os.write(log, os.fsencode(path) + b"\n")

    sys.addaudithook(hook)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole way: base, training, evaluations, report; and what it wrote, in the file `written` beside it."""
    folder = tmp_path_factory.mktemp("finished")
    command = ["reproduce", runs.recipe_in(folder), "--run", folder / "run", *STEPS]
    code, said = runs.openrs(command, note_what_is_written, WRITTEN=str(folder / "written"))
    assert code == 0, said
    code, said = runs.openrs(["export", folder / "run"], note_what_is_written, WRITTEN=str(folder / "written"))
    assert code == 0, said
    return folder / "run"


@pytest.fixture(scope="module")
def places(finished: Path) -> list[str]:
    """Everything in the run that was written at any time, the names of files under way included."""
    run = os.fspath(finished)
    noted = (finished.parent / "written").read_text().splitlines()
    found = {os.path.relpath(path, run) for path in noted if path.startswith(f"{run}/")}
    found |= {os.path.relpath(path, run) for path in finished.rglob("*")}
    assert {".lock", "metrics.jsonl", "checkpoints/.staging", "eval/step-000004/samples.jsonl"} <= found
    assert any(name.endswith(".part") for name in found)
    return sorted(found)


# --- what is planted --------------------------------------------------------------------------------------------------


def link_to_file(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "file")


def link_to_folder(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "folder", target_is_directory=True)


def relative_link(place: Path, outside: Path) -> None:
    place.symlink_to(os.path.relpath(outside / "folder", place.parent))


def link_to_nothing(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "nothing yet")


def link_to_a_link(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "link")


def pipe(place: Path, _: Path) -> None:
    os.mkfifo(place)


def door(place: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(place.parent)  # the name of a socket may have 107 bytes
        try:
            end.bind(place.name)
        finally:
            os.chdir(here)


Plant = Callable[[Path, Path], None]
PLANTS: list[Plant] = [link_to_file, link_to_folder, relative_link, link_to_nothing, link_to_a_link, pipe, door]


# Each place has one plant and two verbs, in turn; with OPENRS_EVERY_PLACE=1 every plant and verb, for 20 minutes.
EVERY = bool(os.environ.get("OPENRS_EVERY_PLACE"))


def in_turn(places: list[str], plant: Plant, plants: list[Plant]) -> list[str]:
    return places if EVERY else places[plants.index(plant) :: len(plants)]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nobody may touch."""
    folder = tmp_path / "outside"
    (folder / "folder" / "deeper").mkdir(parents=True)
    for name in ("file", "folder/file", "folder/deeper/file", "folder/model.safetensors"):
        (folder / name).write_text(f"the content of {name}\n" * 10)
    (folder / "link").symlink_to("folder")
    return folder


def state(folder: Path) -> dict[str, str]:
    """Every entry below a folder with its mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = f"{path.lstat().st_mode:o} {content}"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_new_run_is_not_led_out(
    plant: Plant, places: list[str], outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, before = runs.recipe_in(tmp_path), state(outside)
    for number, name in enumerate(in_turn(places, plant, PLANTS)):
        run = tmp_path / f"run-{number}"
        (run / name).parent.mkdir(parents=True)
        plant(run / name, outside)
        code = main(["train", str(recipe), "--run", str(run), *STEPS])
        said = capsys.readouterr().err
        assert code == 2, (name, said)
        assert str(run / name) in said, name
        assert "fix: remove it, or give another " in said
        assert state(outside) == before, name
        assert name == "manifest.json" or not (run / "manifest.json").exists()  # refused before anything was written


IN_A_RUN: list[Plant] = [link_to_folder, pipe]


@pytest.mark.slow
@pytest.mark.parametrize("plant", IN_A_RUN, ids=lambda plant: plant.__name__)
def test_no_command_is_led_out_of_a_run_that_is_there(
    plant: Plant, finished: Path, places: list[str], outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One entry after another is taken away and something else put in its place; then every verb that takes a run."""
    run, recipe, before = tmp_path / "run", str(runs.recipe_in(tmp_path)), state(outside)
    shutil.copytree(finished, run)
    verbs = [
        ["train", recipe, "--run", str(run), "--set", "grpo.max_steps=6", "--accept-changes"],
        ["reproduce", recipe, "--run", str(run), *STEPS],
        ["evaluate", str(run)],
        ["evaluate", str(run / "checkpoints" / "step-000004")],
        ["export", str(run), "--step", "2"],
        ["report", str(run)],
        ["track", str(run), "--to", "tensorboard"],
        ["plan", "demo", "--from", str(run)],
    ]
    for number, name in enumerate(in_turn(places, plant, IN_A_RUN)):
        place, kept = run / name, tmp_path / "kept"
        made = not place.parent.is_dir()
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            place.rename(kept)
        plant(place, outside)
        for verb in verbs if EVERY or name == "manifest.json" else (verbs[number % 8], verbs[(number + 3) % 8]):
            if name == "recipe.yaml" and verb[0] not in ("train", "reproduce"):
                continue  # what has no recipe.yaml is no run, and nothing is written there
            code = main(verb)
            said = capsys.readouterr().err
            assert code == 2, (name, verb, said)
            assert str(place) in said, (name, verb, said)
            assert state(outside) == before, (name, verb)
        place.unlink()
        if kept.exists():
            kept.rename(place)
        elif made:
            shutil.rmtree(place.parent)


@pytest.mark.slow
def test_a_run_of_hard_links_leaves_the_other_names_alone(finished: Path, tmp_path: Path) -> None:
    """Files that are appended to must have one name; all the others are replaced, so their other names stay as they
    were."""
    run = tmp_path / "run"
    shutil.copytree(finished, run, copy_function=os.link)
    before = state(finished)
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set", "grpo.max_steps=4", "--set"]
    command += ["grpo.save_steps=2", "--set", "training.stop_after=6", "--set", "grpo.max_steps=6", "--accept-changes"]
    for name in (".lock", "metrics.jsonl"):
        code, said = runs.openrs(command)
        assert code == 2, said
        assert f"{run / name} is a file with another name elsewhere" in said
        content = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).write_bytes(content)
        assert state(finished) == before
    code, said = runs.openrs(command)
    assert code == 0, said
    assert (run / "checkpoints" / "step-000006").is_dir()
    assert state(finished) == before


# --- what openrs itself opens, whatever was put there since the run was looked through --------------------------------


def lock(place: Path) -> None:
    Lock(Run(place.parent)).__exit__()


def journal(place: Path) -> None:
    with Journal(place) as one:
        one.append({"a": 1})


def text(place: Path) -> None:
    write_text(place, "mine\n")


def staging(place: Path) -> None:
    checkpoints.latest_resumable(place.parent)


def completions(place: Path) -> None:
    from openrs.run.confined import make_folder

    make_folder(place)


OPENED: dict[str, Callable[[Path], None]] = {
    ".lock": lock, "journal.jsonl": journal, "text": text, checkpoints.STAGING: staging, "completions": completions,
}  # fmt: skip


def hard_link(place: Path, outside: Path) -> None:
    place.hardlink_to(outside / "file")


def folder_in_place(place: Path, _: Path) -> None:
    place.mkdir()
    (place / "kept").write_text("mine")


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("plant", [*PLANTS, hard_link, folder_in_place], ids=lambda plant: plant.__name__)
def test_nothing_is_opened_through_a_link(
    name: str, plant: Plant, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with its name, or what was planted is replaced by a file of our own."""
    from openrs.run import directory as rundir

    monkeypatch.setattr(rundir, "refuse_links_out", lambda _: None)
    before, place = state(outside), tmp_path / "run" / name
    place.parent.mkdir()
    plant(place, outside)
    said = ""
    try:
        OPENED[name](place)
    except UserError as error:
        said = error.what
    assert str(place) in said or (not place.is_symlink() and (place.is_file() or place.is_dir()))
    assert state(outside) == before


def test_links_inside_a_run_and_another_users_folders_are_let_be(tmp_path: Path) -> None:
    from openrs.run.confined import refuse_links_out

    run = tmp_path / "run"
    (run / "checkpoints" / "step-000002").mkdir(parents=True)
    (run / "checkpoints" / "best").symlink_to("step-000002")
    (tmp_path / "also").symlink_to("run")
    refuse_links_out(tmp_path / "also")
    (run / "checkpoints" / "loop").symlink_to("loop")
    refuse_links_out(run)
    (run / "checkpoints" / "up").symlink_to("../..")
    with pytest.raises(UserError, match="checkpoints/up is a link out of the run, to"):
        refuse_links_out(run)


def test_staging_is_emptied_of_whatever_is_in_it(tmp_path: Path, outside: Path) -> None:
    folder, before = tmp_path / checkpoints.STAGING, state(outside)
    (folder / "checkpoint-5").mkdir(parents=True)
    (folder / "checkpoint-5" / "link").symlink_to(outside / "folder")
    (folder / "file").write_text("")
    (folder / "link").symlink_to(outside / "folder")
    os.mkfifo(folder / "pipe")
    newest, said = checkpoints.latest_resumable(tmp_path)
    assert newest is None
    assert [line.split()[0] for line in said] == ["checkpoint-5", "file", "link", "pipe"]
    assert list(folder.iterdir()) == []
    assert state(outside) == before
