"""In a clone where nothing was written first, as a user whose id is neither 0 nor 1000: the image is built, what is
missing is fetched, once, and what stands in runs/ is the user's."""

import json
import shutil
from typing import Any

import pytest
from conftest import Clone, docker
from test_compose import SHORT, complete_checkpoints, steps

pytestmark = [pytest.mark.docker, pytest.mark.limits(silence=1800)]

OWN = """\
extends: ../runs/short.yaml
data: {source: data/sums.jsonl}
"""


@pytest.fixture(scope="module")
def bare(clone: Clone) -> Clone:
    """The clone without .env, and the engine without the image."""
    (clone.path / ".env").unlink(missing_ok=True)
    docker("image", "rm", "--force", "openrs:cpu", check=False)
    return clone


def owners(clone: Clone, run: str) -> set[int]:
    return {path.stat().st_uid for path in [clone.runs / run, *(clone.runs / run).rglob("*")]}


def fetch_log(clone: Clone) -> str:
    return clone.sh("docker compose logs --no-log-prefix fetch").output


def test_up_demo_builds_and_runs_and_leaves_its_users_files(bare: Clone) -> None:
    ended = bare.sh("docker compose up demo")
    assert (ended.code, bare.exit_code("demo")) == (0, 0), ended.output[-3000:]
    assert "report: runs/demo/report.html" in ended.output
    assert owners(bare, "demo") == {bare.user}
    assert not (bare.path / ".env").exists()
    assert bare.sh("git status --porcelain").output == ""  # what stands in runs/ and data/ is ignored
    shutil.rmtree(bare.runs / "demo")


def test_a_container_has_no_rights_when_the_command_starts(bare: Clone) -> None:
    ended = bare.sh("docker compose run --rm -T --entrypoint 'as-owner cat /proc/self/status' report")
    assert ended.code == 0, ended.output
    facts = dict(line.split(":\t", 1) for line in ended.output.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(bare.user)] * 4
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Groups"].strip()) == ("1", "")
    roots = bare.path / "roots"
    roots.mkdir()
    ended = bare.sh(
        "docker compose run --rm -T --entrypoint 'as-owner cat /proc/self/status' report", OPENRS_RUNS="./roots"
    )
    facts = dict(line.split(":\t", 1) for line in ended.output.splitlines() if ":\t" in line)
    assert (facts["Uid"].split()[0], facts["CapEff"], facts["CapBnd"]) == ("0", "0" * 16, "0" * 16)


@pytest.mark.parametrize("recipe", ["exp3", "exp1"])
def test_up_fetches_once_what_the_recipe_needs(bare: Clone, hub: Any, recipe: str) -> None:
    """Up to where the GPUs are missing."""
    settings = {"OPENRS_LOCK": "cpu"} | ({"RECIPE": recipe} if recipe != "exp3" else {})
    bare.sh("docker compose --profile '*' down --volumes")
    for service in ("train", "evaluate", "reproduce"):
        hub.asked.clear()
        ended = bare.sh(f"docker compose up {service}", **settings)
        print(ended.output[-1500:])
        assert bare.exit_code("fetch") == 0, fetch_log(bare)
        log, first = fetch_log(bare), service == "train"
        assert bool(hub.asked) == first
        assert ("whole and checked" if first else "checked when it was fetched") in log
        assert bare.exit_code(service) == 2
        assert recipe in ended.output


def test_own_recipes_and_own_data_train_without_a_network(bare: Clone) -> None:
    recipe = bare.recipe("short.yaml", SHORT)
    (bare.path / "data" / "own.yaml").write_text(OWN)
    rows = [{"problem": f"{n}+{n}=", "answer": str(2 * n)} for n in range(1, 40)]
    (bare.path / "data" / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offline = {"OPENRS_LOCK": "cpu", "OPENRS_FETCH_NETWORK": "none"}
    for name, run in ((recipe, "short"), ("data/own.yaml", "own")):
        ended = bare.sh("docker compose up train", RECIPE=name, **offline)
        assert bare.exit_code("train") == 0, ended.output[-3000:] + fetch_log(bare)
        assert "nothing to fetch" in fetch_log(bare)
        assert steps(bare.runs / run) == list(range(1, 11))
        assert complete_checkpoints(bare.runs / run) == ["step-000010"]
        assert owners(bare, run) == {bare.user}
        shutil.rmtree(bare.runs / run)


def test_a_fetch_that_cannot_be_done_is_said(bare: Clone) -> None:
    ended = bare.sh("docker compose up train", OPENRS_LOCK="cpu", RECIPE="exp9")
    assert ended.code != 0
    print(ended.output[-1500:])
    assert 'service "fetch" didn\'t complete successfully: exit 2' in ended.output
    assert "exp9" in fetch_log(bare)
