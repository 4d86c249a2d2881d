"""Two training processes in the world of a container (container_world.py says what that is), by the real command."""

import os
import subprocess
import sys
from pathlib import Path

import container_world
import pytest
from runs import recipe_in

from openrs.run.files import read_jsonl

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.limits(processor=300, silence=120)
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="namespaces need Linux and root")
def test_two_processes_train_without_network_name_or_home(tmp_path: Path) -> None:
    """Without torchrun's --local-addr they wait for the host's name for ever, and the limit of silence ends this."""
    volume = tmp_path / "volume"
    cache = volume / "cache" / "hub"
    cache.mkdir(parents=True)
    (cache / "version.txt").write_text("1")
    for path in (cache / "version.txt", cache, cache.parent):
        os.chown(path, 4242, 4242)  # somebody else's, and not writable for us
    for name in ("tmp", "runs", "."):
        (volume / name).mkdir(exist_ok=True)
        (volume / name).chmod(0o777)
    recipe_in(volume)
    settings = ["hardware.processes=2", "grpo.per_device_train_batch_size=6", "grpo.max_steps=2", "grpo.save_steps=2"]
    train = ["train", "tiny-spread.yaml", "--run", "runs/there", *(word for one in settings for word in ("--set", one))]
    python_path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, container_world.__file__, volume, sys.executable, "-m", "openrs.cli", *train],
        env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == container_world.NOT_PERMITTED:
        pytest.skip(f"no namespaces here: {done.stdout.strip()}")
    log = volume / "runs" / "there" / "attempts" / "01" / "processes.log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.read_text() if log.is_file() else ''}"
    steps = [row["step"] for row in read_jsonl(volume / "runs" / "there" / "metrics.jsonl") if "loss" in row]
    assert steps == [1, 2]
    assert (volume / "runs" / "there" / "checkpoints" / "step-000002").is_dir()
    assert (volume / "runs" / "there" / "metrics.jsonl").stat().st_uid == container_world.UID
