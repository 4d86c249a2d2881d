"""Runs inside a Pod, handed over on stdin: lists the files of runs with their hashes, and reads pieces of them.

Only the standard library, and nothing of openrs: the image may hold another version. The sender adds the last line,
main([...]):

    list ROOT KIND [NAME ...]             JSON lines: path under ROOT, size, SHA-256; KIND: report, all, checkpoints
    read ROOT [PATH OFFSET LENGTH ...]    for each: the number of bytes that follow, in 8 bytes, and the bytes
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence

# A run without its large parts: files at its top, and some below.
REPORT = ("manifest.json", "recipe.yaml", "metrics.jsonl", "nccl.json", "report.html", "report.md", "report.json")
STUDY = "study.json"  # a folder with it is a study, and its folders are runs
LARGE = ("checkpoints", "base")


def wanted(path: str, kind: str) -> bool:
    """Whether a file of a run (its path below the run) belongs to this kind."""
    parts = path.split("/")
    if parts[-1].startswith(".") or parts[-1].endswith(".part"):
        return False
    if kind == "checkpoints":
        return True
    if parts[0] in LARGE:
        return False
    if kind == "all" or (len(parts) == 1 and parts[0] in (*REPORT, STUDY)):
        return True
    if parts[0] == "attempts":
        return parts[-1] == "log"
    return parts[0] == "eval" and (parts[-1] in ("scores.json", "settings.json") or parts[-1].startswith("results_"))


def files(root: str, kind: str, names: Sequence[str]) -> Iterator[str]:
    for name in names or sorted(os.listdir(root)):
        top = os.path.join(root, name)
        if os.path.islink(top) or not os.path.isdir(top):
            continue
        study = os.path.isfile(os.path.join(top, STUDY))
        for folder, inside, names_here in os.walk(top):
            inside.sort()
            for file in sorted(names_here):
                path = os.path.join(folder, file)
                below = os.path.relpath(path, top)
                if wanted((below.partition("/")[2] if study else "") or below, kind):
                    yield path


def describe(root: str, path: str) -> None:
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):  # no links: they could lead out of the run
        return
    digest, left = hashlib.sha256(), info.st_size
    with open(path, "rb") as file:
        while left > 0:
            piece = file.read(min(left, 1 << 20))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
    entry = {"path": os.path.relpath(path, root), "size": info.st_size - left, "sha256": digest.hexdigest()}
    print(json.dumps(entry), flush=True)


def send(path: str, offset: int, length: int) -> None:
    out = sys.stdout.buffer
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:  # removed since it was listed
        data = b""
    out.write(len(data).to_bytes(8, "big"))
    out.write(data)
    out.flush()


def main(words: Sequence[str]) -> None:
    if words[0] == "list":
        for path in files(words[1], words[2], words[3:]):
            describe(words[1], path)
    elif words[0] == "read":
        for at in range(2, len(words), 3):
            send(os.path.join(words[1], words[at]), int(words[at + 1]), int(words[at + 2]))
