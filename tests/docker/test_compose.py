"""The services, as a person starts them: who may do what, what is claimed, how they end, what is left on the host."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKEN, Clone, docker

pytestmark = [pytest.mark.docker, pytest.mark.limits(silence=1800)]

# Ten steps of the demo's training, on a model that nobody taught: seconds each.
SHORT = """\
extends: demo
model: {toy: {steps: 10}}
grpo: {max_steps: 10, warmup_steps: 5, save_steps: 100, max_completion_length: 8}
"""


def complete_checkpoints(run: Path) -> list[str]:
    """Names of checkpoints that openrs itself takes for complete, every byte read."""
    from openrs.run.checkpoints import find_corruption, list_complete

    return [folder.name for folder in list_complete(run / "checkpoints") if find_corruption(folder) is None]


def steps(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else []
    return [row["step"] for row in map(json.loads, lines) if "step" in row]


def attempts(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "manifest.json").read_text())["attempts"]
    return found


def test_a_stopped_training_goes_on_with_the_next_up_and_by_itself_after_75(
    image: dict[str, Any], clone: Clone
) -> None:
    recipe = clone.recipe("short.yaml", SHORT)
    run = clone.runs / "short"
    started = clone.sh("docker compose up -d train", RECIPE=recipe)
    assert started.code == 0, started.output
    while len(steps(run)) < 2:
        state = clone.container("train")["State"]
        said = clone.sh("docker compose logs train", RECIPE=recipe).output
        assert state["Running"], said
        time.sleep(0.3)
    begin = time.monotonic()
    assert clone.sh("docker compose stop train", RECIPE=recipe).code == 0  # SIGTERM
    print(f"SIGTERM to the end: {time.monotonic() - begin:.1f} s")
    state = clone.container("train")["State"]
    assert (state["ExitCode"], state["Running"], state["OOMKilled"]) == (75, False, False)
    assert [attempt["exit_code"] for attempt in attempts(run)] == [75]  # asked to stop: not started again by itself
    reached = steps(run)[-1]
    assert 2 <= reached < 10
    assert complete_checkpoints(run) == [f"step-{reached:06d}"]

    # Again, with an hour that is over at once: every attempt does one step and ends with 75. One restart is allowed.
    clone.recipe("short.yaml", SHORT + "training: {max_hours: 0.0001}\n")
    ended = clone.sh("docker compose up train", RECIPE=recipe, OPENRS_RESTARTS="1")
    assert "until-done: exit code 75: resuming in 0 s" in ended.output
    assert "until-done: interrupted again, and OPENRS_RESTARTS is used up" in ended.output
    assert clone.exit_code("train") == 75
    assert [attempt["exit_code"] for attempt in attempts(run)] == [75, 75, 75]
    assert steps(run) == list(range(1, steps(run)[-1] + 1))  # each step once
    assert steps(run)[-1] >= reached + 2

    clone.recipe("short.yaml", SHORT)
    assert clone.sh("docker compose up train", RECIPE=recipe).code == 0
    assert clone.exit_code("train") == 0
    assert steps(run) == list(range(1, 11))
    assert {path.stat().st_uid for path in run.rglob("*")} == {clone.user}

    from push_hub import PushHub

    no_xet, push = "-e HF_HUB_DISABLE_XET=1", "fetch export short --push me/tiny --tries 2"
    as_owner = "--entrypoint 'as-owner openrs'"
    with PushHub() as elsewhere:  # as docs/docker.md has it, but for Xet, which the stand-in does not speak
        pushed = clone.sh(f"docker compose run --rm {no_xet} {as_owner} {push}", HF_ENDPOINT=elsewhere.url)
    assert pushed.code == 0, pushed.output
    assert list(elsewhere.commits) == ["openrs: step-000010"]
    assert TOKEN not in pushed.output


def test_training_is_shut_in(image: dict[str, Any], clone: Clone) -> None:
    """What the engine was told; README's commands claim the GPUs and the run above trains under all of it."""
    recipe = "runs/short.yaml"
    clone.recipe("short.yaml", SHORT)
    created = clone.sh("docker compose create train fetch evaluate", RECIPE=recipe, COMPOSE_FILE="docker-compose.yml")
    assert created.code == 0, created.output
    for service in ("train", "evaluate"):
        found = clone.container(service)
        host = found["HostConfig"]
        assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
        assert sorted(cap.removeprefix("CAP_") for cap in host["CapAdd"]) == [
            "SETGID",
            "SETPCAP",
            "SETUID",
        ]  # as-owner drops them
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "no"
        assert host["ShmSize"] == 16 << 30
        assert {"Name": "memlock", "Hard": -1, "Soft": -1} in host["Ulimits"]
        assert found["Config"]["StopTimeout"] == 900
        assert [(r["Driver"], r["Count"], r["Capabilities"]) for r in host["DeviceRequests"]] == [
            ("nvidia", 4, [["gpu"]])
        ]
        assert not [entry for entry in found["Config"]["Env"] if TOKEN in entry]
        assert "HF_HUB_OFFLINE=1" in found["Config"]["Env"]
    fetch = clone.container("fetch")
    assert fetch["HostConfig"]["DeviceRequests"] is None
    assert f"HF_TOKEN={TOKEN}" in fetch["Config"]["Env"]


