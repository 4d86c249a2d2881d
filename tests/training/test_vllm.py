"""Real vLLM on the CPU (marker vllm, .venv-vllm): colocated training with weight sync, the canary, and the server.

TRL's server mode moves weights by NCCL alone, so on a CPU the server is tested up to there: start, health, sampling,
the canary's questions, death.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import gone, until

from openrs.config import checks as recipe_checks
from openrs.config.load import load
from openrs.errors import RunFailure
from openrs.run import processes
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import canary, launch
from openrs.training import vllm_server as generator
from openrs.training.vllm_server import Address, Server, vllm_arguments

pytestmark = [pytest.mark.vllm, pytest.mark.limits(processor=600)]

STALE = str(Path(__file__).with_name("stale_worker.py"))
BASE = [
    "model.toy=null", "data.limit=60", "grpo.max_steps=6", "grpo.save_steps=6", "grpo.warmup_steps=0",
    "grpo.use_vllm=true", "grpo.vllm_max_model_length=96", "grpo.vllm_importance_sampling_correction=false",
    "grpo.per_device_train_batch_size=12", "rewards.workers=1", "training.trackers=[]",
    "rewards.functions=[{name: 'toy_rewards:spread'}]",  # an untaught model earns nothing, and so would not move
]  # fmt: skip
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def rows_of(run: Run) -> list[dict[str, Any]]:
    return list(read_jsonl(run.metrics))


@pytest.fixture(autouse=True)
def toy_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def train(folder: Path, model: Path, *overrides: str) -> Run:
    recipe, run = load("demo", [*BASE, f"model.name={model}", *overrides]), Run(folder)
    with attempt(recipe, run) as progress:
        launch.train(recipe, run, progress)
    return run


def test_drafts_are_arguments_of_vllms_own_and_take_it_back_to_its_older_runner(made_model: Path) -> None:
    """Nothing is sampled: vLLM's CPU build is wrong with drafts (dev/LOG.md, 29 November 2026)."""
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    short = ["prompt.max_tokens=16", "grpo.max_completion_length=16", "grpo.vllm_max_model_length=64"]
    recipe = load("exp3", [*short, "hardware.draft_tokens=4"])
    words = generator.command(recipe, str(made_model), 1)
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words[words.index("serve") + 1 :])
    parsed.model = parsed.model_tag
    colocated = EngineArgs(model=str(made_model), max_model_len=64, **vllm_arguments(recipe))
    assert AsyncEngineArgs.from_cli_args(parsed).speculative_config == colocated.speculative_config
    config = colocated.create_engine_config()
    assert (config.speculative_config.method, config.speculative_config.num_speculative_tokens) == ("ngram", 4)
    assert not config.scheduler_config.async_scheduling
    assert "speculative method 'ngram'" in config._get_v2_model_runner_unsupported_features()


# --- vLLM inside the training processes -------------------------------------------------------------------------------


def test_colocated_in_two_processes_the_weights_arrive(tmp_path: Path, made_model: Path) -> None:
    """At a learning rate of 1e-2 the policy is another one after each step, and vLLM's follows, in float32 as well."""
    run = train(tmp_path / "run", made_model, "hardware.processes=2", "grpo.learning_rate=1e-2")
    rows = rows_of(run)
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[-1]["kl"] > 0.1
    assert all(0 < row["canary/gap"] < 1e-4 for row in rows), [row["canary/gap"] for row in rows]
    assert len({row["canary/gap"] for row in rows}) == len(rows)  # other numbers each time: neither side stood still
    assert all(row["time/sync"] > 0 and row["time/generation"] > 0 for row in rows)


APART = r"log-probabilities of the same text are \S+ nats apart on average, limit 0\.005 \(5 x \S+ of equal weights\)"


@pytest.mark.parametrize(
    ("how", "rate", "says"),
    [
        ("none", "1e-5", rf"{APART}|the trainer has moved by 0\.\d+ nats on average, vLLM not by a digit"),
        ("none", "1e-2", APART),
        ("partly", "1e-2", APART),
    ],
)
def test_the_canary_ends_a_run_whose_sync_is_broken(
    how: str, rate: str, says: str, tmp_path: Path, made_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "WORKER", (STALE, how))
    with pytest.raises(RunFailure, match=says):
        train(tmp_path / "run", made_model, f"grpo.learning_rate={rate}")
    run = Run(tmp_path / "run")
    assert len(rows_of(run)) < 6
    assert json.loads(run.manifest.read_text())["attempts"][0]["exit_code"] == 1


