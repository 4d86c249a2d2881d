"""The doctor's lines on the machine around the GPUs: Python, packages, limits, RAM, disks, clock, container."""

import os
import platform
import re
import resource
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from openrs.doctor.finding import Finding, State, judged
from openrs.doctor.probe import Probe
from openrs.hub.cache import hub_cache
from openrs.planner.plan import ResourcePlan
from openrs.run import manifest
from openrs.run.disk_faults import existing
from openrs.run.units import GIB, format_bytes

SHARED = "/dev/shm"  # noqa: S108 - its size is asked for, nothing is written
SHM = 1 * GIB  # NCCL's buffers between GPUs that cannot write to each other; Docker's 64 MB make it fail
DECIDING = {  # packages whose version can change a result
    "accelerate", "datasets", "deepspeed", "flash-attn", "latex2sympy2-extended", "lighteval", "math-verify", "numpy",
    "peft", "sympy", "tokenizers", "torch", "transformers", "trl", "vllm",
}  # fmt: skip
FILES = 4096  # open files: workers, shards, sockets
SLOW_DISK = 100e6  # bytes a second


def python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return judged("Python", good, platform.python_version(), "3.11 to 3.13", "make the environment anew: scripts/setup")


def packages() -> Finding:
    """Installed versions against the lock (OPENRS_LOCK, or locks/ of a checkout), else against openrs's own pins."""
    wanted, source = _locked()
    installed = {plain(name): version for name, version in manifest.packages().items()}
    other = [
        f"{name} {installed[name]} (locked {version})"
        for name, version in wanted.items()
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    ]
    missing = [name for name in wanted if name not in installed]
    if not wanted:
        return Finding("packages", "unknown", "no lock to compare with", fix="set OPENRS_LOCK to the lock's path")
    fix = "scripts/setup installs the lock again; results with other versions are other results"
    if other:
        text = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
        matters = any(entry.split(" ")[0] in DECIDING for entry in other)
        return Finding("packages", "fail" if matters else "warn", text, f"the versions of {source}", fix)
    text = f"{len(wanted) - len(missing)} as in {source}"
    if missing:
        text += f", {len(missing)} not installed ({', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''})"
    return Finding("packages", "warn" if "torch" in missing else "ok", text, fix=fix if "torch" in missing else "")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked() -> tuple[dict[str, str], str]:
    """Name -> version, and where that stands."""
    named = os.environ.get("OPENRS_LOCK", "")
    path = Path(named) if Path(named).suffix == ".txt" else _checkout_lock()  # scripts/setup also takes a lock's name
    if path is not None and path.is_file():
        lines = re.findall(r"^[A-Za-z0-9][^\\\n#]*", path.read_text(encoding="utf-8"), re.MULTILINE)
        wanted = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate()]  # for here
        return {plain(one.name): str(one.specifier).removeprefix("==") for one in wanted}, path.name
    try:
        requirements = "\n".join(metadata.requires("openrs") or [])
    except metadata.PackageNotFoundError:
        requirements = ""
    pins = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;,]+)", requirements, re.MULTILINE)
    return {plain(name): version for name, version in pins}, "openrs's own pins"


def _checkout_lock() -> Path | None:
    """The lock of a git checkout for this machine: with CUDA's packages when its torch has them."""
    locks = Path(__file__).parents[2] / "locks"
    try:
        cpu = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return None
    return locks / ("cpu.txt" if cpu else f"cuda-py3{sys.version_info[1]}.txt")


def limits(gpus: int) -> list[Finding]:
    try:
        size: float | None = float(shutil.disk_usage(SHARED).total)
    except OSError:
        size = None
    needed = f"{format_bytes(SHM)} for NCCL between {gpus} GPUs" if gpus > 1 else ""
    enough = True if gpus <= 1 else None if size is None else size >= SHM
    fix = "docker run --shm-size=8g; in Kubernetes a memory volume mounted there"
    found = [judged(SHARED, enough, "unknown" if size is None else format_bytes(size), needed, fix)]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    text = "unlimited" if locked == resource.RLIM_INFINITY else format_bytes(locked)
    enough = gpus == 0 or locked == resource.RLIM_INFINITY or locked >= GIB
    fix = "docker run --ulimit memlock=-1, or ulimit -l unlimited"
    found.append(judged("memlock", enough, text, "unlimited for pinned buffers" if gpus else "", fix, bad="warn"))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    text = "unlimited" if files == resource.RLIM_INFINITY else f"{files:,}"
    enough = gpus == 0 or files == resource.RLIM_INFINITY or files >= FILES
    fix = f"ulimit -n {FILES}"
    found.append(judged("open files", enough, text, f"{FILES:,}" if gpus else "", fix, bad="warn"))
    return found


def processors(probe: Probe, plan: ResourcePlan | None) -> Finding:
    """Cores that this process may use, after affinity and the container's share."""
    cores = float(len(os.sched_getaffinity(0)))
    share = (probe.read("/sys/fs/cgroup/cpu.max") or "").split()
    text = f"{cores:.0f} cores"
    if len(share) == 2 and all(word.isdigit() for word in share) and int(share[1]):
        quota = int(share[0]) / int(share[1])
        if quota < cores:
            cores, text = quota, f"{text}, of which the container may use {quota:.1f}"
    if plan is None or not plan.workload.gpus:
        return Finding("CPU", "ok", text)
    need = 2 * plan.workload.trainers + plan.workload.judges
    fix = "fewer judges (rewards.workers), or a larger node: generation waits for slow cores"
    return judged("CPU", cores >= need, text, f"{need}: two a process, one a judge", fix, bad="warn")


