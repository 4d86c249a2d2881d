"""`openrs cluster` as a person gives it: what it prints, and how it ends."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator import IMAGE, Emulated
from waiting import until

from openrs.cli.main import main

pytestmark = pytest.mark.slow


def there(server: Emulated) -> None:
    server.node("gpu-1")
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    server.put({"kind": "StorageClass", "metadata": {"name": "standard", "annotations": default}})


def test_a_dry_run_prints_what_would_be_sent_and_asks_no_server(
    server: Emulated, capfd: pytest.CaptureFixture[str]
) -> None:
    there(server)
    assert main(["cluster", "submit", "exp3", "--image", IMAGE, "--dry-run"]) == 0
    printed = list(yaml.safe_load_all(capfd.readouterr().out))
    assert server.asked("GET") == server.asked("POST") == []
    assert main(["cluster", "submit", "exp3", "--image", IMAGE, "--detach"]) == 0
    for thing in printed:
        sent = server.get(thing["kind"], thing["metadata"]["name"])
        assert sent is not None
        for extra in ("uid", "creationTimestamp", "resourceVersion"):
            sent["metadata"].pop(extra)
        assert sent == thing


def test_a_dry_run_needs_no_cluster_at_all(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    assert main(["cluster", "submit", "demo", "--dry-run"]) == 0
    kinds = [thing["kind"] for thing in yaml.safe_load_all(capfd.readouterr().out)]
    assert kinds == ["PersistentVolumeClaim", "Job"]


def test_submit_follows_to_the_end(server: Emulated, capfd: pytest.CaptureFixture[str]) -> None:
    there(server)

    def controller() -> None:
        until(lambda: server.get("Job", "openrs-demo"))
        server.pod("openrs-demo-x", "openrs-demo", "Running", {"train": {"running": {}}}, node="gpu-1")
        server.log("openrs-demo-x", "train", "step 200/200  reward 2.9  0.50 s each, 0 s left")
        until(lambda: server.asked("GET", "/log"))
        server.pod("openrs-demo-x", "openrs-demo", "Succeeded", {"train": {"terminated": {"exitCode": 0}}})
        server.job_status("openrs-demo", "Complete")

    player = threading.Thread(target=controller)
    player.start()
    assert main(["cluster", "submit", "demo", "--image", IMAGE]) == 0
    player.join()
    output = capfd.readouterr().out
    assert "ok    nodes" in output
    assert "Job openrs-demo is created in namespace openrs" in output
    assert "step 200/200" in output
    assert "Job openrs-demo is complete after 1 h 00 min; fetch its results with openrs cluster collect demo" in output


def test_the_exit_code_of_a_refused_run_is_2(server: Emulated, capfd: pytest.CaptureFixture[str]) -> None:
    there(server)

    def controller() -> None:
        until(lambda: server.get("Job", "openrs-demo"))
        state = {"terminated": {"exitCode": 2, "message": "openrs: no such column"}}
        server.pod("openrs-demo-x", "openrs-demo", "Failed", {"train": state})
        server.job_status("openrs-demo", "Failed", "PodFailurePolicy", "exit code 2")

    player = threading.Thread(target=controller)
    player.start()
    assert main(["cluster", "submit", "demo", "--image", IMAGE]) == 2
    player.join()
    assert "| openrs: no such column" in capfd.readouterr().err


def test_what_is_missing_stops_a_submit_before_anything_is_made(
    server: Emulated, capfd: pytest.CaptureFixture[str]
) -> None:
    server.node("cpu-1", product=None, gpus=0)
    assert main(["cluster", "submit", "exp3", "--detach"]) == 2
    output = capfd.readouterr()
    assert "FAIL  image" in output.out
    assert "FAIL  nodes" in output.out
    assert "the Job cannot run: image, nodes, claim" in output.err
    assert server.names("Job") == server.names("PersistentVolumeClaim") == []
    assert main(["cluster", "submit", "exp3", "--detach", "--force"]) == 0
    assert server.names("Job") == ["openrs-exp3"]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["submit", "exp9"], "there is no recipe called exp9"),
        (["submit", "exp3", "--set", "grpo.learnin_rate=1"], "did you mean grpo.learning_rate"),
        (["submit", "exp3", "--context", "production"], "has no context production"),
        (["status", "exp3"], "namespace openrs has no Job openrs-exp3"),
        (["logs", "exp3"], "namespace openrs has no Job openrs-exp3"),
        (["status", "-n", "nosuch"], "namespace nosuch does not exist"),
        (["stop", "exp3", "-n", "elsewhere"], "namespace elsewhere has no Job openrs-exp3"),
        (["delete", "exp3"], "needs confirmation, and there is no terminal"),
        (["delete", "exp3", "--claim"], "its volume claim with all data in it"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(
    server: Emulated, words: list[str], output: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["cluster", *words]) == 2
    error = capfd.readouterr().err
    assert output in error
    assert "Traceback" not in error
    assert server.asked("DELETE") == server.asked("PATCH") == server.asked("POST") == []


def test_status_tells_all_runs_and_one(server: Emulated, capfd: pytest.CaptureFixture[str]) -> None:
    there(server)
    assert main(["cluster", "status"]) == 0
    assert "has no Job of openrs" in capfd.readouterr().out
    main(["cluster", "submit", "exp3", "--image", IMAGE, "--detach"])
    main(["cluster", "submit", "demo", "--image", IMAGE, "--detach"])
    server.job_status("openrs-demo", "Complete")
    server.pod("openrs-exp3-x", "openrs-exp3")
    server.event("openrs-exp3-x", "Pod", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    server.event("openrs-exp3-seeds", "Job", "FailedCreate", "of another run")
    capfd.readouterr()
    assert main(["cluster", "status"]) == 0
    output = capfd.readouterr().out
    assert "exp3  waiting" in output
    assert "demo  complete after 1 h 00 min" in output
    assert main(["cluster", "status", "exp3"]) == 0
    output = capfd.readouterr().out
    assert "Pod openrs-exp3-x waits for a node" in output
    assert "0 of 3 nodes can take the Pod: 3 with too few free GPUs" in output
    assert re.search(r"\d+ h \d\d min ago: 0 of 3 nodes", output)
    assert "of another run" not in output
    assert "all data are in the claim openrs-exp3" in output
    server.pod("openrs-exp3-x", "openrs-exp3", "Failed", {"train": {"terminated": {"exitCode": 75}}})
    main(["cluster", "status", "exp3"])
    assert "the next Pod comes 10 s after the last one's end" in capfd.readouterr().out
    server.pod("openrs-exp3-x", "openrs-exp3", "Pending", {"fetch": {"running": {}}})
    main(["cluster", "status"])
    assert "exp3  running" in capfd.readouterr().out


def test_logs_of_what_is_there(server: Emulated, capfd: pytest.CaptureFixture[str]) -> None:
    there(server)
    main(["cluster", "submit", "exp3", "--image", IMAGE, "--detach"])
    done: dict[str, Any] = {"terminated": {"exitCode": 0}}
    server.pod("openrs-exp3-x", "openrs-exp3", "Running", {"fetch": done, "train": {"running": {}}})
    server.log("openrs-exp3-x", "fetch", "whole and checked")
    server.log("openrs-exp3-x", "train", *(f"step {number}/500" for number in range(1, 30)))
    capfd.readouterr()
    assert main(["cluster", "logs", "exp3", "--tail", "2"]) == 0
    output = capfd.readouterr().out.splitlines()
    assert output == [
        "[openrs-exp3-x fetch] whole and checked",
        "[openrs-exp3-x train] step 28/500",
        "[openrs-exp3-x train] step 29/500",
    ]


@pytest.mark.parametrize(("answer", "left"), [("exp3", []), ("yes", ["openrs-exp3"]), ("", ["openrs-exp3"])])
def test_delete_asks_a_person_for_the_runs_name(
    server: Emulated, answer: str, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there(server)
    main(["cluster", "submit", "exp3", "--image", IMAGE, "--detach"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert main(["cluster", "delete", "exp3"]) == (2 if left else 0)
    assert server.names("Job") == left
    assert server.names("PersistentVolumeClaim") == ["openrs-exp3"]


def test_delete_with_its_claim(server: Emulated) -> None:
    there(server)
    main(["cluster", "submit", "exp3", "--image", IMAGE, "--detach"])
    assert main(["cluster", "delete", "exp3", "--claim", "--yes"]) == 0
    assert server.names("Job") == server.names("PersistentVolumeClaim") == []


def test_ctrl_c_in_a_real_process_leaves_the_job(server: Emulated) -> None:
    there(server)
    command = [sys.executable, "-m", "openrs.cli", "cluster", "submit", "exp3", "--image", IMAGE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: [params for params in server.asked("GET", "/jobs") if "watch" in params])
    process.send_signal(2)
    _, error = process.communicate()
    assert process.returncode == 75
    assert "detached; Job openrs-exp3 keeps running" in error
    assert "Traceback" not in error
    job = server.get("Job", "openrs-exp3")
    assert job is not None
    assert "suspend" not in job["spec"]


def test_the_help_needs_neither_the_client_nor_torch() -> None:
    program = (
        "import sys; from openrs.cli.main import parser; parser();"
        "print([name for name in ('kubernetes', 'torch', 'rich', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_room_of_the_cluster_imports_torch() -> None:
    program = "import sys, openrs.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_client_the_extra_is_named() -> None:
    without = "import sys; sys.modules['kubernetes'] = None"
    program = f"{without}; from openrs.cli.main import main; sys.exit(main(['cluster', 'status']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'openrs[cluster]'" in done.stderr
    assert "Traceback" not in done.stderr
