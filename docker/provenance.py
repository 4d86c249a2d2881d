"""What an image was made of, as JSON: base, lock, commit, packages. Run in the build, by the image's own Python."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path


def main() -> None:
    lock = Path(sys.prefix, "lock.txt")
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package}=${Version}\n"], check=True, capture_output=True, text=True
    ).stdout.split()
    facts = {
        "base": os.environ["BASE"],  # as the FROM line names it; `system` is what really was there
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "revision": os.environ["REVISION"],
        "lock": {"name": os.environ["LOCK"], "sha256": hashlib.sha256(lock.read_bytes()).hexdigest()},
        "python": platform.python_version(),
        "packages": dict(sorted((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())),
        "system_packages": dict(entry.split("=", 1) for entry in sorted(listed)),
    }
    json.dump(facts, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
