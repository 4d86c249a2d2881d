"""One Job a run, never two: made, found again, let go on. The name is the identity."""

import time
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from openrs.cluster import api, words
from openrs.cluster.api import (
    STARTUP_RETRY_S,
    ApiException,
    Cluster,
    Object,
    ServerUnavailable,
    ask,
    no_namespace,
    once,
)
from openrs.cluster.control import Say, remove_job, suspend
from openrs.cluster.jobs import RECIPE, JobManifests
from openrs.cluster.reading import read_job, run_of
from openrs.config.load import diff
from openrs.config.schema import Recipe
from openrs.errors import RunFailure, UserError
from openrs.run.attempt import MUTABLE_KEYS

What = Literal["made", "there", "resumed", "replaced"]


def submit(cluster: Cluster, made: JobManifests, say: Say) -> What:
    """Bring the Job into the cluster, or find that it is there.

    A finished run, and a run of that name with another recipe, are refused; one that runs is left alone; one that was
    stopped goes on; one that failed is replaced. Raises UserError, or RunFailure when the server stays away.
    """
    name = made.job["metadata"]["name"]
    found = read_job(cluster, name)
    if found is not None:
        return _again(cluster, made, found, say)
    claim(cluster, made, say)
    create(cluster, made.job, say)
    say(f"Job {name} is made in namespace {cluster.namespace}")
    return "made"


def claim(cluster: Cluster, made: JobManifests, say: Say) -> None:
    """Make the claim unless it is there: a run's data outlive its Jobs."""
    if made.claim is None:
        return
    try:
        create(cluster, made.claim, say)
        say(f"claim {made.claim['metadata']['name']} is made")
    except ApiException as error:
        if error.status != 409:
            raise
        say(f"claim {made.claim['metadata']['name']} is there, and kept")


def create(cluster: Cluster, thing: Object, say: Say, patience: float = 10 * STARTUP_RETRY_S) -> Object:
    """Make one object, strictly validated. An answer that gets lost is no doubt: the same name cannot be made twice, so
    the next try tells whether the first one worked. Raises ApiException 409 for one that others made before.
    """
    kind, name = thing["kind"], thing["metadata"]["name"]
    call, read = {
        "Job": (cluster.batch.create_namespaced_job, cluster.batch.read_namespaced_job),
        "Pod": (cluster.core.create_namespaced_pod, cluster.core.read_namespaced_pod),
        "PersistentVolumeClaim": (
            cluster.core.create_namespaced_persistent_volume_claim,
            cluster.core.read_namespaced_persistent_volume_claim,
        ),
    }[kind]
    what = f"create {kind} {name}"
    options = {"field_validation": "Strict", "field_manager": "openrs"}
    begin, pause, lost = time.monotonic(), api.FIRST, ""
    while True:
        try:
            return once(call, cluster.namespace, thing, what=what, **options)
        except ApiException as error:
            if error.status == 409 and lost:  # a try whose answer we never got had worked
                return ask(read, name, cluster.namespace, what=f"get {kind} {name}", say=say)
            raise no_namespace(error, cluster.namespace) or error from None
        except ServerUnavailable as away:
            lost, waited = away.why, time.monotonic() - begin
            if waited + pause > patience:
                raise RunFailure(
                    f"nobody knows whether {kind} {name} was made: the API server stopped answering ({lost})",
                    fix="give the same command again: it makes the Job if it is not there, and never a second one",
                ) from None
            if pause == api.FIRST:
                say(f"the API server does not answer ({lost}); asking again")
            time.sleep(away.after or pause)
            pause = min(2 * pause, api.LONGEST)


# --- the same run again -----------------------------------------------------------------------------------------------


def _again(cluster: Cluster, made: JobManifests, found: Object, say: Say) -> What:
    name = found["metadata"]["name"]
    run = run_of(found)
    changes = changed(found, made.job)
    serious = [change for change in changes if change[0] not in MUTABLE_KEYS]
    state = words.job_state(found)
    if serious:
        told = "\n".join(f"    {key}: {was} -> {now}" for key, was, now in serious)
        raise UserError(
            f"Job {name} was made with another recipe:\n{told}",
            "going on would mix two experiments in one run",
            f"give another --run, or take it away first: openrs cluster delete {run}",
        )
    if found["metadata"].get("deletionTimestamp"):
        raise UserError(f"Job {name} is being deleted", fix="give the command again when it is gone")
    if state == "complete":
        raise UserError(
            f"Job {name} is done",
            fix=f"openrs cluster collect {run} brings its results; for another run give another --run",
        )
    if state == "stopping":
        raise UserError(f"Job {name} is being stopped", fix=f"wait for its checkpoint: openrs cluster status {run}")
    if state in {"running", "waiting", "queued"}:
        if changes:
            raise UserError(
                f"Job {name} runs, with {', '.join(f'{key} = {was}' for key, was, _ in changes)}",
                "a Job's settings cannot change while it runs",
                f"openrs cluster stop {run}, then give this command again",
            )
        say(f"Job {name} is there already ({state}): nothing is made twice")
        return "there"
    if state == "stopped" and not changes and _same_pods(found, made.job):
        suspend(cluster, found, suspended=False)
        say(f"Job {name} was stopped: it goes on from its last checkpoint")
        return "resumed"
    why = words.why_failed(found) if state == "failed" else "stopped, and now something differs"
    say(f"Job {name} is taken away and made anew ({why}). The claim stays: the run goes on from its last checkpoint")
    remove_job(cluster, name, say)
    claim(cluster, made, say)
    create(cluster, made.job, say)
    return "replaced"


def changed(found: Object, wanted: Object) -> list[tuple[str, Any, Any]]:
    """Settings in which the Job there and the wanted one differ: by their recipes, or, for a Job that kubectl made from
    k8s/, by its command."""
    before = recipe_in(found)
    after = recipe_in(wanted)
    if before is not None and after is not None:
        return diff(before, after)
    was, now = (_main(job).get("args", []) for job in (found, wanted))
    return [] if was == now else [("command", " ".join(was), " ".join(now))]


def recipe_in(job: Object) -> Recipe | None:
    """The resolved recipe that a Job carries; None for one made by kubectl, or by another openrs."""
    text = (job["metadata"].get("annotations") or {}).get(RECIPE)
    try:
        return None if text is None else Recipe.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError):
        return None


def _main(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]["containers"][0]
    return found


def _same_pods(found: Object, wanted: Object) -> bool:
    """Whether the Pods would be the same but for what the server fills in."""
    return _within(wanted["spec"]["template"]["spec"], found["spec"]["template"]["spec"])


def _within(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole`, too."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(_within(value, whole.get(key)) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)
