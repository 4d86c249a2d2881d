"""What one NVIDIA GPU can prove of openrs in ten minutes, part by part: `scripts/gpu-check [--out DIR]`.

    scripts/gpu-check                        any one GPU; writes gpu-check/gpu-check.json and gpu-check.html
    scripts/gpu-check --cpu                  a rehearsal: the same parts at toy sizes, no GPU touched
    scripts/gpu-check --pack wheels          with a network: the wheels that a bare torch image (Python 3.12) lacks
    scripts/gpu-check --wheels wheels        without one: install those into the output folder first

Each part is a process of its own with a time limit. One that fails or is skipped stops no other, and says why.
Both files are written anew after every part. No path and no host name is in them; the parts' own output stays in *.log.
Exit code 0 when every part passed, 1 when one failed or was skipped, 2 for a wrong call.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import gpu_check_page

HERE = Path(__file__).parent
MARGIN = 5.0  # seconds at the end, for the page
LEFT = "LEFT"  # in a part's command: the seconds after which it should begin nothing more
SHORTEST = 10.0  # a part with less time than this is not begun
# Of locks/cuda-py312.txt: what openrs imports and an image with torch, transformers and pyarrow does not bring.
WHEELS = (
    "trl", "datasets", "transformers", "tokenizers", "huggingface-hub", "safetensors", "dill", "multiprocess",
    "xxhash", "datasketch", "peft", "accelerate", "pydantic",
    "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions", "rich", "pyyaml", "packaging",
    "math-verify", "latex2sympy2-extended", "antlr4-python3-runtime",
)  # fmt: skip
WHEELS_MIB = 60
VERSIONS = """
import importlib.metadata as m, json, platform, sys
found = {"python": platform.python_version()}
for name in ("torch", "transformers", "trl", "accelerate", "datasets", "deepspeed", "vllm", "lighteval", "triton"):
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: found[name] = None
import torch
found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None}
if "gpu" in sys.argv and torch.cuda.is_available():
    found |= {"device": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability()),
              "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 2)}
