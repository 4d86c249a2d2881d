"""Launching: exact commands, refusals, outcomes that become ours, and nothing that outlives us. Workers here are fakes:
small scripts that end as a training process would; real ones are in test_distributed.py and test_vllm.py."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from waiting import gone, until

from openrs.cli import main as cli
from openrs.config.load import load
from openrs.doctor import nccl
from openrs.errors import Interrupted, RunFailure, UserError
from openrs.run import processes, signals
from openrs.run.directory import Run
from openrs.run.files import last_lines
from openrs.run.progress import Progress
from openrs.training import launch
from openrs.training import vllm_server as generator
from openrs.training.launch import LaunchPlan
from openrs.training.train import Prepared
from openrs.training.vllm_server import Address, Server

pytestmark = pytest.mark.slow

SPLIT = ["hardware.layout=split", "grpo.gradient_accumulation_steps=4"]


# --- what would be started --------------------------------------------------------------------------------------------


def test_dry_run_of_exp3_on_a_laptop_imports_no_torch_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from openrs.cli import main as cli; code = cli.main(['train', 'exp3', '--dry-run']);"
        " sys.exit(code or ('torch' in sys.modules) * 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    text = done.stdout
    assert "training: 4 processes (layout colocate), vLLM inside each, ZeRO-2" in text
    assert "a step: 12 problems x 6 completions; 500 steps\n" in text
    assert (
        "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc_per_node 4"
        " -m openrs.training.worker runs/exp3 --attempt runs/exp3/attempts/01\n"
    ) in text
    for setting in ("CUDA_VISIBLE_DEVICES=0,1,2,3", "OMP_NUM_THREADS=1", "DS_ACCELERATOR=cuda"):
        assert f"  {setting} \\\n" in text
    settings = yaml.safe_load(text.split("what TRL's GRPOConfig gets:\n")[1].split("recipe, resolved:")[0])
    assert settings["vllm_mode"] == "colocate"
    assert settings["deepspeed"] == {
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "gradient_clipping": 1.0,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    resolved = yaml.safe_load(text.split("recipe, resolved:\n")[1])
    assert resolved["grpo"]["learning_rate"] == 1e-6


def test_the_papers_layout_three_train_and_the_last_gpu_generates(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [word for setting in SPLIT for word in ("--set", setting)]
    assert cli.main(["train", "exp3", "--dry-run", *overrides]) == 0
    server, trainers = capsys.readouterr().out.split("training: 3 processes (layout split), ZeRO-2")
    assert "CUDA_VISIBLE_DEVICES=3 " in server
    assert "VLLM_SERVER_DEV_MODE=1 " in server
    assert "vllm.entrypoints.cli.main serve '<folder of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B at ad9f0ae" in server
    for option in (
        "--host 127.0.0.1", "--dtype bfloat16", "--max-model-len 4608", "--generation-config vllm", "--max-logprobs -1",
        "--logprobs-mode processed_logprobs", """--weight-transfer-config '{"backend": "nccl"}'""",
    ):  # fmt: skip
        assert option in server
    assert "CUDA_VISIBLE_DEVICES=0,1,2 " in trainers
    assert "--nproc_per_node 3" in trainers
    assert "vllm_mode: server" in trainers


def test_devices_that_we_were_given_are_shared_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what a user has set stays
    asked = launch.plan(load("exp3", SPLIT), Run(tmp_path), tmp_path, "m", start=tmp_path / "c", ports=[1234, 5678])
    assert asked.environment["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    assert asked.server_environment["CUDA_VISIBLE_DEVICES"] == "7"
    assert asked.environment["OMP_NUM_THREADS"] == "3"
    assert asked.trainers[-6:] == ["--from-checkpoint", str(tmp_path / "c"), "--server", "1234", "--group-port", "5678"]


def test_torchrun_takes_none_of_our_words_for_its_own() -> None:
    """Its parser looks for abbreviations of its options even behind the script: --start was one."""
    from torch.distributed.run import get_args_parser

    asked = launch.plan(load("exp3", SPLIT), Run(Path("r")), Path("a"), "m", start=Path("c"), ports=[1, 2])
    words = asked.trainers[asked.trainers.index("torch.distributed.run") + 1 :]
    parsed = get_args_parser().parse_args(words)
    assert parsed.training_script == "openrs.training.worker"
    assert parsed.training_script_args == words[words.index("openrs.training.worker") + 1 :]
    assert (parsed.nproc_per_node, parsed.standalone, parsed.local_addr) == ("3", True, "127.0.0.1")


def test_a_server_of_its_own_gets_at_least_the_papers_share_of_its_gpu() -> None:
    words = generator.command(load("exp3", SPLIT), "model", 8000)
    assert float(words[words.index("--gpu-memory-utilization") + 1]) >= 0.7
    more = generator.command(load("exp3", [*SPLIT, "grpo.vllm_gpu_memory_utilization=0.95"]), "model", 8000)
    assert more[more.index("--gpu-memory-utilization") + 1] == "0.95"


@pytest.mark.parametrize(
    ("overrides", "here"),
    [
        ([], True),
        (["hardware.processes=2", "grpo.per_device_train_batch_size=36"], False),
        (["hardware.zero_stage=2"], False),
        (["grpo.use_vllm=true"], False),
    ],
)
def test_what_trains_in_this_process(overrides: list[str], here: bool) -> None:
    assert launch.in_one_process(load("demo", overrides)) is here


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_seeds_are_runs_one_after_another_under_one_name() -> None:
    asked = launch.runs("exp3", [], None, seeds=[42, 43, 44])
    assert [str(run.path) for _, run in asked] == ["runs/exp3-seed42", "runs/exp3-seed43", "runs/exp3-seed44"]
    assert [recipe.grpo["seed"] for recipe, _ in asked] == [42, 43, 44]
    elsewhere = launch.runs("demo", [], "/some/where/", seeds=[1])
    assert str(elsewhere[0][1].path) == "/some/where-seed1"


def test_until_released_keeps_the_schedule() -> None:
    recipe = launch.runs("exp3", ["training.stop_after=7"], None, until="released")[0][0]
    assert (recipe.training.stop_after, recipe.grpo["max_steps"]) == (50, 500)
    assert launch.runs("exp3", [], None, until="100")[0][0].training.stop_after == 100


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--until", "soon"], "--until soon: neither a step nor `released`"),
        (["--until", "0"], "--until 0: neither"),
        (["--until", "released"], "demo has no paper.released_step"),
        (["--until", "9999"], "training.stop_after = 9999 is beyond grpo.max_steps"),
        (["--seeds", "1,2,1"], "--seeds names one seed twice"),
    ],
)
def test_what_cannot_be_asked_for(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "demo", "--dry-run", *words]) == 2
    assert says in capsys.readouterr().err


def test_without_gpus_exp3_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert cli.main(["train", "exp3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in ("4 x A40", "--dry-run", "openrs doctor", "demo"):
        assert word in said
    assert not list(tmp_path.iterdir())


def test_without_vllm_its_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="demo generates with vLLM, which is not installed here"):
        launch.check_machine(load("demo", ["grpo.use_vllm=true"]), "demo")


def test_weights_too_coarse_for_their_updates_are_refused() -> None:
    """Measured: at 1e-6 only 0.6 % of the demo's bfloat16 weights moved at all; with ZeRO-2 the float32 ones all do."""
    with pytest.raises(UserError, match="demo would train bfloat16 weights in place"):
        launch.check_machine(load("demo", ["model.dtype=bfloat16"]), "demo")
    launch.check_machine(load("demo", ["model.dtype=bfloat16", "hardware.zero_stage=2"]), "demo")