# --- vLLM as a server -------------------------------------------------------------------------------------------------


def start(folder: Path, model: Path) -> Server:
    recipe = load("demo", ["grpo.vllm_max_model_length=96"])
    address = Address(processes.free_port(), processes.free_port())
    words = generator.command(recipe, str(model), address.port)
    return Server(words, generator.environment(None) | ON_CPU, address, folder / "server.log")


def group_of(server: Server) -> list[int]:
    """Processes of the server: its front, vLLM's engine and its worker."""

    def pgrep(*words: str) -> list[int]:
        return [int(pid) for pid in subprocess.run(["pgrep", *words], capture_output=True, check=False).stdout.split()]

    front = pgrep("-P", str(server._supervisor.pid))
    return pgrep("-g", str(front[0])) if front else []


def test_the_server_from_its_start_to_its_death(tmp_path: Path, made_model: Path) -> None:
    from transformers import AutoModelForCausalLM
    from trl.generation.vllm_client import VLLMClient

    server = start(tmp_path, made_model)
    try:
        server.wait_healthy(900)
        client = VLLMClient(base_url=server.address.url, group_port=server.address.group_port, connection_timeout=10)
        assert client.model == "policy"

        found = client.generate([[5, 6, 7], [8, 9]], n=3, max_tokens=4, temperature=0.7, logprobs=0)
        assert [len(ids) for ids in found["completion_ids"]] == [4] * 6

        # The canary's questions in server mode, against the model that the server was started with.
        model = AutoModelForCausalLM.from_pretrained(made_model)
        accelerator = SimpleNamespace(unwrap_model=lambda m: m, autocast=_nothing, device="cpu", is_main_process=True)
        trainer = SimpleNamespace(
            model=model,
            accelerator=accelerator,
            vllm_mode="server",
            vllm_generation=SimpleNamespace(vllm_client=client),
            state=SimpleNamespace(global_step=0),
        )
        metrics = canary.Canary([[5, 6, 7], [8, 9, 10, 11]], load("demo").monitors.canary).check(trainer)
        assert 0 < metrics["canary/gap"] < 1e-4  # both in float32

        # Weights would now go over NCCL, which wants CUDA: TRL says so.
        with pytest.raises(NotImplementedError, match="needs a CUDA device"):
            client.init_communicator(device="cpu")

        pids = group_of(server)
        assert len(pids) >= 2
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: gone(*pids))  # vLLM's engine would live on for good
        until(lambda: server.wait() is not None)  # its supervisor ends a moment after it
        with pytest.raises(RunFailure, match="the vLLM server was killed by signal 9"):
            server.check()
    finally:
        server.stop()


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_the_split_layout_but_for_nccl(tmp_path: Path, made_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and two training processes, as on GPUs. Only the transfer of weights is left out (no_nccl_worker.py): the
    first step goes through, and at the second the canary, asking the server, finds the old weights there.
    """
    monkeypatch.setattr(recipe_checks, "_machine", lambda _: [])  # it refuses the split layout without GPUs
    monkeypatch.setattr(launch, "WORKER", (str(Path(__file__).with_name("no_nccl_worker.py")),))
    for name, value in ON_CPU.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailure, match=r"after the weight sync of step 1 .* nats apart on average"):
        train(
            tmp_path / "run",
            made_model,
            "hardware.layout=split",
            "hardware.processes=2",
            "grpo.learning_rate=1e-2",
            "grpo.vllm_server_timeout=900",
        )
    run = Run(tmp_path / "run")
    (row,) = rows_of(run)
    assert row["completions/mean_length"] > 1
    assert row["num_tokens"] > 24
    assert row["time/sync"] > 0
    assert 0 <= row["canary/gap"] < 1e-4
    log = (run.attempts()[-1] / "server.log").read_text()
    assert "POST /v1/completions" in log
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False).stdout == b""


def test_the_server_goes_with_a_killed_parent(tmp_path: Path, made_model: Path) -> None:
    """SIGKILL while vLLM is starting, with its engine half up."""
    code = (
        "import sys, time; sys.path[:0] = sys.argv[3:]; from pathlib import Path; import test_vllm\n"
        "server = test_vllm.start(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "while len(pids := test_vllm.group_of(server)) < 2: time.sleep(0.2)\n"
        "print(*pids, flush=True); time.sleep(600)"
    )
    here = Path(__file__).parent
    words = [sys.executable, "-c", code, str(tmp_path), str(made_model), str(here), str(here.parent)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) >= 2
    process.kill()
    process.wait()
    until(lambda: gone(*pids))
