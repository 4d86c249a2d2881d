"""Several nodes: what rank 0 says is what all do. Two torchruns on this machine stand for two nodes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from openrs.config.load import load
from openrs.errors import UserError
from openrs.run import checkpoints, processes
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import nodes

pytestmark = pytest.mark.slow

SETTINGS = ["hardware.processes=2", "grpo.warmup_steps=1", "grpo.save_steps=2", "grpo.per_device_train_batch_size=6",
            "model.toy.steps=3", "data.limit=12"]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "started", "words"),
    [
        ([], "", "started by torchrun only"),
        (
            ["hardware.gpus=8", "grpo.gradient_accumulation_steps=1"],
            "12",
            "torchrun started 12 processes, the recipe needs 8",
        ),
        (["hardware.layout=split", "grpo.gradient_accumulation_steps=4"], "3", "the split layout is for one node"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything(
    changes: list[str], started: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", started or "0")
    with pytest.raises(UserError, match=words):
        nodes.refuse_mismatch(load("exp3", changes))


def test_twelve_processes_of_three_nodes_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "12")
    nodes.refuse_mismatch(load("exp3", ["hardware.gpus=12", "grpo.gradient_accumulation_steps=1"]))


Launch = Callable[[int, int, list[str]], "subprocess.Popen[bytes]"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start the torchrun of one node: its number, the steps of the schedule, more settings. None outlives the test."""
    started = []

    def start(node: int, steps: int, changes: list[str]) -> subprocess.Popen[bytes]:
        port = tmp_path / "port"
        if not port.exists():
            port.write_text(str(processes.free_port()))
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "60",
            "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port.read_text(),
        }  # fmt: skip
        words = [word for change in [*SETTINGS, f"grpo.max_steps={steps}", *changes] for word in ("--set", change)]
        command = [sys.executable, "-m", "torch.distributed.run", "-m", "openrs.training.nodes", "demo", "two", *words]
        with (tmp_path / f"node{node}.log").open("ab") as log:
            started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:  # their workers go with them
        process.kill()
        process.wait()


def outcomes(run: Run) -> list[tuple[int, int]]:
    return sorted((one.rank, one.code) for one in processes.outcomes(run.attempts()[-1]))


def last_attempt(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.manifest.read_text())["attempts"][-1]
    return found


def wait_for_steps(run: Run, count: int, both: list["subprocess.Popen[bytes]"]) -> None:
    while len(list(read_jsonl(run.metrics))) < count:
        assert all(process.poll() is None for process in both), "a node ended before"
        time.sleep(0.2)


@pytest.mark.soak
@pytest.mark.limits(processor=900)
def test_two_nodes_stop_together_on_one_sigterm_survive_a_dead_node_and_go_on(tmp_path: Path, launch: Launch) -> None:
    run = Run(tmp_path / "runs" / "two")
    both = [launch(node, 200, []) for node in (0, 1)]
    wait_for_steps(run, 3, both)
    both[1].send_signal(signal.SIGTERM)  # one node is drained
    assert [process.wait() for process in both] == [1, 1]  # torchrun has no other code
    assert outcomes(run) == [(0, 75), (1, 75)]
    assert last_attempt(run)["exit_code"] == 75
    stopped = checkpoints.step_of(checkpoints.list_complete(run.checkpoints)[-1])
    assert stopped == len(list(read_jsonl(run.metrics)))  # the step that both had ended

    (tmp_path / "port").unlink()
    both = [launch(node, 200, []) for node in (0, 1)]
    wait_for_steps(run, stopped + 3, both)
    both[1].kill()  # one node is gone, its worker with it
    assert [process.wait() for process in both] == [1, -signal.SIGKILL]
    assert outcomes(run)[0] == (0, 1)
    assert last_attempt(run)["exit_code"] == 1
    assert last_attempt(run)["from_step"] == stopped

    newest = checkpoints.step_of(checkpoints.list_complete(run.checkpoints)[-1])
    assert newest > stopped
    (tmp_path / "port").unlink()
    both = [launch(node, 200, [f"training.stop_after={newest + 2}"]) for node in (0, 1)]
    assert [process.wait() for process in both] == [0, 0], (tmp_path / "node0.log").read_text()[-3000:]
    assert outcomes(run) == [(0, 0), (1, 0)]
    assert [row["step"] for row in read_jsonl(run.metrics)] == list(range(1, newest + 3))


@pytest.mark.soak
def test_what_rank_0_refuses_ends_the_other_node_at_once(tmp_path: Path, launch: Launch) -> None:
    both = [launch(node, 4, ["data.source=nowhere.jsonl"]) for node in (0, 1)]
    assert [process.wait() for process in both] == [1, 1]
    assert "nowhere.jsonl" in (tmp_path / "node0.log").read_text()