def test_the_split_layout_without_vllm_is_refused() -> None:
    with pytest.raises(UserError, match=r"hardware\.layout.*split.*grpo\.use_vllm"):
        load("exp3", [*SPLIT, "grpo.use_vllm=false"])


# --- following the processes ------------------------------------------------------------------------------------------


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    folder = tmp_path / "attempts" / "01"
    folder.mkdir(parents=True)
    return folder


def fake(script: str, attempt: Path) -> LaunchPlan:
    """A plan whose training processes are a Python script, which has `attempt` and `told(rank, code, what ...)`."""
    head = (
        "import json, os, signal, subprocess, sys, time\n"
        f"attempt = {str(attempt)!r}\n"
        "def told(rank, code, what='', why='', fix=''):\n"
        "    row = dict(rank=rank, code=code, what=what, why=why, fix=fix, time=time.time())\n"
        "    path = f'{attempt}/outcome-{rank}.json'\n"
        "    open(path + '.part', 'w').write(json.dumps(row)); os.replace(path + '.part', path)\n"
    )
    return LaunchPlan([sys.executable, "-c", head + script], {}, None, {})


def alive(pid: int) -> bool:
    return not gone(pid)


def test_a_good_end(attempt: Path) -> None:
    launch.follow(fake("told(0, 0); told(1, 0)", attempt), attempt)


