"""The script in the evaluation's Job, by a real sh with an openrs that only notes how it was called."""

import os
import subprocess
from pathlib import Path

import pytest
from k8s_files import (
    job,
    pod_of,
)
from waiting import until


def evaluation(folder: Path, index: int, body: str) -> subprocess.Popen[bytes]:
    """The container's script by a real sh, with an `openrs` that is `body`."""
    container = pod_of(job("evaluate"))["containers"][0]
    assert container["command"][:4] == ["tini", "-g", "--", "/bin/sh"]
    program = folder / "bin" / "openrs"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    shards = next(one["value"] for one in container["env"] if one["name"] == "SHARDS")
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SHARDS": shards,
        "JOB_COMPLETION_INDEX": str(index),
    }
    command = ["/bin/sh", *container["command"][4:], *container["args"]]
    return subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)


FAKE = """
echo "$@" >> calls
case "$*" in
  *--shard*)
    n=${*##*--shard }; d=runs/evaluate/eval/m/shards/$(echo "$n" | sed 's:/:-of-:')
    mkdir -p "$d"; echo {} > "$d/done.json";;
esac
"""


def test_every_index_draws_its_shard_and_the_last_one_merges(tmp_path: Path) -> None:
    from openrs.cli.main import parser
    from openrs.evaluation.shards import shard_from

    spec = job("evaluate")["spec"]
    for index in (0, 2, 3, 1):
        assert evaluation(tmp_path, index, FAKE).wait() == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "evaluate --merge runs/evaluate"
    assert len(calls) == spec["completions"] + 1
    shards = []
    for call in calls:
        args = parser().parse_args(call.split())
        if args.shard:
            shards.append(shard_from(args.shard))
    assert sorted(shard.number for shard in shards) == [1, 2, 3, 4]
    assert {shard.of for shard in shards} == {spec["completions"]}


@pytest.mark.parametrize("code", [2, 75, 1])
def test_the_shell_hands_the_exit_code_on_and_does_not_merge(tmp_path: Path, code: int) -> None:
    assert evaluation(tmp_path, 0, f'echo "$@" >> calls; exit {code}').wait() == code
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_sigterm_reaches_openrs_and_its_75_comes_out(tmp_path: Path) -> None:
    body = "trap 'echo stopping >> calls; exit 75' TERM; touch up; while :; do sleep 0.05; done"
    process = evaluation(tmp_path, 0, body)
    until((tmp_path / "up").exists)
    os.killpg(process.pid, 15)  # what tini -g does with the SIGTERM it gets
    assert process.wait() == 75
    assert (tmp_path / "calls").read_text() == "stopping\n"
