"""Dockerfile, compose file and their scripts without an engine; docs/docker.md's promises that need none."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hang_limits import read_stats, tree_of
from waiting import until

from openrs import __version__

ROOT = Path(__file__).parents[1]
UNTIL_DONE = ROOT / "docker" / "until-done"


def tool(name: str) -> str:
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{name} is not installed: ./scripts/setup --dev")
    return str(path)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_hadolint_has_nothing_to_say() -> None:
    subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], check=True)


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say_about_the_images_scripts() -> None:
    scripts = [path for path in (ROOT / "docker").iterdir() if path.suffix != ".py"]
    scripts += [ROOT / "scripts" / "image", ROOT / "scripts" / "reproduce", ROOT / "scripts" / "lib" / "container.sh"]
    assert len(scripts) == 9
    subprocess.run([tool("shellcheck"), "-x", *scripts], check=True, cwd=ROOT)


@pytest.mark.slow
def test_the_compose_file_is_one() -> None:
    subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"], check=True
    )


def test_compose_takes_every_profile() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode if shutil.which(
        "docker") else True:  # fmt: skip
        pytest.skip("docker compose is not installed")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENRS_", "HF_", "COMPOSE_"))
    }
    for profile in ("", "*", *services()):
        for extra in ([], ["--env-file", ".env.example"]):
            words = ["docker", "compose", *extra, *(["--profile", profile] if profile else []), "config", "-q"]
            done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), words


def test_nothing_starts_unasked_and_only_fetch_has_network_and_token() -> None:
    found = services()
    assert found.keys() >= {"fetch", "train", "evaluate", "report", "reproduce", "demo", "tensorboard", "shell"}
    for name, service in found.items():
        needs_fetch = name in {"train", "evaluate", "reproduce"}
        assert service["profiles"] == ["fetch", "train", "evaluate", "reproduce"] if name == "fetch" else [name]
        assert service.get("depends_on") == (
            {"fetch": {"condition": "service_completed_successfully"}} if needs_fetch else None
        )
        assert service["entrypoint"][:3] == [
            "as-owner",
            "tini",
            "--",
        ]  # not the other way: root without its rights signals no one
        assert service["user"] == "${OPENRS_UID:-0}:${OPENRS_GID:-0}"
        assert service["cap_add"] == ["SETUID", "SETGID", "SETPCAP"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "no"
        assert ("HF_TOKEN" in service["environment"]) == (name == "fetch")
        assert (service.get("network_mode") == "none") == (name not in {"fetch", "tensorboard"})
    gpus = {name for name, service in found.items() if "deploy" in service}
    assert gpus == {"train", "evaluate", "reproduce", "doctor"}


def test_env_example_tells_every_variable_with_its_default() -> None:
    """Each variable that compose asks for, and no other; what is written there is the compose file's default."""
    compose = (ROOT / "docker-compose.yml").read_text()
    asked = dict(re.findall(r"\$\{([A-Z_]+):-((?:[^{}]|\$\{[^}]*\})*)\}", compose))
    asked |= dict.fromkeys(re.findall(r"^ +([A-Z_]+):(?: #.*)?$", compose, re.MULTILINE), "")  # taken over as they are
    told = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert told.keys() == asked.keys() | {"RECIPE", "OPENRS_LOCK"}
    for name, default in asked.items():
        if default and "${" not in default and name not in {"OPENRS_IMAGE", "OPENRS_LOCK"}:
            assert told[name] == default, name


def test_image_and_manifests_agree_on_user_places_and_entry_point() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "USER 10001:10001" in dockerfile
    assert 'ENTRYPOINT ["tini", "--", "openrs"]' in dockerfile
    for job in sorted((ROOT / "k8s" / "base").glob("*/job.yaml")):
        spec = list(yaml.safe_load_all(job.read_text()))[-1]["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsUser"] == 10001
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            environment = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert environment["HF_HOME"] == "/data/cache/huggingface"
            assert environment["HOME"] == "/tmp"
            assert container["workingDir"] == "/data"
            assert container.get("command", ["tini"])[0] == "tini"
    assert "HF_HOME=/data/cache/huggingface" in dockerfile
    assert "HOME=/tmp" in dockerfile