def test_a_refusal_in_a_worker_becomes_ours(attempt: Path) -> None:
    """torchrun itself ends with 1, whatever its workers ended with."""
    with pytest.raises(UserError) as caught:
        launch.follow(fake("told(1, 2, 'too few rows', 'why', 'fix'); sys.exit(1)", attempt), attempt)
    assert not isinstance(caught.value, RunFailure)
    assert (caught.value.what, caught.value.why, caught.value.fix) == ("too few rows", "why", "fix")


def test_an_interruption_in_the_workers_becomes_ours(attempt: Path) -> None:
    with pytest.raises(Interrupted, match="step 7 is complete"):
        launch.follow(fake("told(0, 75, 'step 7 is complete'); told(1, 75, 'x'); sys.exit(1)", attempt), attempt)


def test_the_first_failure_tells(attempt: Path) -> None:
    script = "told(1, 1, 'ValueError: bad'); time.sleep(.1); told(0, 1, 'RuntimeError: peer is gone'); sys.exit(1)"
    with pytest.raises(RunFailure, match=r"training process 1: ValueError: bad\n.*processes\.log"):
        launch.follow(fake(script, attempt), attempt)


def test_a_killed_worker_leaves_no_word_but_the_log(attempt: Path) -> None:
    script = "print('allocating 40 GiB', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(RunFailure, match=r"exit code 137, and none recorded why\n  \| allocating 40 GiB"):
        launch.follow(fake(script, attempt), attempt)


def test_a_hang_points_to_its_stacks(attempt: Path) -> None:
    script = "open(attempt + '/stacks-rank1.txt', 'w').write('Thread 0x1'); sys.exit(1)"
    with pytest.raises(RunFailure, match=r"something hung: .*stacks-rank1\.txt"):
        launch.follow(fake(script, attempt), attempt)


