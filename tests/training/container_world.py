"""Runs a program in the world of a container, on Linux as root: python container_world.py VOLUME PROGRAM WORDS...

No network but a loopback, a host name that nothing resolves, a read-only root, a user without a name, an empty HOME, a
proxy that does not answer, no CUDA compiler. VOLUME, all that can be written, is at /mnt. Exit code 77: not permitted.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

UID = 54321  # nobody's number in /etc/passwd
NEWNS, NEWUTS, NEWNET = 0x00020000, 0x04000000, 0x40000000
RDONLY, REMOUNT, BIND, REC, PRIVATE = 1, 32, 4096, 16384, 1 << 18
VOLUME = Path("/mnt")
NOT_PERMITTED = 77
libc = ctypes.CDLL(None, use_errno=True)


def call(done: int) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    call(libc.mount(source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()))


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def make_reachable(path: Path) -> None:
    """Let every user reach a folder below one that is closed to others (a Python below /root)."""
    closed = next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)
    if closed is not None:
        kept = os.open(path, os.O_PATH)
        mount("tmpfs", closed, "tmpfs", 0, "mode=755")
        path.mkdir(parents=True)
        mount(f"/proc/self/fd/{kept}", path, "none", BIND | REC)
        os.close(kept)


def enter(volume: Path) -> None:
    call(libc.unshare(NEWNS | NEWUTS | NEWNET))
    mount("none", Path("/"), "none", REC | PRIVATE)
    socket.sethostname("nowhere-4f1c")
    loopback_up()
    mount(str(volume), VOLUME, "none", BIND)
    make_reachable(Path(sys.base_prefix))
    mount("none", Path("/"), "none", REMOUNT | BIND | RDONLY)
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)
    os.chdir(VOLUME)


def environment() -> dict[str, str]:
    proxy = "http://127.0.0.1:9"
    return {
        "HOME": "", "PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(VOLUME / "tmp"), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.environ["PYTHONPATH"], "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
        "HF_HOME": str(VOLUME / "cache"), "HF_HUB_OFFLINE": "1", "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy,
        "http_proxy": proxy, "https_proxy": proxy,
    }  # fmt: skip


if __name__ == "__main__":
    try:
        enter(Path(sys.argv[1]))
    except OSError as error:
        print(error)
        sys.exit(NOT_PERMITTED)
    os.execve(sys.argv[2], sys.argv[2:], environment())
