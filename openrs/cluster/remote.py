"""Runs inside a Pod, handed over as `python3 -c`: lists the files of runs with their hashes, and reads pieces of them.

Only the standard library, and nothing of openrs: the image may hold another version.

    list ROOT KIND [NAME ...]       JSON lines: path under ROOT, size, SHA-256; KIND: report, all, checkpoints
    read ROOT PATH OFFSET LENGTH    the bytes
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence

# What stands for a run without its large parts. A name alone is a file at the run's top.
REPORT = ("manifest.json", "recipe.yaml", "metrics.jsonl", "nccl.json", "report.html", "report.md", "report.json")
LARGE = ("checkpoints", "base")


def wanted(path: str, kind: str) -> bool:
    """Whether a file of a run (its path below the run) belongs to what was asked for."""
    parts = path.split("/")
    if parts[-1].startswith(".") or parts[-1].endswith(".part"):
        return False
    if kind == "checkpoints":
        return True
    if parts[0] in LARGE:
        return False
    if kind == "all" or (len(parts) == 1 and parts[0] in REPORT):
        return True
    if parts[0] == "attempts":
        return parts[-1] == "log"
    return parts[0] == "eval" and (parts[-1] in ("scores.json", "settings.json") or parts[-1].startswith("results_"))


def files(root: str, kind: str, names: Sequence[str]) -> Iterator[str]:
    for name in names or sorted(os.listdir(root)):
        top = os.path.join(root, name)
        if os.path.islink(top) or not os.path.isdir(top):
            continue
        for folder, inside, found in os.walk(top):
            inside.sort()
            for file in sorted(found):
                path = os.path.join(folder, file)
                if wanted(os.path.relpath(path, top), kind):
                    yield path


def main(words: Sequence[str]) -> None:
    if words[0] == "list":
        for path in files(words[1], words[2], words[3:]):
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode):  # no links: they could lead out of the run
                continue
            digest, left = hashlib.sha256(), info.st_size
            with open(path, "rb") as file:
                while left > 0:
                    piece = file.read(min(left, 1 << 20))
                    if not piece:
                        break
                    digest.update(piece)
                    left -= len(piece)
            found = {"path": os.path.relpath(path, words[1]), "size": info.st_size - left, "sha256": digest.hexdigest()}
            print(json.dumps(found))
    elif words[0] == "read":
        left = int(words[4])
        with open(os.path.join(words[1], words[2]), "rb") as file:
            file.seek(int(words[3]))
            while left > 0:
                piece = file.read(min(left, 1 << 16))
                if not piece:
                    break
                sys.stdout.buffer.write(piece)
                left -= len(piece)
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