def test_one_failed_worker_ends_those_that_wait_for_it(attempt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STRAGGLERS", 0.5)
    script = "open(attempt + '/pid', 'w').write(str(os.getpid())); told(1, 1, 'no memory'); time.sleep(600)"
    with pytest.raises(RunFailure, match="training process 1: no memory"):
        launch.follow(fake(script, attempt), attempt)
    assert not alive(int((attempt / "pid").read_text()))


def test_a_signal_is_handed_to_the_workers_and_their_end_is_ours(attempt: Path) -> None:
    script = """
def stop(number, frame):
    told(0, 75, f'signal {number}: the checkpoint of step 3 is complete')
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
open(attempt + '/worker-0.pid', 'w').write(str(os.getpid()))
time.sleep(600)
"""

    def send() -> None:
        until((attempt / "worker-0.pid").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    with signals.install_handlers():
        thread.start()
        with pytest.raises(Interrupted, match="signal 15: the checkpoint of step 3 is complete"):
            launch.follow(fake(script, attempt), attempt)
    thread.join()


def test_a_parent_may_be_process_1_and_a_lost_one_is_named(tmp_path: Path) -> None:
    """torchrun is process 1 of a container; a process whose starter died before it was ready says so and ends."""
    as_first = "import os; os.getppid = lambda: 1; from openrs.run.processes import die_with_parent; die_with_parent()"
    environment = {name: value for name, value in os.environ.items() if name != processes.PARENT}
    assert subprocess.run([sys.executable, "-c", as_first], env=environment, check=False).returncode == 0
    for parent, code in ((os.getpid(), 0), (2**22 + 1, 1)):
        words = [sys.executable, "-c", as_first.replace("os.getppid = lambda: 1", "pass")]
        environment[processes.PARENT] = str(parent)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, f"process {parent}, which started it, is gone" in done.stderr) == (code, bool(code))


def test_the_supervisor_names_itself_to_what_it_starts(attempt: Path, tmp_path: Path) -> None:
    script = (
        f"import os; open({str(tmp_path / 'x')!r}, 'w').write(os.environ['OPENRS_PARENT'] + ' ' + str(os.getpid()))"
    )
    child = processes.Child([sys.executable, "-c", script], {}, attempt / "log")
    assert child.wait(60) == 0
    named, own = (tmp_path / "x").read_text().split()
    assert named == own  # the command's own number: its children compare it with their parent's


def test_nothing_outlives_a_killed_parent(attempt: Path, tmp_path: Path) -> None:
    """SIGKILL to us: the fake torchrun, its child in the same group, and a worker in a session of its own all go."""
    worker = (
        "import os, time; from pathlib import Path; from openrs.run import processes; processes.die_with_parent();"
        f" Path({str(tmp_path / 'worker')!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    torchrun = (
        "import subprocess, sys, time; from pathlib import Path\n"
        f"Path({str(tmp_path / 'torchrun')!r}).write_text(str(__import__('os').getpid()))\n"
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"Path({str(tmp_path / 'helper')!r}).write_text(str(helper.pid))\n"
        f"subprocess.Popen([sys.executable, '-c', {worker!r}], start_new_session=True)\n"
        "time.sleep(600)"
    )
    parent = (
        "import sys; from pathlib import Path; from openrs.training import launch\n"
        f"plan = launch.LaunchPlan([sys.executable, '-c', {torchrun!r}], {{}}, None, {{}})\n"
        f"launch.follow(plan, Path({str(attempt)!r}))"
    )
    names = ("torchrun", "helper", "worker")
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names))
        pids = [int((tmp_path / name).read_text()) for name in names]
        assert all(alive(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(alive(pid) for pid in pids))


def test_nccl_is_measured_once_before_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a measurement that is played; training processes too. Compose starts `train` without `doctor nccl`."""
    monkeypatch.delenv("OPENRS_NCCL", raising=False)
    calls: list[str] = []

    def measure(run_dir: Path, *, ranks: int, **_: object) -> dict[str, object]:
        calls.append(f"measured between {ranks}")
        found = {"winner": "safe", "env": {"NCCL_P2P_DISABLE": "1"}}
        (run_dir / nccl.RESULT).write_text(json.dumps(found))
        return found

    def follow(started: LaunchPlan, *_: object) -> None:
        calls.append(f"P2P off: {started.environment.get('NCCL_P2P_DISABLE')}")

    monkeypatch.setattr(nccl, "measure", measure)
    monkeypatch.setattr(launch, "follow", follow)
    run, said = Run(tmp_path / "run"), io.StringIO()
    (run.path / "attempts" / "01").mkdir(parents=True)
    prepared = Prepared(Path("model"), None, None, done=False)  # type: ignore[arg-type]
    for mode in ("auto", "auto", "safe"):
        monkeypatch.setenv("OPENRS_NCCL", mode)
        launch.train(load("exp3"), run, Progress(None, said), prepared)
    assert calls == ["measured between 4", "P2P off: 1", "P2P off: 1", "P2P off: 1"]
    assert "train will use NCCL_P2P_DISABLE=1" in said.getvalue()
    (run.path / nccl.RESULT).unlink()
    for mode, recipe in (("off", "exp3"), ("auto", "demo")):
        monkeypatch.setenv("OPENRS_NCCL", mode)
        launch.train(load(recipe, ["hardware.zero_stage=2"]), run, Progress(None, said), prepared)
    assert calls[4:] == ["P2P off: None", "P2P off: None"]


# --- the generation server, played by a small one ---------------------------------------------------------------------

HEALTHY = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
engine = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[2], 'w').write(f'{os.getpid()} {engine.pid}')
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""


def serve(script: str, folder: Path) -> Server:
    address = Address(processes.free_port(), processes.free_port())
    words = [sys.executable, "-c", script, str(address.port), str(folder / "server.pids")]
    return Server(words, {}, address, folder / "server.log")


def test_a_server_is_waited_for_and_ends_with_its_engine(tmp_path: Path) -> None:
    server = serve(HEALTHY, tmp_path)
    assert server.wait_healthy(100_000) < 100_000
    server.check()
    pids = [int(word) for word in (tmp_path / "server.pids").read_text().split()]
    assert all(alive(pid) for pid in pids)
    server.stop()
    assert not any(alive(pid) for pid in pids)


def test_a_proxy_is_not_asked_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = serve(HEALTHY, tmp_path)
    server.wait_healthy(600)
    server.stop()


def test_a_server_that_ends_while_we_wait_says_why(tmp_path: Path) -> None:
    server = serve("import sys; sys.exit('ValueError: no room for the KV cache')", tmp_path)
    with pytest.raises(
        RunFailure, match=r"ended with exit code 1\n  why: the end of its log:(.|\n)*no room for the KV cache"
    ):
        server.wait_healthy(100_000)
    server.stop()


def test_a_server_that_never_answers_times_out(tmp_path: Path) -> None:
    server = serve("import time; time.sleep(600)", tmp_path)
    with pytest.raises(RunFailure, match=r"did not answer within 1\.5 s"):
        server.wait_healthy(1.5)
    server.stop()


def test_the_death_of_the_server_ends_the_training(attempt: Path, tmp_path: Path) -> None:
    """Its trainers would wait in an HTTP request with retries, and the others in a collective."""
    server = serve(HEALTHY, tmp_path)
    server.wait_healthy(100_000)
    front, engine = (int(word) for word in (tmp_path / "server.pids").read_text().split())
    script = f"open(attempt + '/pid', 'w').write(str(os.getpid())); os.kill({front}, 9); time.sleep(600)"
    with pytest.raises(RunFailure, match="the vLLM server was killed by signal 9"):
        launch.follow(fake(script, attempt), attempt, server)
    assert not alive(int((attempt / "pid").read_text()))
    until(lambda: not alive(engine))
    server.stop()


def test_outcomes_of_exceptions() -> None:
    def of(error: BaseException) -> tuple[int, str]:
        outcome = processes.outcome_of(error)
        return outcome.code, outcome.what

    assert of(UserError("no", "why", "fix")) == (2, "no")
    assert of(RunFailure("disk")) == (1, "disk")
    assert of(Interrupted("step 3")) == (75, "step 3")
    assert of(KeyboardInterrupt()) == (75, "Ctrl-C")
    assert of(SystemExit(2)) == (2, "left with exit code 2")
    assert of(ValueError("x")) == (1, "ValueError: x")


def test_the_tail_of_a_log_hides_secrets(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\n\nusing token hf_abcdefghijkl\n")
    assert last_lines(tmp_path / "log") == ["a", "using token [hidden]"]
    assert last_lines(tmp_path / "absent") == []


def test_outcome_files_come_back(tmp_path: Path) -> None:
    late, early = processes.Outcome(0, 1, "late", time=2.0), processes.Outcome(1, 2, "early", "w", "m", 1.0)
    for outcome in (late, early):
        processes.write_outcome(tmp_path, outcome)
    assert processes.outcomes(tmp_path) == [early, late]
    assert json.loads((tmp_path / "outcome-1.json").read_text())["why"] == "w"