print("gpu-check:" + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What runs, and the most seconds that it may take. `result`: whether it writes NAME.json itself."""

    name: str
    title: str
    command: Sequence[str]
    limit: float
    result: bool = True
    needs: str = ""  # a part that must have passed


@dataclass(slots=True)
class Outcome:
    name: str
    title: str
    limit: float
    state: str = "skipped"  # passed, failed, skipped
    why: str = "not reached"
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)


def parts(out: Path, *, cpu: bool) -> list[Part]:
    """In the order of their worth: what comes last is what a slow machine does not reach."""
    run = out / "runs" / "alone"
    here = ["--cpu"] if cpu else []
    size = ["--small"] if cpu else []
    step = ["--small", "--few", "--groups", "1", "--repeats", "1"] if cpu else ["--few", "--repeats", "2"]
    gpu_step = [sys.executable, str(HERE / "gpu_step.py")]
    runs = [sys.executable, str(HERE / "gpu_runs.py")]
    real = "the real size" if not cpu else "the toy size (in place of the real one)"
    limit = 1.0 if not cpu else 5.0  # a rehearsal's machine may be busy, and all of it is small
    rows = (
        ("doctor", "openrs doctor", [sys.executable, "-P", "-m", "openrs.cli", "doctor", "--json"], 100, False, ""),
        ("recorded", "loss and gradient of the trainer against the paper's recorded ones, fp32 and bf16",
         [sys.executable, str(HERE / "gpu_parity.py"), *here], 90, True, ""),
        ("tiny", "the update's paths against the published one, tiny, fp32 and bf16",
         [*gpu_step, "--small", "--parity", *here], 90, True, ""),
        ("train", "four steps of openrs train, completions by transformers", [*runs, "train", "--run", str(run), *here],
         120, True, ""),
        ("resume", "killed after a checkpoint, and resumed", [*runs, "resume", "--run", str(run), *here],
         120, True, "train"),
        ("step", f"parity in {'fp32' if cpu else 'bf16'}, seconds and memory of an update's paths, {real}",
         [*gpu_step, *step, *here, "--seconds", LEFT], 180, True, ""),
        ("fp32", f"the update's paths against the published one, {real}, fp32",
         [*gpu_step, "--parity", "--dtypes", "float32", *size, *here, "--seconds", LEFT], 100, True, ""),
        ("evaluate", "openrs evaluate of the trained toy model", [*runs, "evaluate", "--run", str(run)],
         100, True, "train"),
    )  # fmt: skip
    return [Part(name, title, command, seconds * limit, *rest) for name, title, command, seconds, *rest in rows]


def environment(out: Path, *, cpu: bool) -> dict[str, str]:
    """For every part: this checkout's openrs, then carried wheels; no hub; one GPU."""
    carried = [str(out / "site")] if (out / "site").is_dir() else []
    more = {"PYTHONPATH": os.pathsep.join([str(common.ROOT), *carried]), "HF_HOME": str(out / "hub")}
    if cpu:
        more["CUDA_VISIBLE_DEVICES"] = ""
    else:  # one GPU is what is checked, whatever else the machine has
        more["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    base = {name: value for name, value in common.environment().items() if cpu or name != "DS_ACCELERATOR"}
    return {**base, **more}


class Progress:
    """A line that is written over on a terminal; elsewhere a line a part."""

    def __init__(self, until: float) -> None:
        self.until, self.live = until, sys.stderr.isatty()

    def show(self, number: int, of: int, part: Part, seconds: float, limit: float) -> None:
        if self.live:
            left = max(0.0, self.until - time.monotonic())
            text = f"{part.name}: {seconds:.0f} s of at most {limit:.0f}; the whole at most {left:.0f} s more"
            print(f"\r\x1b[K[{number}/{of}] {text}", end="", file=sys.stderr, flush=True)

    def done(self, number: int, of: int, outcome: Outcome) -> None:
        why = f": {outcome.why}" if outcome.why else ""
        left = max(0.0, self.until - time.monotonic())
        text = f"[{number}/{of}] {outcome.name:9s} {outcome.state} in {outcome.seconds:.0f} s{why}"
        print(f"{chr(13)}\x1b[K{text}" if self.live else f"{text} (at most {left:.0f} s more)", flush=True)


def run_part(part: Part, place: tuple[int, int], out: Path, env: Mapping[str, str], progress: Progress) -> Outcome:
    """One part in a session of its own, killed with all that it started when its time is over."""
    limit = min(part.limit, progress.until - MARGIN - time.monotonic())
    outcome = Outcome(part.name, part.title, limit)
    if limit < SHORTEST:
        outcome.why = "no time left for it"
        return outcome
    result, log = out / f"{part.name}.json", out / f"{part.name}.log"
    result.unlink(missing_ok=True)
    soon = f"{max(5.0, limit - 25):.0f}"  # an update and the libraries' start fit into what is kept
    words = [soon if word == LEFT else word for word in part.command] + (["--json", str(result)] if part.result else [])
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            while (code := process.poll()) is None and time.monotonic() - began < limit:
                progress.show(*place, part, time.monotonic() - began, limit)
                time.sleep(0.1)
        finally:
            kill_session(process)
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.found = read_result(part, result, log)
    outcome.state, outcome.why = "passed", ""
    if code is None:
        outcome.state, outcome.why = "failed", f"took longer than {limit:.0f} s and was ended"
    elif part.name == "doctor" and outcome.found:  # it answered; what it found wrong is in the page
        outcome.why = "" if code == 0 else "some lines need attention"
    elif code != 0 or (part.result and not outcome.found):
        outcome.state, outcome.why = "failed", reason(outcome.found, log, code, out)
    return outcome


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the part and to all that it left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_result(part: Part, result: Path, log: Path) -> dict[str, Any]:
    try:
        text = without_paths(result.read_text() if part.result else log.read_text(), result.parent)
        found = json.loads(text[text.index("{") :])  # the doctor's is its output
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if key != "machine"}


def tail(text: str, lines: int) -> list[str]:
    """The last lines, as a terminal would leave them."""
    whole = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line.rpartition("\r")[2].strip()[:300] for line in whole.splitlines() if line.strip()][-lines:]


def reason(found: Mapping[str, Any], log: Path, code: int, out: Path) -> str:
    """Why a part failed: what it says itself, else the last line of its output, without this machine's paths."""
    if found.get("wrong"):
        return "; ".join(map(str, found["wrong"]))[:400]
    last = tail(log.read_text(errors="replace"), 1)
    text = f"exit code {code}: {last[0]}" if last else f"exit code {code}, without a word"
    return without_paths(text, out)


def without_paths(text: str, out: Path) -> str:
    """A text without this machine's folders, for files that are sent to others."""
    for path, word in ((str(out), "OUT"), (str(common.ROOT), "."), (str(Path.home()), "~")):
        text = text.replace(path, word) if len(path) > 1 else text
    return text


def versions(env: Mapping[str, str], *, cpu: bool) -> dict[str, Any]:
    """Of Python, torch and the others, and the device's name, by a process of its own; why not, where it dies."""
    words = [sys.executable, "-c", VERSIONS, *([] if cpu else ["gpu"])]
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return {"why": "torch was not loaded in 60 s"}
    line = next((line for line in done.stdout.splitlines() if line.startswith("gpu-check:")), None)
    if line is None:
        return {"why": (tail(done.stderr, 1) or ["no answer"])[0]}
    found: dict[str, Any] = json.loads(line.removeprefix("gpu-check:"))
    return found


