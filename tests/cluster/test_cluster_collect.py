"""Results come home whole: over an emulated exec that really runs the commands, on connections that break."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from emulator import IMAGE, Emulated
from waiting import until

from openrs.cluster import collect as module
from openrs.cluster.api import Cluster
from openrs.cluster.collect import File, collect, refuse_odd
from openrs.cluster.jobs import JobRequest, build_manifests, manifest
from openrs.cluster.submit import submit
from openrs.config.load import load
from openrs.errors import RunFailure, UserError

pytestmark = pytest.mark.slow

POD = "openrs-exp3-abcde"
FILES = {
    "report.html": b"<html>\xff\x00 not utf-8</html>" * 3000,
    "report.json": b"{}",
    "manifest.json": b'{"attempts": []}',
    "metrics.jsonl": b'{"step": 1}\n' * 500,
    "recipe.yaml": b"title: x\n",
    "attempts/01/log": b"step 1/500\n",
    "attempts/01/processes.log": b"noise",
    "eval/step-000050/scores.json": b"{}",
    "eval/step-000050/results_2026.json": b"{}",
    "eval/step-000050/samples.jsonl": b"{}\n" * 1000,
    "completions/step-000010.parquet": b"PAR1" * 100,
    "checkpoints/step-000050/model.safetensors": bytes(range(256)) * 1000,
    "base/model.safetensors": b"x" * 1000,
    ".lock": b"",
    ".report.md.77.part": b"half",
    "empty/nothing": b"",
}
REPORT = {
    "report.html", "report.json", "manifest.json", "metrics.jsonl", "recipe.yaml", "attempts/01/log",
    "eval/step-000050/scores.json", "eval/step-000050/results_2026.json",
}  # fmt: skip


@pytest.fixture
def volume(server: Emulated, cluster: Cluster, tmp_path: Path) -> Path:
    """The claim's content, and a training that runs on it."""
    submit(cluster, build_manifests(JobRequest(load("exp3"), "exp3", image=IMAGE)), print)
    server.pod(POD, "openrs-exp3", "Running", {"train": {"running": {}}}, node="gpu-1")
    server.api.exec_root = tmp_path / "volume"
    run = tmp_path / "volume" / "runs" / "exp3"
    for name, data in FILES.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return run


def copied(to: Path) -> dict[str, bytes]:
    top = to / "exp3"
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file() and path.name != module.MARK
    }


LARGE = {
    "attempts/01/processes.log",
    "eval/step-000050/samples.jsonl",
    "completions/step-000010.parquet",
    "empty/nothing",
}
WEIGHTS = {"checkpoints/step-000050/model.safetensors", "base/model.safetensors"}


@pytest.mark.parametrize(("kind", "more"), [("report", set()), ("all", LARGE), ("checkpoints", LARGE | WEIGHTS)])
def test_what_is_asked_for_comes_byte_for_byte(
    kind: Any, more: set[str], volume: Path, cluster: Cluster, tmp_path: Path
) -> None:
    assert collect(cluster, "exp3", print, kind=kind, to=tmp_path / "here") == [tmp_path / "here" / "exp3"]
    assert copied(tmp_path / "here") == {name: FILES[name] for name in REPORT | more}