def test_bases_are_pinned_by_digest_and_no_frontend_is_fetched() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "\n# syntax=" not in "\n" + text
    bases = re.findall(r"^ARG (?:PAPER_)?BASE=(.+)$", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"nvidia/cuda:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    known = {"${BASE}", "${PAPER_BASE}", "scratch"}
    for base, name in stages:
        assert base in known
        known.add(name)
    assert stages[-1][1] == "openrs"  # what `docker build .` makes


@pytest.mark.parametrize("words", [[], ["exp1"], ["exp2", "--until", "released", "--run", "mine"]])
def test_reproduce_prints_every_command(words: list[str], tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENRS_", "GPUS"))}
    done = subprocess.run(
        [ROOT / "scripts" / "reproduce", "--dry-run", *words], env={**environment, "OPENRS_LOCK": "cuda"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    recipe, run = (words or ["exp3"])[0], "mine" if "mine" in words else (words or ["exp3"])[0]
    assert done.stdout.splitlines() == [
        "+ look: docker with compose and buildx, 4 GPUs, driver 580 or newer, nvidia-container-toolkit",
        "+ write .env and make the folder of the runs, where they are not there",
        "+ ./scripts/image cuda",
        "+ export OPENRS_IMAGE_DIGEST=(the id of openrs:cuda)",
        f"+ docker compose run --rm -T -e HF_HUB_OFFLINE=0 doctor {recipe} --quick",
        f"+ docker compose run --rm -T fetch {recipe}",
        f"+ docker compose run --rm -T doctor {recipe} --run {run}",
        f"+ docker compose run --rm -T doctor nccl {recipe} --run {run}",
        "+ " + " ".join(["docker compose run --rm -T reproduce", recipe, *words[1:]]),
        f"report: ./runs/{run}/report.html",
    ]
    assert done.stderr == ""


# --- until-done -------------------------------------------------------------------------------------------------------


def until_done(script: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [UNTIL_DONE, "sh", "-c", script], env={**os.environ, "OPENRS_RESTART_PAUSE": "0", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("code", [0, 1, 2, 3, 74, 76, 127, 130, 137, 143])
def test_other_codes_than_75_are_handed_on_at_once(code: int) -> None:
    assert until_done(f"echo once; exit {code}") == (code, "once\n")


def test_75_runs_again_until_it_is_done(tmp_path: Path) -> None:
    count = f'echo x >>{tmp_path}/n; test "$(wc -l <{tmp_path}/n)" -ge 4 || exit 75; echo done'
    assert until_done(count) == (0, "done\n")
    assert (tmp_path / "n").read_text() == "x\n" * 4
    assert until_done("echo again; exit 75", OPENRS_RESTARTS="2") == (75, "again\n" * 3)


@pytest.mark.slow
def test_it_waits_for_a_child_that_takes_its_time_and_hands_on_its_code() -> None:
    script = "trap 'sleep 0.5; echo saved; exit 75' TERM; echo up; while :; do sleep 0.05; done"
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([UNTIL_DONE, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        output, _ = process.communicate()
        assert (process.returncode, output) == (75, "saved\n")  # and not started again


def test_a_stop_in_the_pause_ends_it() -> None:
    process = subprocess.Popen(
        [UNTIL_DONE, "sh", "-c", "echo up; exit 75"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OPENRS_RESTART_PAUSE": "600"},
    )  # fmt: skip
    assert process.stderr is not None
    assert "resuming in 600 s" in process.stderr.readline()
    until(lambda: "sleep" in [child.name for child in tree_of(process.pid, read_stats(Path("/proc")))])
    process.terminate()
    assert process.wait() == 75


def test_the_build_context_has_no_run_no_data_and_no_secret() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {"Dockerfile", "LICENSE", "README.md", "pyproject.toml", "docker", "k8s", "locks", "openrs",
                       "scripts/lib/after_install.py"}  # fmt: skip
    packaged = json.dumps(sorted(path.name for path in (ROOT / "docker").iterdir()))
    assert packaged == '["as-owner", "compile", "install-lock", "project", "provenance.py", "same-times", "until-done"]'


def test_the_image_s_version_is_the_package_s() -> None:
    line = next(row for row in (ROOT / "scripts" / "image").read_text().splitlines() if row.startswith("version="))
    asked = subprocess.run(
        ["bash", "-c", f'{line}; echo "$version"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == __version__
