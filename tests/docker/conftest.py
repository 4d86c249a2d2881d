"""A real engine, a copy of the checkout as its user has it, and the image: built once, by README's command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / folder) for folder in ("hub", "training")]
STANDIN = "localhost/cuda-standin:12"  # what ../shared/tools/engine-up makes, in place of NVIDIA's base
TOKEN = "hf_ThisMustNeverBeSeenAnywhere"
SETTINGS = ("OPENRS_", "HF_", "COMPOSE_", "SUDO_")  # of whoever runs the tests: not taken over


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    output: str  # both streams, as a person sees them


@dataclass(frozen=True, slots=True)
class Clone:
    """A copy of the checkout: what is tried in it leaves no trace in the real one."""

    path: Path
    environment: dict[str, str]
    user: int

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def sh(self, command: str, *, given: str = "", **environment: str) -> Ended:
        """A command as a person types it, here."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.path, env=self.environment | environment, input=given,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout)

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's container."""
        name = f"{self.environment['COMPOSE_PROJECT_NAME']}-{service}-1"
        found: dict[str, Any] = json.loads(docker("container", "inspect", name))[0]
        return found

    def exit_code(self, service: str) -> int:
        return int(self.container(service)["State"]["ExitCode"])

    def recipe(self, name: str, text: str) -> str:
        """A recipe of the user's own; returns what RECIPE is set to."""
        (self.runs / name).write_text(text)
        return f"runs/{name}"


@pytest.fixture(scope="session")
def engine() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        pytest.skip('no container engine answers (eval "$(../shared/tools/engine-up)" brings one up)')


@pytest.fixture(scope="session")
def hub() -> Iterator[Any]:
    """The hub's stand-in with all that exp3 and exp1 want, small: at the pinned commits, under the real names."""
    from fake_hub import FakeHub, Repo

    from openrs.config.load import load
    from openrs.hub.pins import references

    repos = {}
    for ref in (ref for recipe in ("exp3", "exp1") for ref in references(load(recipe))):
        commit = "a" * 40 if ref.revision == "main" else ref.revision.ljust(40, "0")
        files = (
            {"config.json": b"{}", "model.safetensors": b"w" * 5000} if ref.kind == "model" else {"a.jsonl": b"{}\n"}
        )
        repos[ref.name] = Repo(files, [commit], large=("model.safetensors",))
    with FakeHub(repos) as server:
        yield server


def standin(compose_file: Path, base: str) -> str:
    """For compose's own builds: the stand-in in place of NVIDIA's base, and a folder with PyTorch's CPU wheel."""
    contexts = {base: f"docker-image://{STANDIN}"}
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        if list(Path(folder).glob("torch-*+cpu*.whl")):
            contexts["wheels"] = folder
    names = yaml.safe_load(compose_file.read_text())["services"]
    return json.dumps({"services": {name: {"build": {"additional_contexts": contexts}} for name in names}})


@pytest.fixture(scope="session")
def clone(engine: None, hub: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    path = tmp_path_factory.mktemp("docker") / "openrs"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().split("\0"):
        source = ROOT / name
        if name and (source.is_file() or source.is_symlink()):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, path / name, follow_symlinks=False)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", str(path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a copy"]):
        subprocess.run([*git, *words], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    environment |= {
        "COMPOSE_PROJECT_NAME": f"openrs-test-{os.getpid()}",
        "COMPOSE_FILE": "docker-compose.yml:tests/docker/few-steps.yml",
        "COMPOSE_ANSI": "never",
        "OPENRS_RESTART_PAUSE": "0",
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
    }
    user = os.getuid()
    if (
        user == 0
    ):  # an ordinary user's files can be told from root's: as under sudo, and what containers write to is that user's
        user = 12345
        environment |= {"SUDO_UID": str(user), "SUDO_GID": str(user)}
        for folder in ("runs", "data"):
            for name in (folder, f"{folder}/.gitignore"):
                os.chown(path / name, user, user)
    if docker("image", "ls", "--quiet", STANDIN):
        base = next(
            line.removeprefix("ARG BASE=") for line in (path / "Dockerfile").read_text().splitlines()
            if line.startswith("ARG BASE=")
        )  # fmt: skip
        # That engine has no bridge to the network.
        (path.parent / "standin.yml").write_text(standin(path / "docker-compose.yml", base))
        environment["COMPOSE_FILE"] += f":{path.parent / 'standin.yml'}"
        environment |= {
            "OPENRS_BUILD_OPTIONS": f"--build-context {base}=docker-image://{STANDIN}",
            "OPENRS_BUILD_NETWORK": "host",
            "OPENRS_FETCH_NETWORK": "host",
        }
        raising = ["docker", "run", "--rm", "--network", "none", "--ulimit", "memlock=-1", STANDIN, "true"]
        if subprocess.run(raising, capture_output=True, check=False).returncode != 0:
            environment["COMPOSE_FILE"] += ":tests/docker/no-limits.yml"
    yield Clone(path, environment, user)
    subprocess.run(
        ["docker", "compose", "--profile", "*", "down", "--volumes", "--timeout", "1"],
        cwd=path, env=environment, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def built(clone: Clone) -> str:
    """What `./scripts/image` printed. Minutes where the engine has nothing yet, seconds where only openrs changed."""
    ended = clone.sh("./scripts/image")
    assert ended.code == 0, ended.output[-4000:]
    return ended.output


@pytest.fixture(scope="session")
def image(built: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", "openrs:cpu"))[0]
    return found


@pytest.fixture(scope="session")
def claims() -> Path:
    """Where the stand-in for NVIDIA's hook writes which GPUs each container claimed."""
    path = os.environ.get("OPENRS_GPU_CLAIMS")
    if path is None:
        pytest.skip("OPENRS_GPU_CLAIMS is not set: only the stand-in's hook records what a container claims")
    return Path(path)
