"""Bring a run's report, results and records from the cluster's volume to here: resumable, every file checked.

Copies out of the training's own Pod while it runs, else out of a small Pod that mounts the claim read-only for that.
What comes over the wire is not trusted: names are checked before they become paths, sizes are as announced.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from openrs.cluster import api, control, words
from openrs.cluster.api import ApiException, Away, Cluster, Object, ask
from openrs.cluster.control import Say
from openrs.cluster.jobs import DATA, PLACEHOLDER, job_name, manifest
from openrs.cluster.pods_exec import SILENCE, output
from openrs.cluster.reading import claim_of, no_job, pods, read_job
from openrs.cluster.submit import create
from openrs.errors import Failure, Refusal
from openrs.machine.plan_text import amount
from openrs.rundir import now, sha256, write_json

Kind = Literal["report", "all", "checkpoints"]

PROGRAM = Path(__file__).with_name("remote.py")
ROOT = f"{DATA}/runs"
MARK = ".collected.json"  # in a folder that collect made: it may write there again
PIECE = 8 << 20  # bytes asked for at once
TRIES = 8  # broken connections, one after another, before it gives up
START = 600.0  # seconds for the reading Pod to start: the volume moves, the image is pulled
HASHING = 3600.0  # seconds without a byte while files are hashed: a checkpoint of 26 GiB on a slow disk
READER = "read"


@dataclass(frozen=True, slots=True)
class Source:
    """A container that sees the claim, and what is copied of it."""

    cluster: Cluster
    pod: str
    container: str
    kind: Kind

    def output(self, *words: str, silence: float = SILENCE) -> Iterator[bytes]:
        """What remote.py prints for these words. Raises as pods_exec.output."""
        command = ["python3", "-c", PROGRAM.read_text(encoding="utf-8"), *words]
        return output(self.cluster, self.pod, self.container, command, silence=silence)


@dataclass(frozen=True, slots=True)
class File:
    """A file in the volume: its path below runs/, its size, and the SHA-256 of so many bytes."""

    path: str
    size: int
    sha256: str


def collect(
    cluster: Cluster, run: str, say: Say, *, kind: Kind = "report", to: Path = Path("runs"), image: str | None = None
) -> list[Path]:
    """Copy what `kind` says of every run in the claim of `run` into `to`/<name>/. Returns these folders.

    kind: report (report, scores, metrics, manifest, logs), all (and completions, samples), checkpoints (everything).
    Given again it copies what is missing or has changed. Raises Refusal, Failure.
    """
    job = read_job(cluster, job_name(run))
    with reader(cluster, run, job, image, say) as (pod, container):
        source = Source(cluster, pod, container, kind)
        found = listed(source)
        if not found:
            raise Refusal(f"the claim of {run} holds no run yet", mend=f"openrs cluster status {run} says what it does")
        folders = sorted({to / PurePosixPath(file.path).parts[0] for file in found})
        for folder in folders:
            claim_folder(folder, cluster, run)
        missing = [file for file in found if not is_here(to / file.path, file)]
        size = sum(file.size for file in missing)
        say(f"{len(found)} files, {len(found) - len(missing)} of them here already; {amount(size)} to copy")
        for number, file in enumerate(missing, 1):
            fetch(source, file, to, say)
            say(f"{number}/{len(missing)}  {file.path} ({amount(file.size)})")
    say(f"all of it is here, every file equal to its SHA-256: {', '.join(map(str, folders))}")
    return folders


def listed(source: Source, names: Sequence[str] = ()) -> list[File]:
    """The files there are, with their hashes. Raises Refusal for names that would lead out of the folder."""
    text = b"".join(again(lambda: list(source.output("list", ROOT, source.kind, *names, silence=HASHING))))
    found = []
    for line in text.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
            file = File(str(row["path"]), int(row["size"]), str(row["sha256"]))
        except (ValueError, KeyError, TypeError):
            raise Failure(f"the Pod's list of files cannot be read: {words.clean(line)[:200]}") from None
        found.append(file)
        refuse_odd(file)
    return found


def refuse_odd(file: File) -> None:
    parts = PurePosixPath(file.path).parts
    safe = len(parts) > 1 and ".." not in parts and not file.path.startswith("/") and file.path.isprintable()
    if not safe or "\\" in file.path or file.size < 0 or any(len(part) > 200 for part in parts):
        raise Refusal(f"the volume names a file that may not be written here: {words.clean(file.path)!r}")


def claim_folder(folder: Path, cluster: Cluster, run: str) -> None:
    """Make the folder ours to write in, or refuse one that something else made: a run of this machine, say."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise Refusal(
            f"{folder} is there, and was not collected from a cluster",
            "its files would be overwritten",
            "give another folder with --to",
        )
    write_json(folder / MARK, {"namespace": cluster.namespace, "job": job_name(run), "collected": now()})


