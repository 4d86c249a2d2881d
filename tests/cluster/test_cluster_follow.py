"""Following a Job: phases, reasons, logs and the end, over dropped watches, new Pods and a server that goes away."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from emulator import IMAGE, Emulated
from waiting import until

from openrs.cluster import api, watch
from openrs.cluster import follow as module
from openrs.cluster.api import Cluster
from openrs.cluster.follow import End, conclude, follow
from openrs.cluster.jobs import JobRequest, build_manifests
from openrs.cluster.reading import need_job
from openrs.cluster.screen import Screen
from openrs.cluster.submit import submit
from openrs.cluster.watch import OutageNotifier, watched
from openrs.config.load import load
from openrs.errors import Interrupted, RunFailure, UserError

pytestmark = pytest.mark.slow

NAME, POD = "openrs-exp3", "openrs-exp3-abcde"
RUNNING: dict[str, Any] = {"running": {}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0}}


class Followed:
    """A follow in a thread of its own, and what it has said so far."""

    def __init__(self, cluster: Cluster, tail: int | None = None) -> None:
        self._stream = io.StringIO()
        self.error: BaseException | None = None
        self.end: End | None = None
        job = need_job(cluster, "exp3")

        def work() -> None:
            try:
                self.end = follow(cluster, job, Screen(self._stream), tail=tail)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def until(self, words: str) -> None:
        until(lambda: words in self.text or not self._thread.is_alive())
        assert words in self.text, f"never printed {words!r}, but:\n{self.text}\n{self.error!r}"

    def finish(self) -> End:
        self._thread.join()
        assert self.end is not None, f"{self.error!r}\n{self.text}"
        return self.end


@pytest.fixture
def job(server: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    monkeypatch.setattr(module, "DRAIN", 3.0)
    submit(cluster, build_manifests(JobRequest(load("exp3"), "exp3", image=IMAGE)), print)
    return server


@contextmanager
def running(server: Emulated, cluster: Cluster, **how: Any) -> Iterator[Followed]:
    """A Job whose trainer runs, followed."""
    server.pod(POD, NAME, "Running", {"fetch": DONE, "nccl": DONE, "train": RUNNING}, node="gpu-1")
    server.job_status(NAME, active=1, ready=1)
    followed = Followed(cluster, **how)
    followed.until("train runs on gpu-1")
    yield followed


def complete(server: Emulated, pod: str = POD) -> None:
    server.pod(pod, NAME, "Succeeded", {"fetch": DONE, "nccl": DONE, "train": DONE}, node="gpu-1")
    server.job_status(NAME, "Complete")


def test_a_whole_job_in_plain_words(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    job.pod(POD, NAME)
    followed.until(f"Pod {POD} waits for a node")
    job.event(POD, "Pod", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: x.")
    followed.until("0 of 3 nodes can take the Pod: 3 with too few free GPUs")
    job.event("somebody-else", "Pod", "FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu.")
    job.pod(POD, NAME, node="gpu-1")
    followed.until("is scheduled on gpu-1")
    job.log(POD, "fetch", "all of it is in /data/cache")
    job.pod(POD, NAME, "Pending", {"fetch": RUNNING}, node="gpu-1")
    followed.until("fetch runs on gpu-1")
    job.pod(POD, NAME, "Running", {"fetch": DONE, "nccl": DONE, "train": RUNNING}, node="gpu-1")
    job.log(POD, "train", "step 1/500  reward 0.1  60.0 s each, 8 h 19 min left")
    followed.until("step 1/500")
    job.log(POD, "train", "report: runs/exp3/report.html")
    complete(job)
    assert followed.finish().state == "complete"
    assert "[fetch] all of it is in /data/cache" in followed.text
    assert "report: runs/exp3/report.html" in followed.text
    assert "too little free CPU" not in followed.text  # not ours
    assert (
        followed.text.index("waits for a node")
        < followed.text.index("3 with too few")
        < followed.text.index("step 1/500")
    )


def test_a_refused_run_ends_with_exit_code_2_and_its_last_words(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    words = "openrs reproduce: there is no recipe called exp9\n  fix: did you mean exp3?"
    state = {"terminated": {"exitCode": 2, "reason": "Error", "message": words}}
    job.pod(POD, NAME, "Failed", {"fetch": DONE, "nccl": DONE, "train": state}, node="gpu-1")
    job.job_status(NAME, "Failed", "PodFailurePolicy", "Container train for pod openrs/x failed with exit code 2")
    end = followed.finish()
    assert (end.state, end.code) == ("failed", 2)
    assert "a retry could not help" in end.text
    assert "| openrs reproduce: there is no recipe called exp9" in end.text
    with pytest.raises(UserError) as error:
        conclude(end)
    assert error.value.exit_code == 2


def test_any_other_failure_ends_with_exit_code_1(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    job.pod(POD, NAME, "Failed", {"fetch": DONE, "nccl": DONE, "train": state}, node="gpu-1")
    job.job_status(NAME, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    end = followed.finish()
    assert "exceeding its memory limit" in followed.text
    assert "exceeding its memory limit" in end.text
    with pytest.raises(RunFailure) as error:
        conclude(end)
    assert error.value.exit_code == 1


def test_a_stopped_and_a_deleted_job_are_said_to_be_so(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    stopped = job.get("Job", NAME)
    assert stopped is not None
    stopped["spec"]["suspend"] = True
    job.put(stopped)
    end = followed.finish()
    assert end.state == "stopped"
    with pytest.raises(Interrupted, match="resumes it"):
        conclude(end)
    stopped["spec"]["suspend"] = False
    job.put(stopped)
    followed = Followed(cluster)
    until(lambda: [params for params in job.asked("GET", "/jobs") if "watch" in params][1:])
    job.gone("Job", NAME)
    assert "its claim still exists" in followed.finish().text


def test_a_job_that_goes_before_we_look_is_said_to_be_gone(job: Emulated, cluster: Cluster) -> None:
    there = need_job(cluster, "exp3")
    job.gone("Job", NAME)
    assert follow(cluster, there, Screen(io.StringIO())).state == "deleted"


def test_a_job_in_kueues_queue_is_waited_for(job: Emulated, cluster: Cluster) -> None:
    queued = job.get("Job", NAME)
    assert queued is not None
    queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    queued["spec"]["suspend"] = True
    job.put(queued)
    followed = Followed(cluster)
    followed.until("waits in Kueue's queue gpus")
    queued["spec"]["suspend"] = False
    job.put(queued)
    complete(job)
    assert followed.finish().state == "complete"


def test_a_replaced_pod_goes_on_in_the_same_log(job: Emulated, cluster: Cluster) -> None:
    with running(job, cluster) as followed:
        job.log(POD, "train", "step 50/500", "SIGTERM: finishing this step")
        followed.until("SIGTERM: finishing")
        evicted = {"terminated": {"exitCode": 75}}
        conditions = [{"type": "DisruptionTarget", "status": "True"}]
        job.pod(POD, NAME, "Failed", {"train": evicted}, node="gpu-1", conditions=conditions)
        followed.until("exit code 75: interrupted with a checkpoint")
        assert "drained, preempted or evicted" in followed.text
        job.gone("Pod", POD)
        job.pod("openrs-exp3-fghij", NAME, "Running", {"fetch": DONE, "nccl": DONE, "train": RUNNING}, node="gpu-2")
        job.log("openrs-exp3-fghij", "train", "resuming from the checkpoint of step 50", "step 51/500")
        followed.until("step 51/500")
        complete(job, "openrs-exp3-fghij")
        assert followed.finish().state == "complete"


def test_the_same_event_is_one_line_with_a_count(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    for number in range(12):
        name = f"openrs-exp3-{'bcdfghjklmnp'[number]}cdfg"
        message = f'Error creating: pods "{name}" is forbidden: exceeded quota: openrs'
        job.event(NAME, "Job", "FailedCreate", message)
    followed.until("(10 times so far)")
    complete(job)
    followed.finish()
    assert followed.text.count("exceeded quota") == 2


def test_an_image_that_cannot_be_pulled_is_one_line_and_an_end(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = Followed(cluster)
    job.log(POD, "fetch")

    def waits(reason: str) -> None:
        job.pod(POD, NAME, "Pending", {"fetch": {"waiting": {"reason": reason, "message": "not found"}}}, node="gpu-1")
        job.event(POD, "Pod", "Failed", f"Error: {reason}")

    for _ in range(3):
        waits("ErrImagePull")
        waits("ImagePullBackOff")
    followed.until("the image cannot be pulled: not found")
    monkeypatch.setattr(module, "IMAGE_RETRY_S", 0.0)
    waits("ErrImagePull")
    until(lambda: followed.error)
    assert isinstance(followed.error, UserError)
    assert "--pull-secret" in followed.error.fix
    assert followed.text.count("cannot be pulled") == 1
    assert "ImagePullBackOff" not in followed.text


def test_one_pod_without_its_image_does_not_end_the_others(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGE_RETRY_S", 0.0)
    gone, run = {"fetch": {"waiting": {"reason": "ErrImagePull"}}}, {"fetch": DONE, "nccl": DONE, "train": RUNNING}
    with running(job, cluster) as followed:
        for n in range(2, 5):
            job.pod("openrs-exp3-fghjk", NAME, "Pending", gone, node="gpu-9")
            job.pod(POD, NAME, "Running", run, node=f"gpu-{n}")
        followed.until("train runs on gpu-4")
        assert followed.error is None
        assert followed.text.count("cannot be pulled") == 1
        complete(job)
        assert followed.finish().state == "complete"


def test_a_name_that_is_no_image_ends_at_once(job: Emulated, cluster: Cluster) -> None:
    followed = Followed(cluster)
    job.pod(POD, NAME, "Pending", {"fetch": {"waiting": {"reason": "InvalidImageName"}}}, node="gpu-1")
    until(lambda: followed.error)
    assert "this is not a valid image name" in str(followed.error)


# --- what breaks in between -------------------------------------------------------------------------------------------


def test_every_line_comes_once_over_many_broken_connections(job: Emulated, cluster: Cluster) -> None:
    """Two lines to a moment, and the connection breaks anywhere, also between the two."""
    with running(job, cluster) as followed:
        for number in range(40):
            job.log(POD, "train", f"line-{number:02d}!")
            if number % 3 == 0:
                followed.until(f"line-{number:02d}!")
                job.cut()
        followed.until("line-39!")
        complete(job)
        followed.finish()
    seen = [word for word in followed.text.split() if word.startswith("line-")]
    assert seen == [f"line-{number:02d}!" for number in range(40)]


@pytest.mark.parametrize("code", [None, 429, 500, 503])
def test_a_dropped_watch_loses_nothing(job: Emulated, cluster: Cluster, code: int | None) -> None:
    with running(job, cluster) as followed:
        job.fault(code, 6)
        job.cut()
        complete(job)  # while nobody watches
        assert followed.finish().state == "complete"


def test_410_gone_lists_again_and_tells_what_changed_meanwhile(job: Emulated, cluster: Cluster) -> None:
    with running(job, cluster) as followed:
        listed = len(job.asked("GET", "/pods"))
        job.gone("Pod", POD)
        job.forget()  # versions so far are too old, and open watches break
        followed.until(f"Pod {POD} is deleted")
        assert len(job.asked("GET", "/pods")) > listed
        job.job_status(NAME, "Complete")
        assert followed.finish().state == "complete"


def test_a_watch_goes_on_at_the_last_version(job: Emulated, cluster: Cluster) -> None:
    def watched() -> list[dict[str, str]]:
        return [params for params in job.asked("GET", "/jobs") if "watch" in params]

    with running(job, cluster) as followed:
        until(watched)
        job.cut()
        until(lambda: len(watched()) >= 2)
        job.pod(POD, NAME, "Running", {"train": RUNNING}, node="gpu-7")
        followed.until("gpu-7")
        complete(job)
        followed.finish()
    watches = watched()
    lists = [params for params in job.asked("GET", "/jobs") if "watch" not in params and params]
    assert len(watches) >= 2
    assert len(lists) == 1
    assert all(params["allowWatchBookmarks"] in {"true", "True"} for params in watches)


def test_a_server_that_vanishes_is_waited_for_and_said_once(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WORRY", 0.2)
    with running(job, cluster) as followed:
        away = job.fault(None, math.inf)
        job.cut()
        job.log(POD, "train", "printed while the server was away")
        followed.until("does not respond")
        monkeypatch.setattr(watch, "WORRY", math.inf)  # a slow machine is no second outage
        away.end()
        followed.until("responds again")
        followed.until("printed while the server was away")
        complete(job)
        assert followed.finish().state == "complete"
    assert followed.text.count("the API server does not respond") == 1
    assert "The Job is not affected" in followed.text


def test_patience_has_an_end_and_the_job_is_left_alone(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "FOLLOW_RETRY_S", 0.5)
    with running(job, cluster) as followed:
        job.fault(None, math.inf)
        job.cut()
        until(lambda: followed.error)
    assert isinstance(followed.error, RunFailure)
    assert "did not respond for" in str(followed.error)
    assert "a running Job is not affected" in str(followed.error)


FORBIDDEN = 'pods is forbidden: User "someone" cannot watch resource "pods" in API group "" in the namespace "openrs"'


@pytest.mark.parametrize("path", ["/jobs", "/pods", "/events", "/log", ""])
@pytest.mark.parametrize("code", [401, 403])
def test_what_was_allowed_before_is_waited_for_when_a_server_comes_back(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, code: int, path: str
) -> None:
    """Its first answers are refusals: its roles are not loaded yet."""
    monkeypatch.setattr(watch, "WORRY", 0.1)
    with running(job, cluster) as followed:
        job.log(POD, "train", "before")
        followed.until("before")
        away = job.fault(None, 2, path=path)
        starting = job.fault(code, math.inf, path=path, message=FORBIDDEN)
        job.cut()
        followed.until("; retrying. The Job is not affected")
        until(lambda: starting.hits > 4 or followed.error)
        assert away.hits == 2
        job.log(POD, "train", "meanwhile")
        starting.end()
        followed.until("responds again")
        followed.until("meanwhile")
        complete(job)
        assert followed.finish().state == "complete"
    assert "-- not allowed to" not in followed.text


def test_a_token_that_expires_in_the_middle_ends_with_one_line(
    job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "DENIED_RETRY_S", 0.3)
    with running(job, cluster) as followed:
        job.fault(401, math.inf)
        job.cut()
        until(lambda: followed.error)
    assert isinstance(followed.error, UserError)
    assert "log in again" in str(followed.error)


def test_events_and_logs_that_we_may_not_read_are_done_without(job: Emulated, cluster: Cluster) -> None:
    message = 'events is forbidden: User "someone" cannot list resource "events"'
    job.fault(403, 99, path="/events", message=message)
    job.fault(403, 99, path="/log", message='pods/log is forbidden: User "someone" cannot get resource "pods/log"')
    with running(job, cluster) as followed:
        followed.until("not allowed to list events")
        followed.until('cannot get resource "pods/log"')
        complete(job)
        assert followed.finish().state == "complete"


def test_half_a_line_of_a_watch_is_no_change() -> None:
    class Answer:
        def __init__(self, *pieces: bytes) -> None:
            self._pieces = pieces

        def stream(self, **_: Any) -> Iterator[bytes]:
            yield from self._pieces

        def close(self) -> None: ...

        def release_conn(self) -> None: ...

    class Body:
        data = b'{"metadata": {"resourceVersion": "5"}, "items": []}'

        def release_conn(self) -> None: ...

    stop = threading.Event()
    answers: list[Any] = [
        Body(),
        Answer(b'{"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "6"}}}\n{"type": "MOD'),
        Answer(b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}\n'),
        Answer(b'{"type": "ERROR", "object": {"code": 410, "message": "old"}}\n'),
        Body(),
    ]
    asked: list[dict[str, Any]] = []

    def listing(*_: Any, **options: Any) -> Any:
        asked.append(options)
        if len(asked) == len(answers):
            stop.set()
        return answers[len(asked) - 1] if len(asked) <= len(answers) else Answer()

    seen = list(watched(listing, "openrs", stop, OutageNotifier(print), what="things"))
    assert [(kind, thing["metadata"]["name"]) for kind, thing in seen if kind != "LISTED"] == [
        ("ADDED", "a"),
        ("DELETED", "a"),
    ]
    assert [options.get("resource_version") for options in asked][:5] == [None, "5", "6", "9", None]


def test_ctrl_c_leaves_the_job_and_says_so(job: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Follower, "_see", pressed)
    with pytest.raises(Interrupted) as left:
        follow(cluster, need_job(cluster, "exp3"), Screen(io.StringIO()))
    assert "keeps running" in str(left.value)
    assert "openrs cluster stop exp3" in str(left.value)
    there = job.get("Job", NAME)
    assert there is not None
    assert "suspend" not in there["spec"]
    assert job.asked("DELETE") == job.asked("PATCH") == []