def write(out: Path, document: dict[str, Any]) -> None:
    for name, text in (
        ("gpu-check.json", json.dumps(document, indent=1) + "\n"), ("gpu-check.html", gpu_check_page.page(document)),
    ):  # fmt: skip
        beside = out / f".{name}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(out / name)


def pack(folder: Path) -> int:
    """Download the wheels of WHEELS at the lock's versions, for Python 3.12 on x86-64 Linux."""
    lock = (common.ROOT / "locks" / "cuda-py312.txt").read_text()
    pins = [match[0] for name in WHEELS if (match := re.search(rf"^{re.escape(name)}==[^\s;\\]+", lock, re.MULTILINE))]
    platforms = [word for number in (28, 27, 17) for word in ("--platform", f"manylinux_2_{number}_x86_64")]
    where = ["--python-version", "3.12", "--implementation", "cp", *platforms, "--platform", "manylinux2014_x86_64"]
    words = ["download", "--no-deps", "--only-binary=:all:", *where, "-d", str(folder), *pins]
    if code := subprocess.run([sys.executable, "-m", "pip", *words], check=False).returncode:
        return code
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 2**20
    print(f"{len(pins)} wheels, {size:.1f} MiB of at most {WHEELS_MIB}: {folder}")
    return 0 if size <= WHEELS_MIB else 1


def install(wheels: Path, out: Path) -> str:
    """Put carried wheels into OUT/site; why not, or ''. Into a folder: the image's own environment stays as it is."""
    there = sorted(map(str, wheels.glob("*.whl")))
    if not there:
        return "it holds no wheels"
    words = ["install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, str(out / "site"), *there], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else (tail(done.stderr, 1) or ["pip failed"])[0]


def check(args: argparse.Namespace, chosen: Sequence[Part]) -> int:
    out, began = args.out, time.monotonic()
    env = environment(out, cpu=args.cpu)
    machine = common.machine()
    document: dict[str, Any] = {
        "what": "gpu-check", "format": 1, "rehearsal": args.cpu, "commit": machine["commit"],
        "cpu": machine["cpu"], "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(env, cpu=args.cpu), "clocks_before": None if args.cpu else common.clocks(),
        "clocks_after": None,
    }  # fmt: skip
    progress = Progress(began + 60 * args.minutes)
    outcomes = [Outcome(part.name, part.title, part.limit) for part in chosen]
    try:
        for at, part in enumerate(chosen):
            if part.needs and any(o.name == part.needs and o.state != "passed" for o in outcomes):
                outcomes[at].why = f"it needs what {part.needs} leaves"
            else:
                outcomes[at] = run_part(part, (at + 1, len(chosen)), out, env, progress)
            progress.done(at + 1, len(chosen), outcomes[at])
            if part.name == "step" and not args.cpu:
                document["clocks_after"] = common.clocks()
            write_all(out, document, outcomes, began)
    except KeyboardInterrupt:
        print("\ninterrupted; what was found is written", file=sys.stderr)
    write_all(out, document, outcomes, began)
    good = sum(outcome.state == "passed" for outcome in outcomes)
    print(f"{good} of {len(outcomes)} parts passed in {time.monotonic() - began:.0f} s: {out / 'gpu-check.html'}")
    return 0 if good == len(outcomes) else 1


def write_all(out: Path, document: dict[str, Any], outcomes: Sequence[Outcome], began: float) -> None:
    listed = [{name: getattr(outcome, name) for name in Outcome.__slots__} for outcome in outcomes]
    write(out, {**document, "seconds": round(time.monotonic() - began, 1), "parts": listed})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), metavar="DIR", help="a new folder (gpu-check)")
    parser.add_argument("--cpu", "--rehearse", action="store_true", help="the same parts at toy sizes, on the CPU")
    parser.add_argument("--minutes", type=float, default=9.5, metavar="M", help="for all of it (default 9.5)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts alone")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install the wheels of this folder first")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="download those wheels into this folder, and end")
    args = parser.parse_args()
    if args.pack:
        return pack(args.pack)
    args.out = args.out.resolve()
    known = parts(args.out, cpu=args.cpu)
    if unknown := set(args.only or ()) - {part.name for part in known}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in known)}")
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty: move it away, or give another --out")
    if not args.cpu and common.clocks() is None:
        parser.error("nvidia-smi names no GPU here; a rehearsal on the CPU: scripts/gpu-check --cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.wheels and (why := install(args.wheels, args.out)):
        parser.error(f"the wheels of {args.wheels} could not be installed: {why}")
    return check(args, [part for part in known if not args.only or part.name in args.only])


if __name__ == "__main__":
    sys.exit(main())
