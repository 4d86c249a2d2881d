"""Nothing in a run directory is followed out of it: a stranger's run may hold links, pipes and devices.

Two layers. `refuse_links_out` looks at every entry when a command takes a run, so that libraries that write by name
(transformers, TensorBoard) cannot be led astray either. What openrs itself opens, empties or replaces is opened without
following a link, whatever was put there since.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from openrs.errors import UserError

FILE_MODE = 0o644
APPENDING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not block


def limit_permissions() -> None:
    """Whatever the umask: what this process and its children make, others cannot write. With OPENRS_PRIVATE=1 others
    cannot read it either: prompts, completions and weights are as confidential as the data.

    Raises UserError for another value.
    """
    private = os.environ.get("OPENRS_PRIVATE", "0")
    if private not in ("", "0", "1"):
        fix = "set it to 1 (only you may), or unset it"
        raise UserError(f"OPENRS_PRIVATE={private!r}", "it says who may read what is written", fix)
    os.umask(os.umask(0o077) | (0o077 if private == "1" else 0o022))


def refuse_links_out(root: Path) -> None:
    """Raises UserError naming the first entry below `root` that leads out of it, or is neither a file nor a folder.

    `root` itself may be a link: the user named it. Links to another place in the run are left alone.
    """
    home = Path(os.path.realpath(root))
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_symlink():
                        target = Path(os.path.realpath(entry.path))
                        if not target.is_relative_to(home):
                            raise _refused(Path(entry.path), f"a link out of the run, to {target}")
                    elif not entry.is_file(follow_symlinks=False):
                        raise _refused(Path(entry.path), "neither a file nor a folder")
        except (FileNotFoundError, NotADirectoryError):
            continue  # another process of the run has removed it in the meantime
        except OSError as error:
            if isinstance(error, PermissionError) and not os.access(folder, os.X_OK):
                continue  # another user's: nothing below it can be reached, lost+found for one
            raise _refused(folder, f"a folder that cannot be listed ({error.strerror})") from None


def open_appending(path: Path) -> int:
    """A descriptor of the regular file `path`, made where it is missing, to read it and to append (a journal, a log).

    Raises UserError for a link, a pipe, a device, a folder, and a file that has a second name: writing would change
    that one too.
    """
    try:
        handle = os.open(path, APPENDING, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _refused(path, _kind(path)) from None
        raise
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        os.close(handle)
        raise _refused(path, _kind(path))
    return handle


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block is left, whole or not at all: written to a temporary
    file, fsynced, renamed, the folder fsynced. What was at `path`, a link as well, is replaced and never written
    through.

    Raises UserError when a folder is in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        tmp_path.unlink(missing_ok=True)
        handle = os.open(tmp_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            tmp_path.replace(path)
        except BaseException:  # a full disk: the old file stays, the half of the new one goes
            tmp_path.unlink(missing_ok=True)
            raise
    except IsADirectoryError as error:
        raise _refused(Path(error.filename2 or error.filename), "a folder where a file belongs") from None
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """The folder, made where it is missing. Raises UserError for a link and for anything else in its place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _refused(folder, _kind(folder)) from None
    if folder.is_symlink():
        raise _refused(folder, _kind(folder))


def empty_folder(folder: Path) -> list[str]:
    """Delete what is in `folder`, without following a link; returns the names. A missing folder is empty.

    Raises UserError when `folder` is a link or no folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refused(folder, _kind(folder)) from None
        raise
    try:
        names = sorted(os.listdir(handle))  # noqa: PTH208 - by descriptor: the folder that was opened
        for name in names:
            if stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=handle)
            else:
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)
    return names


def _kind(path: Path) -> str:
    """What stands at `path` instead of what belongs there, in words."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return f"a link to {path.readlink()}"
    if stat.S_ISDIR(facts.st_mode):
        return "a folder where a file belongs"
    if stat.S_ISREG(facts.st_mode):
        return "a file with another name elsewhere (a hard link)" if facts.st_nlink > 1 else "a file"
    return "neither a file nor a folder"


def _refused(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is {what}",
        "openrs writes only to a run's own files and folders: what lies elsewhere could be destroyed",
        "remove it, or give another --run (one on a larger disk by its path)",
    )