def memory(probe: Probe, plan: ResourcePlan | None) -> Finding:
    """RAM that is there, or that the container's limit leaves."""
    text = probe.read("/proc/meminfo") or ""
    values = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total, free = values.get("MemTotal"), values.get("MemAvailable")
    if total is None:
        return Finding("RAM", "unknown", "the kernel does not say")
    found = f"{format_bytes(total)}" + (f", {format_bytes(free)} of it free" if free is not None else "")
    limit = _memory_limit(probe)
    if limit is not None and limit < total:
        found += f"; the container may use {format_bytes(limit)}"
        total = limit
    if plan is None:
        return Finding("RAM", "ok", found)
    fix = "a larger node or limit; rewards.workers and rewards.memory_gib bound the judges"
    need = f"up to {format_bytes(plan.host)}"
    bad: State = "fail" if total < plan.host else "warn"  # what others hold now may be free when it is needed
    return judged("RAM", min(total, free or total) >= plan.host, found, need, fix, bad=bad)


def _memory_limit(probe: Probe) -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = (probe.read(path) or "").strip()
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def volumes(plan: ResourcePlan | None, runs: Path) -> list[Finding]:
    """Free disk on each volume against what is planned there; two plans on one disk are added."""
    fix = "a larger volume; fewer checkpoints kept (training.keep_last); another --run or HF_HOME"

    def line(name: str, place: Path, need: float) -> Finding:
        free = shutil.disk_usage(place).free
        text = f"{format_bytes(free)} free at {place}"
        return judged(f"disk of {name}", free > need, text, format_bytes(need) if need else "", fix)

    run = plan.disk.run if plan is not None else 0.0
    cache = plan.disk.cache if plan is not None and not plan.workload.gpu.measured_only else 0.0
    at, cached_at = existing(runs), existing(hub_cache())
    if at.stat().st_dev == cached_at.stat().st_dev:
        return [line("runs and cache", at, run + cache)]
    return [line("runs", at, run), line("cache", cached_at, cache)]


def writing(runs: Path, checkpoint: float) -> Finding:
    """Speed of 64 MiB written and fsynced, and of small fsyncs, on the volume of the runs."""
    folder = existing(runs)
    path = folder / f".openrs-doctor-{os.getpid()}"
    block = os.urandom(1 << 20)
    try:
        with path.open("wb") as file:
            begin = time.perf_counter()
            for _ in range(64):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = 64 * len(block) / (time.perf_counter() - begin)
            begin = time.perf_counter()
            for _ in range(8):
                file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
            pause = (time.perf_counter() - begin) / 8
    except OSError as error:
        fix = "change its owner, free some space, or choose another place with --run"
        return Finding("writing", "fail", f"{folder} cannot be written: {error.strerror}", "a volume for runs/", fix)
    finally:
        path.unlink(missing_ok=True)
    text = f"{speed / 1e6:.0f} MB/s, {pause * 1e3:.1f} ms a small fsync"
    if checkpoint > 1e9:
        text += f"; a checkpoint of {format_bytes(checkpoint)} takes {checkpoint / speed:.0f} s"
    fix = "use a local disk for runs/, and copy what you keep"
    return judged("writing", speed >= SLOW_DISK, text, f"{SLOW_DISK / 1e6:.0f} MB/s", fix, bad="warn")


def clock(hub_time: float | None) -> Finding:
    """The clock against the hub's, or at least against the age of this installation."""
    fix = "switch on NTP: a wrong clock breaks certificates, tokens and the order of records"
    if hub_time is not None:
        off = abs(time.time() - hub_time)
        return judged("clock", off < 120, f"{off:.0f} s from the hub's", "within 120 s", fix)
    installed = Path(__file__).stat().st_mtime
    good = time.time() > installed - 86_400
    return judged("clock", good, "later than this installation" if good else "before this installation", "right", fix)


def container(probe: Probe) -> Finding:
    """Who we are, where, and what is closed."""
    inside = probe.exists("/.dockerenv") or probe.exists("/run/.containerenv")
    kind = "Kubernetes" if os.environ.get("KUBERNETES_SERVICE_HOST") else "a container" if inside else "no container"
    mounts = [row.split() for row in (probe.read("/proc/mounts") or "").splitlines()]
    root = next((row[3].split(",") for row in reversed(mounts) if len(row) > 3 and row[1] == "/"), None)
    closed = "unknown" if root is None else "read-only" if "ro" in root else "writable"
    pids = (probe.read("/sys/fs/cgroup/pids.max") or "").strip()
    text = f"{kind}, user {os.getuid()}, root file system {closed}" + (
        f", at most {pids} processes" if pids.isdigit() else ""
    )
    if pids.isdigit() and int(pids) < 512:
        return Finding("container", "warn", text, "at least 512 processes and threads", "raise its pids limit")
    return Finding("container", "info", text)