def test_given_again_it_copies_only_what_changed(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    collect(cluster, "exp3", print, to=tmp_path / "here")
    output: list[str] = []
    collect(cluster, "exp3", output.append, to=tmp_path / "here")
    assert "8 files, 8 of them already here; 0.0 KiB to copy" in output
    with (volume / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2}\n')
    (volume / "report.json").write_bytes(b"[]")  # the same size
    output.clear()
    collect(cluster, "exp3", output.append, to=tmp_path / "here")
    assert [line.split()[1] for line in output if line[:1].isdigit() and "/" in line[:3]] == [
        "exp3/metrics.jsonl", "exp3/report.json",
    ]  # fmt: skip
    assert copied(tmp_path / "here")["report.json"] == b"[]"


@pytest.mark.parametrize("cuts", [[0], [10], [0, 0, 7, 1500, 1], [40_000, 3, 40_000]])
def test_broken_connections_cost_no_byte(
    cuts: list[int], volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    """Cut while listing, while reading, after nothing and in the middle."""
    server.api.exec_cuts = list(cuts)
    collect(cluster, "exp3", print, to=tmp_path / "here")
    assert server.api.exec_cuts == []
    assert copied(tmp_path / "here") == {name: FILES[name] for name in REPORT}


def test_it_goes_on_with_half_a_file_that_a_killed_collect_left(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    part = tmp_path / "here" / "exp3" / ".report.html.part"
    part.parent.mkdir(parents=True)
    (part.parent / module.MARK).write_text("{}")
    part.write_bytes(FILES["report.html"][:50_000])
    collect(cluster, "exp3", print, to=tmp_path / "here")
    left = len(FILES["report.html"]) - 50_000
    assert f"'exp3/report.html', '50000', '{left}'" in server.api.programs[1]
    assert copied(tmp_path / "here")["report.html"] == FILES["report.html"]
    assert not part.exists()


def test_half_a_file_of_something_else_is_found_by_its_hash(volume: Path, cluster: Cluster, tmp_path: Path) -> None:
    part = tmp_path / "here" / "exp3" / ".report.html.part"
    part.parent.mkdir(parents=True)
    (part.parent / module.MARK).write_text("{}")
    part.write_bytes(b"y" * 50_000)
    output: list[str] = []
    collect(cluster, "exp3", output.append, to=tmp_path / "here")
    assert "exp3/report.html changed while it was copied; copying it again" in output
    assert copied(tmp_path / "here")["report.html"] == FILES["report.html"]


def test_a_connection_that_always_breaks_ends_with_one_line_and_leaves_what_is_here(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    server.api.exec_cuts = [0] * 100
    with pytest.raises(RunFailure, match="keeps breaking"):
        collect(cluster, "exp3", print, to=tmp_path / "here")


def test_a_local_run_is_not_written_over(volume: Path, cluster: Cluster, tmp_path: Path) -> None:
    mine = tmp_path / "here" / "exp3" / "metrics.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    with pytest.raises(UserError, match="was not collected from a cluster"):
        collect(cluster, "exp3", print, to=tmp_path / "here")
    assert mine.read_text() == "mine\n"


@pytest.mark.parametrize(
    "path",
    ["../etc/passwd", "/etc/passwd", "exp3/../../x", "top-level", "exp3/a\x1b[2J", "exp3/a\nb", "exp3\\..\\x", ""],
)
def test_names_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(UserError, match="not safe to write here"):
        refuse_odd(File(path, 1, "0"))


def test_links_in_the_volume_are_not_followed(volume: Path, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (volume / "report.md").symlink_to(tmp_path / "secret")
    (volume.parent / "linked").symlink_to(tmp_path)
    collect(cluster, "exp3", print, kind="checkpoints", to=tmp_path / "here")
    assert "report.md" not in copied(tmp_path / "here")
    assert not (tmp_path / "here" / "linked").exists()


def test_when_nothing_runs_a_restricted_pod_reads_the_claim_and_goes_again(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    server.gone("Pod", POD)
    server.job_status("openrs-exp3", "Complete")
    name, made = "openrs-exp3-collect", []

    def kubelet() -> None:
        pod = until(lambda: server.get("Pod", name))
        made.append(json.loads(json.dumps(pod)))
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "read", "state": {"running": {}}}]}

    player = threading.Thread(target=kubelet)
    player.start()
    collect(cluster, "exp3", print, to=tmp_path / "here")
    player.join()
    assert copied(tmp_path / "here") == {name: FILES[name] for name in REPORT}
    assert server.names("Pod") == []
    spec = made[0]["spec"]
    job_pod = manifest("exp3")[1]["spec"]["template"]["spec"]
    assert spec["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "openrs-exp3", "readOnly": True}}
    ]
    assert spec["securityContext"] == job_pod["securityContext"]
    assert spec["containers"][0]["securityContext"] == job_pod["containers"][0]["securityContext"]
    assert spec["tolerations"] == job_pod["tolerations"]  # a volume on the GPU node's own disk is only there
    assert spec["automountServiceAccountToken"] is False
    assert "affinity" not in spec
    assert "nvidia.com/gpu" not in str(spec["containers"])
    import kubernetes_validate

    made[0]["metadata"] = {key: made[0]["metadata"][key] for key in ("name", "labels")}
    kubernetes_validate.validate(made[0] | {"status": {}}, "1.37", strict=True)


def test_a_claim_whose_job_is_gone_wants_an_image(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    server.gone("Pod", POD)
    server.gone("Job", "openrs-exp3")
    with pytest.raises(UserError, match="with it the image's name"):
        collect(cluster, "exp3", print, to=tmp_path / "here")
    server.gone("PersistentVolumeClaim", "openrs-exp3")
    with pytest.raises(UserError, match="has no Job openrs-exp3"):
        collect(cluster, "exp3", print, to=tmp_path / "here")


def test_a_command_that_fails_in_the_pod_says_why(
    volume: Path, cluster: Cluster, tmp_path: Path, server: Emulated
) -> None:
    server.api.exec_root = tmp_path / "nowhere"
    with pytest.raises(RunFailure, match="No such file or directory"):
        collect(cluster, "exp3", print, to=tmp_path / "here")


def test_copying_a_journal_that_grows_takes_its_announced_beginning(
    volume: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module.pull

    def grow(source: Any, asked: Any) -> None:
        with (volume / "metrics.jsonl").open("ab") as journal:
            journal.write(b'{"step": 2}\n')
        whole(source, asked)

    monkeypatch.setattr(module, "pull", grow)
    collect(cluster, "exp3", print, to=tmp_path / "here")
    assert (
        hashlib.sha256(copied(tmp_path / "here")["metrics.jsonl"]).digest()
        == hashlib.sha256(FILES["metrics.jsonl"]).digest()
    )


def test_a_file_that_goes_or_is_rewritten_meanwhile(
    volume: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, once = module.pull, []

    def change(source: Any, asked: Any) -> None:
        if not once:
            once.append(1)
            (volume / "recipe.yaml").unlink()
            (volume / "report.json").write_bytes(b'{"now": "longer than before"}')
        whole(source, asked)

    monkeypatch.setattr(module, "pull", change)
    collect(cluster, "exp3", print, to=tmp_path / "here")
    here = copied(tmp_path / "here")
    assert set(here) == REPORT - {"recipe.yaml"}
    assert here["report.json"] == b'{"now": "longer than before"}'


def test_large_files_come_in_pieces(
    volume: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Emulated
) -> None:
    monkeypatch.setattr(module, "PIECE", 30_000)
    server.api.exec_cuts = [10_000_000, 20_000]
    collect(cluster, "exp3", print, to=tmp_path / "here")
    assert copied(tmp_path / "here") == {name: FILES[name] for name in REPORT}