def is_here(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def fetch(source: Source, file: File, to: Path, say: Say) -> None:
    """Copy one file: beside its place, on from what an earlier try left; into place when its hash is right.

    One that changed in the meantime is tried again as it is now (of a journal that only grew, the announced beginning
    is taken).
    """
    for _ in range(3):
        target = to / file.path
        part = target.with_name(f".{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        _read(source, file, part)
        if part.stat().st_size == file.size and sha256(part) == file.sha256:
            part.replace(target)
            return
        part.unlink()
        say(f"{file.path} changed while it was copied; once more")
        same = [one for one in listed(source, [PurePosixPath(file.path).parts[0]]) if one.path == file.path]
        if not same:
            return  # it is gone: a checkpoint that retention took away
        file = same[0]
    raise Failure(f"{file.path} keeps changing", mend="give the command again in a while")


def _read(source: Source, file: File, part: Path) -> None:
    """Append what is missing of a file to `part`."""
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    with part.open("ab") as out:
        done, broken = out.tell(), 0
        while done < file.size:
            length, before = min(PIECE, file.size - done), done
            try:
                for piece in source.output("read", ROOT, file.path, str(done), str(length)):
                    done += out.write(piece[: length - (done - before)])
                if done == before:  # the file is shorter now than it was
                    return
            except Away as away:
                broken = broken + 1 if done == before else 1
                if broken > TRIES:
                    raise _gave_up(away) from None
                time.sleep(min(api.FIRST * 2.0**broken, api.LONGEST))
            finally:
                out.flush()


def again(call: Callable[[], list[bytes]]) -> list[bytes]:
    """A command that may be given twice, until its whole answer came."""
    for broken in range(TRIES + 1):
        try:
            return call()
        except Away as away:
            if broken == TRIES:
                raise _gave_up(away) from None
            time.sleep(min(api.FIRST * 2.0**broken, api.LONGEST))
    raise AssertionError


def _gave_up(away: Away) -> Failure:
    return Failure(
        f"the connection to the Pod keeps breaking ({away.why})",
        mend="give the command again: what is here stays, and half a file is gone on with",
    )


# --- the Pod that is copied out of ------------------------------------------------------------------------------------


@contextmanager
def reader(cluster: Cluster, run: str, job: Object | None, image: str | None, say: Say) -> Iterator[tuple[str, str]]:
    """(Pod, container) that see the claim: the training's own where it runs, else one made for it, which goes again."""
    for pod in pods(cluster, job_name(run)) if job is not None else []:
        for state in (pod.get("status") or {}).get("containerStatuses") or []:
            if "running" in (state.get("state") or {}) and not pod["metadata"].get("deletionTimestamp"):
                say(f"copying out of {pod['metadata']['name']}, which runs")
                yield pod["metadata"]["name"], state["name"]
                return
    made = reading_pod(cluster, run, job, image)
    name = made["metadata"]["name"]
    say(f"Pod {name} mounts the claim, read-only")
    try:
        remove_pod(cluster, name)  # of an earlier collect that was killed
        create(cluster, made, say)
        wait_running(cluster, name, say)
        yield name, READER
    finally:
        remove_pod(cluster, name)


def reading_pod(cluster: Cluster, run: str, job: Object | None, image: str | None) -> Object:
    """As restricted as the Job's own Pods, which say where the volume can be mounted."""
    like = job or manifest("demo")[1]
    pod = like["spec"]["template"]["spec"]
    claim = claim_of(job) if job is not None else job_name(run)
    known = image or (pod["containers"][0]["image"] if job is not None else None)
    if known is None or known == PLACEHOLDER:
        if job is None and not _claim_there(cluster, str(claim)):
            raise no_job(cluster, run)
        raise Refusal(
            f"the Job of {run} is gone, and so is the image's name", mend="--image REGISTRY/openrs@sha256:..."
        )
    small = {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"}
    spec = {
        key: pod[key]
        for key in (
            "automountServiceAccountToken",
            "enableServiceLinks",
            "securityContext",
            "tolerations",
            "imagePullSecrets",
        )
        if key in pod
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job_name(run)}-collect",
            "labels": {"app.kubernetes.io/name": "openrs", "app.kubernetes.io/component": "collect"},
        },
        "spec": spec
        | {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 6 * 3600,  # it goes even if we are killed
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
            "containers": [
                {
                    "name": READER,
                    "image": known,
                    "command": ["sleep", "21600"],
                    "securityContext": pod["containers"][0]["securityContext"],
                    "resources": {"requests": small, "limits": small},
                    "volumeMounts": [{"name": "data", "mountPath": DATA, "readOnly": True}],
                }
            ],
        },
    }


def wait_running(cluster: Cluster, name: str, say: Say) -> None:
    end, before = time.monotonic() + START, ""
    while True:
        pod = ask(cluster.core.read_namespaced_pod, name, cluster.namespace, what=f"get Pod {name}")
        phase, now_does = (pod.get("status") or {}).get("phase"), words.pod(pod)
        if phase == "Running":
            return
        if now_does != before:
            say(f"Pod {name} {now_does}")
            before = now_does
        if phase in {"Failed", "Succeeded"} or time.monotonic() > end:
            raise Failure(f"Pod {name} does not run: {now_does}", mend=f"kubectl describe pod {name} tells more")
        time.sleep(control.POLL)


def remove_pod(cluster: Cluster, name: str) -> None:
    """Delete a Pod and wait until it is gone; nothing when there is none."""
    with contextlib.suppress(ApiException):
        call = cluster.core.delete_namespaced_pod
        ask(call, name, cluster.namespace, grace_period_seconds=1, what=f"delete Pod {name}")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            ask(cluster.core.read_namespaced_pod, name, cluster.namespace, what=f"get Pod {name}")
            time.sleep(control.POLL / 4)


def _claim_there(cluster: Cluster, name: str) -> bool:
    call = cluster.core.read_namespaced_persistent_volume_claim
    try:
        ask(call, name, cluster.namespace, what=f"get claim {name}")
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True
