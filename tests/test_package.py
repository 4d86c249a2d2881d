"""The wheel and the sdist work without a checkout: `pip install openrs`, `pipx run openrs plan exp3`."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy
import pytest

from openrs import __version__

ROOT = Path(__file__).parents[1]

pytest.importorskip("build")
pytestmark = pytest.mark.soak


def run(*command: object, cwd: Path) -> str:
    """What it prints, in a folder that has nothing of the checkout on its import path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OPENRS"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of sdist and wheel; the wheel is built from the sdist, so what one lacks the other lacks."""
    source = tmp_path_factory.mktemp("source")
    for name in ("openrs", "k8s"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", source, cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and with this one's packages behind it."""
    place = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place)
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, next(built.glob("*.whl")), cwd=place)
    packages = next((place / "lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n", encoding="utf-8")
    return place


def test_what_a_wheel_must_do_without_a_checkout(environment: Path, tmp_path: Path) -> None:
    openrs = environment / "bin" / "openrs"
    where = "import openrs.cli.main as main; print(main.__file__)"
    assert run(environment / "bin" / "python", "-c", where, cwd=tmp_path).startswith(str(environment))
    assert run(openrs, "--version", cwd=tmp_path) == f"openrs {__version__}\n"
    assert "training: in this process" in run(openrs, "train", "demo", "--dry-run", cwd=tmp_path)
    assert "A40" in run(openrs, "plan", "exp3", cwd=tmp_path)
    assert "exp3" in run(openrs, "recipe", "list", cwd=tmp_path)
    (tmp_path / "answers.jsonl").write_text(json.dumps({"gold": "$4$", "completion": "so \\boxed{4}"}) + "\n")
    assert "1 correct" in run(openrs, "grade", "answers.jsonl", cwd=tmp_path)
    run(openrs, "report", "--out", "page", cwd=tmp_path)
    assert "<html" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_every_data_file_of_the_package_is_in_wheel_and_sdist(built: Path, environment: Path) -> None:
    installed = next((environment / "lib").glob("python*/site-packages/openrs"))
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = [
        path.relative_to(ROOT)
        for folder in (ROOT / "openrs", ROOT / "openrs" / "cluster" / "k8s")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".md")
    ]
    assert {path.suffix for path in needed} >= {".py", ".yaml", ".txt", ".json", ".html", ".css", ".js", ".typed"}
    assert [str(path) for path in needed if not (installed.parent / path).is_file()] == []
    assert [str(path) for path in needed if str(path) not in packed] == []
    job = installed / "cluster" / "k8s" / "exp3" / "job.yaml"
    assert job.read_text(encoding="utf-8") == (ROOT / "k8s" / "job-exp3.yaml").read_text(encoding="utf-8")
