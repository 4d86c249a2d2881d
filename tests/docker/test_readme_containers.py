"""Every command at the head of docs/docker.md, exactly as printed, in its order, on a machine without GPUs."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Clone, Ended, docker

pytestmark = [pytest.mark.docker, pytest.mark.limits(silence=1800)]


def printed() -> list[str]:
    """The commands of the page's first block, without their comments."""
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?ms)^```sh\n(.*?)^```", text)[0].splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def refused(ended: Ended, recipe: str) -> None:
    """The doctor's one line, and nothing else of openrs's."""
    words = [line for line in ended.output.splitlines() if "openrs train: " in line]
    assert len(words) == 1
    assert f"openrs train: {recipe} needs 4 x A40, this machine has none (nvidia-smi is not installed)" in words[0]
    assert "Traceback" not in ended.output


def dry_run(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0
    assert [line.split()[-2:] for line in ended.output.splitlines() if "docker compose run" in line] == [
        ["exp3", "--quick"], ["fetch", "exp3"], ["--run", "exp3"], ["--run", "exp3"], ["reproduce", "exp3"],
    ]  # fmt: skip
    assert ended.output.splitlines()[-1] == "report: ./runs/exp3/report.html"


def no_gpus(ended: Ended, clone: Clone) -> None:
    assert ended.code == 2
    assert "exp3 needs 4 GPUs, this machine has 0" in ended.output


def image_is_built(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output[-3000:]
    assert re.search(r"(?m)^built in ", ended.output)
    assert "OPENRS_LOCK=cpu" in (clone.path / ".env").read_text()


def demo_is_done(ended: Ended, clone: Clone) -> None:
    assert (ended.code, clone.exit_code("demo")) == (0, 0), ended.output[-3000:]
    assert "report: runs/demo/report.html" in ended.output
    run = clone.runs / "demo"
    assert "<html" in (run / "report.html").read_text()
    assert {path.stat().st_uid for path in [run, *run.rglob("*")]} == {clone.user}
    manifest = json.loads((run / "manifest.json").read_text())
    assert [attempt["exit_code"] for attempt in manifest["attempts"]] == [0]
    assert re.fullmatch(r"[0-9a-f]{40}", manifest["openrs"]["commit"])  # the image has no .git: it was told
    assert clone.container("demo")["HostConfig"]["NetworkMode"] == "none"


def report_again(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output
    assert "report: runs/demo/report.html" in ended.output


def fetched(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output
    assert "checked when it was fetched" in ended.output  # by the train before


def doctor_says_no(ended: Ended, clone: Clone) -> None:
    assert ended.code == 2
    assert re.search(r"ok +/dev/shm +16.0 GiB", ended.output)
    assert "no-limits" in clone.environment["COMPOSE_FILE"] or re.search(r"ok +memlock +unlimited", ended.output)
    assert "root file system read-only" in ended.output
    assert "exp3 does not: it needs 4 x A40" in ended.output


def train_is_refused(ended: Ended, clone: Clone) -> None:
    refused(ended, "exp3")
    assert clone.exit_code("train") == 2


def exp1_is_refused(ended: Ended, clone: Clone) -> None:
    refused(ended, "exp1")
    assert clone.exit_code("train") == 2


def other_rate_is_refused(ended: Ended, clone: Clone) -> None:
    refused(ended, "exp3")
    assert ended.code == 2
    assert not (clone.runs / "lr2").exists()


def nothing_to_evaluate(ended: Ended, clone: Clone) -> None:
    assert clone.exit_code("evaluate") == 2
    assert "exp3" in ended.output
    assert "Traceback" not in ended.output


def tensorboard_answers(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:6006/data/environment") as answer:
                assert json.load(answer)["data_location"] == "/data/runs"
                return
        except OSError:
            time.sleep(0.2)


def all_is_down(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output
    project = f"label=com.docker.compose.project={clone.environment['COMPOSE_PROJECT_NAME']}"
    assert docker("ps", "--all", "--quiet", "--filter", project) == ""  # without --profile compose would leave them all
    assert docker("volume", "ls", "--quiet", "--filter", project) != ""
    assert (clone.runs / "demo" / "report.html").is_file()


def shell_has_the_checkout(ended: Ended, clone: Clone) -> None:
    assert ended.code == 0, ended.output
    assert f"/src/openrs/__init__.py {clone.user} /src" in ended.output


EXPECTED: dict[str, Callable[[Ended, Clone], None]] = {
    "./scripts/reproduce --dry-run": dry_run,
    "./scripts/reproduce": no_gpus,
    "./scripts/image": image_is_built,
    "docker compose up demo": demo_is_done,
    "docker compose run --rm report demo": report_again,
    "docker compose run --rm fetch": fetched,
    "docker compose run --rm doctor": doctor_says_no,
    "docker compose up train": train_is_refused,
    "RECIPE=exp1 docker compose up train": exp1_is_refused,
    "docker compose run --rm train exp3 --set grpo.learning_rate=2e-6 --run lr2": other_rate_is_refused,
    "docker compose up evaluate": nothing_to_evaluate,
    "docker compose up -d tensorboard": tensorboard_answers,
    "docker compose --profile '*' down": all_is_down,
    "docker compose run --rm shell": shell_has_the_checkout,
}
GPUS = {"docker compose run --rm doctor", "docker compose up train", "RECIPE=exp1 docker compose up train",
        "docker compose run --rm train exp3 --set grpo.learning_rate=2e-6 --run lr2",
        "docker compose up evaluate"}  # fmt: skip
TYPED = {
    "docker compose run --rm shell": "python -c 'import openrs, os; print(openrs.__file__, os.getuid(), os.getcwd())'\n"
}


@pytest.mark.parametrize("command", printed())
def test_the_printed_command(command: str, image: Any, clone: Clone, claims: Path) -> None:
    before = claims.read_text() if claims.is_file() else ""
    ended = clone.sh(command, given=TYPED.get(command, ""))
    print(ended.output[-1500:])
    EXPECTED[command](ended, clone)
    claimed = (claims.read_text() if claims.is_file() else "")[len(before) :].splitlines()
    assert claimed == (["NVIDIA_VISIBLE_DEVICES=0,1,2,3"] if command in GPUS else [])


def test_reproduce_goes_on_to_the_doctor_where_nvidia_smi_finds_gpus(image: Any, clone: Clone, tmp_path: Path) -> None:
    """nvidia-smi is a stand-in here; all behind it is real, up to the doctor's refusal: in the container is no GPU."""
    fake = tmp_path / "nvidia-smi"
    fake.write_text("""#!/bin/sh
case $* in
  -L) for n in 0 1 2 3; do echo "GPU $n: NVIDIA A40 (UUID: GPU-$n)"; done ;;
  *) echo 580.95.05 ;;
esac
""")
    fake.chmod(0o755)
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.symlink_to("/bin/true")
    ended = clone.sh("./scripts/reproduce", PATH=f"{tmp_path}:{clone.environment['PATH']}", OPENRS_LOCK="cpu")
    assert ended.code == 2, ended.output[-3000:]
    assert "+ docker compose run --rm -T -e HF_HUB_OFFLINE=0 doctor exp3 --quick" in ended.output
    assert "+ docker compose run --rm -T fetch exp3" not in ended.output
    assert "exp3 does not: it needs 4 x A40" in ended.output
    fake.write_text(fake.read_text().replace("580.95", "570.10"))
    old = clone.sh("./scripts/reproduce", PATH=f"{tmp_path}:{clone.environment['PATH']}")
    assert old.code == 2
    assert "NVIDIA's driver is 570.10.05, and CUDA 13 needs 580 or newer" in old.output