def test_a_missing_token_is_one_line_and_a_given_one_is_in_no_log(
    image: dict[str, Any], clone: Clone, hub: Any
) -> None:
    recipe = clone.recipe("gated.yaml", "extends: demo\nevaluation: {benchmarks: [gpqa_diamond]}\n")
    from fake_hub import Repo

    hub.repos["datasets/Idavidrein/gpqa"] = Repo({"a.csv": b"1"}, ["c" * 40], gated=True)
    refused = clone.sh("unset HF_TOKEN; sed -i '/^HF_TOKEN=/d' .env; docker compose run --rm fetch", RECIPE=recipe)
    assert refused.code == 2
    said = [line for line in refused.output.splitlines() if line.startswith("openrs fetch: ")]
    assert len(said) == 1
    assert "dataset Idavidrein/gpqa is gated" in said[0]
    assert "set HF_TOKEN to a token that may read it" in refused.output
    assert "Traceback" not in refused.output
    given = clone.sh("docker compose up fetch", RECIPE=recipe)
    assert (clone.exit_code("fetch"), TOKEN in given.output) == (0, False), given.output
    assert TOKEN not in clone.sh("docker compose logs", RECIPE=recipe).output


def test_fetch_goes_on_after_faults_and_then_finds_all_of_it(image: dict[str, Any], clone: Clone, hub: Any) -> None:
    hub.faults["model.safetensors"] += ["500", "cut", "429"]
    hub.asked.clear()
    clone.sh("docker compose --profile '*' down --volumes")
    ended = clone.sh("docker compose run --rm fetch")
    assert ended.code == 0, ended.output
    assert "DeepSeek-R1-Distill-Qwen-1.5B @ ad9f0ae: whole and checked" in ended.output
    assert hub.faults["model.safetensors"] == []  # each of them came
    again = clone.sh("docker compose run --rm fetch")
    assert again.code == 0
    assert "checked when it was fetched" in again.output
    # The volume is the trainer's too, and offline.
    listed = clone.sh("docker compose run --rm --entrypoint 'as-owner openrs' report fetch exp3 --list")
    assert listed.output.count("; fetched") == listed.output.count(" @ ") > 5, listed.output


def test_a_full_volume_is_said_in_a_few_lines(image: dict[str, Any], clone: Clone) -> None:
    volume = f"{clone.environment['COMPOSE_PROJECT_NAME']}-small"
    docker("volume", "create", "--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs",
           "--opt", f"o=size=3m,uid={clone.user},gid={clone.user}", volume)  # fmt: skip
    try:
        mount = f"docker compose run --rm -v {volume}:/data/runs/full train runs/short.yaml --run full"
        ended = clone.sh(mount)
        assert ended.code in (1, 2)
        assert "Traceback" not in ended.output
        assert "free" in ended.output
        print(ended.output)
    finally:
        clone.sh("docker compose --profile '*' down")
        docker("volume", "rm", volume, check=False)


def test_a_folder_of_runs_that_is_not_there_or_not_ours_is_said(image: dict[str, Any], clone: Clone) -> None:
    missing = clone.sh("docker compose run --rm demo", OPENRS_RUNS="./nowhere")
    assert missing.code != 0
    assert "bind source path does not exist" in missing.output
    assert not (clone.path / "nowhere").exists()
    (clone.path / "theirs").mkdir(mode=0o755, exist_ok=True)
    ended = clone.sh("docker compose run --rm demo", OPENRS_RUNS="./theirs", OPENRS_UID="54321", OPENRS_GID="54321")
    assert ended.code == 2
    assert "runs/demo cannot be written: Permission denied" in ended.output
    assert "Traceback" not in ended.output
