"""Two training processes in the world of a container (container_world.py says what that is), by the real command."""

import os
import subprocess
import sys
from pathlib import Path

import container_world
import pytest
from runs import recipe_in

from openrs.config.load import load
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training.launch import WORKER, plan

ROOT = Path(__file__).parents[2]


LINUX_ROOT = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="namespaces need Linux and root")
ONCE = """
import os
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
ones = torch.ones(4)
dist.all_reduce(ones)
os.write(1, f"sum {ones.tolist()}\\n".encode())  # print would write in pieces, between those of the other
"""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """What a container writes to; its cache is another user's, and not writable for us."""
    volume = tmp_path / "volume"
    cache = volume / "cache" / "hub"
    cache.mkdir(parents=True)
    (cache / "version.txt").write_text("1")
    for path in (cache / "version.txt", cache, cache.parent):
        os.chown(path, 4242, 4242)
    for name in ("tmp", "runs", "."):
        (volume / name).mkdir(exist_ok=True)
        (volume / name).chmod(0o777)
    return volume


def in_the_world(volume: Path, *words: str) -> subprocess.CompletedProcess[str]:
    python_path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, container_world.__file__, volume, *words],
        env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == container_world.NOT_PERMITTED:
        pytest.skip(f"no namespaces here: {done.stdout.strip()}")
    return done


@LINUX_ROOT
@pytest.mark.slow
@pytest.mark.limits(silence=60)
def test_two_processes_find_each_other_by_our_torchrun(volume: Path) -> None:
    """launch.plan's own torchrun line and environment, an all-reduce in place of the training. Without --local-addr
    they wait for the host's name for ever, and the limit of silence ends this."""
    started = plan(
        load("demo", ["hardware.processes=2"]), Run(volume / "runs" / "there"), volume / "runs", "model", start=None,
        ports=[1, 2],
    )  # fmt: skip
    (volume / "once.py").write_text(ONCE)
    torchrun = started.trainers[: started.trainers.index(WORKER[0], 2)]
    settings = [f"{name}={value}" for name, value in started.environment.items()]
    done = in_the_world(volume, "/usr/bin/env", *settings, *torchrun, "once.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("sum [2.0, 2.0, 2.0, 2.0]") == 2


@LINUX_ROOT
@pytest.mark.soak
@pytest.mark.limits(processor=300, silence=120)
def test_two_processes_train_without_network_name_or_home(volume: Path) -> None:
    recipe_in(volume)
    settings = ["hardware.processes=2", "grpo.per_device_train_batch_size=6", "grpo.max_steps=2", "grpo.save_steps=2"]
    train = ["train", "tiny-spread.yaml", "--run", "runs/there", *(word for one in settings for word in ("--set", one))]
    done = in_the_world(volume, sys.executable, "-m", "openrs.cli", *train)
    log = volume / "runs" / "there" / "attempts" / "01" / "processes.log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.read_text() if log.is_file() else ''}"
    steps = [row["step"] for row in read_jsonl(volume / "runs" / "there" / "metrics.jsonl") if "loss" in row]
    assert steps == [1, 2]
    assert (volume / "runs" / "there" / "checkpoints" / "step-000002").is_dir()
    assert (volume / "runs" / "there" / "metrics.jsonl").stat().st_uid == container_world.UID
