"""One Job a run, never two: created, existing again, or resumed. The name is the identity."""

import time
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError

from openrs.cluster import api, words
from openrs.cluster.api import Cluster, Object, ServerUnavailable, call_api, call_once, get, no_namespace
from openrs.cluster.control import remove_job, suspend
from openrs.cluster.jobs import HASH, RECIPE, JobManifests
from openrs.cluster.reading import run_of
from openrs.cluster.watch import Say
from openrs.config.load import diff
from openrs.config.schema import Recipe
from openrs.errors import RunFailure, UserError
from openrs.run.attempt import is_mutable

CREATE_RETRY_S = 100.0  # seconds of retries before a creation is given up
What = Literal["created", "exists", "resumed", "replaced"]


def submit(cluster: Cluster, manifests: JobManifests, say: Say) -> What:
    """Create the Job, or find that it exists.

    A finished run, and a run of that name with another recipe, are refused; one that runs is left alone; one that was
    stopped is resumed; one that failed is replaced. Raises UserError, or RunFailure when the server stays unreachable.
    """
    name = manifests.job["metadata"]["name"]
    existing = get(cluster, "Job", name)
    if existing is not None:
        return _again(cluster, manifests, existing, say)
    claim(cluster, manifests, say)
    create(cluster, manifests.job, say)
    say(f"Job {name} is created in namespace {cluster.namespace}")
    return "created"


def claim(cluster: Cluster, manifests: JobManifests, say: Say) -> None:
    """Create the claim unless it exists: a run's data outlive its Jobs."""
    if manifests.claim is None:
        return
    try:
        create(cluster, manifests.claim, say)
        say(f"claim {manifests.claim['metadata']['name']} is created")
    except ApiException as error:
        if error.status != 409:
            raise
        say(f"claim {manifests.claim['metadata']['name']} exists and is kept")


def create(cluster: Cluster, thing: Object, say: Say) -> Object:
    """Create one object, strictly validated. A lost response does no harm: a name cannot be created twice, so the next
    attempt shows whether the first one worked. Raises ApiException 409 when the object existed before.
    """
    kind, name = thing["kind"], thing["metadata"]["name"]
    what = f"create {kind} {name}"
    options = {"field_validation": "Strict", "field_manager": "openrs"}
    begin, pause, lost = time.monotonic(), api.FIRST_PAUSE_S, ""
    while True:
        try:
            return call_once(cluster.method("create", kind), cluster.namespace, thing, what=what, **options)
        except ApiException as error:
            if error.status == 409 and lost:  # an attempt whose response was lost had worked
                return call_api(cluster.method("read", kind), name, cluster.namespace, what=f"get {kind} {name}")
            raise no_namespace(error, cluster.namespace) or error from None
        except ServerUnavailable as unavailable:
            lost, waited = unavailable.why, time.monotonic() - begin
            if waited + pause > CREATE_RETRY_S:
                raise RunFailure(
                    f"it is unknown whether {kind} {name} was created: the API server stopped responding ({lost})",
                    fix="run the same command again: it creates the Job if it does not exist, and never a second one",
                ) from None
            if pause == api.FIRST_PAUSE_S:
                say(f"the API server does not respond ({lost}); retrying")
            time.sleep(unavailable.after or pause)
            pause = min(2 * pause, api.LONGEST_PAUSE_S)


def _again(cluster: Cluster, manifests: JobManifests, existing: Object, say: Say) -> What:
    name = existing["metadata"]["name"]
    run = run_of(existing)
    changes = changed(existing, manifests.job)
    serious = [change for change in changes if not is_mutable(change[0])]
    state = words.job_state(existing)
    if serious:
        differences = "\n".join(f"    {key}: {was} -> {now}" for key, was, now in serious)
        other = "another recipe" if recipe_in(existing) else "other options or another file"
        raise UserError(
            f"Job {name} was created with {other}:\n{differences}",
            "resuming would mix two experiments in one run",
            "choose another --run, or delete the Job first (its claim, and what is on it, stays):"
            f" openrs cluster delete {run}",
        )
    if existing["metadata"].get("deletionTimestamp"):
        raise UserError(f"Job {name} is being deleted", fix="run the command again once it is gone")
    if state == "complete":
        raise UserError(
            f"Job {name} is complete",
            fix=f"fetch its results with openrs cluster collect {run}; for another run choose another --run",
        )
    if state == "stopping":
        raise UserError(f"Job {name} is being stopped", fix=f"wait for its checkpoint: openrs cluster status {run}")
    if state in {"running", "waiting", "queued"}:
        images = [_main(job)["image"] for job in (existing, manifests.job)]
        if images[0] != images[1]:
            changes = [*changes, ("image", *images)]
        if changes:
            raise UserError(
                f"Job {name} is running with {', '.join(f'{key} = {was}' for key, was, _ in changes)}",
                "a Job's settings cannot change while it runs",
                f"openrs cluster stop {run}, then run this command again",
            )
        say(f"Job {name} exists already ({state}); nothing is created")
        return "exists"
    same_pods = _within(manifests.job["spec"]["template"]["spec"], existing["spec"]["template"]["spec"])
    if state == "stopped" and not changes and same_pods:
        suspend(cluster, existing, suspended=False)
        say(f"Job {name} was stopped: it resumes from its last checkpoint")
        return "resumed"
    why = words.why_failed(existing) if state == "failed" else "stopped, and now its manifest differs"
    say(f"Job {name} is replaced ({why}). The claim is kept: the run resumes from its last checkpoint")
    remove_job(cluster, name, say)
    claim(cluster, manifests, say)
    create(cluster, manifests.job, say)
    return "replaced"


def changed(existing: Object, requested: Object) -> list[tuple[str, Any, Any]]:
    """Settings in which the existing and the requested Job differ: by their recipes, or, for a study's Job and one that
    kubectl created from k8s/, by command and file."""
    before = recipe_in(existing)
    after = recipe_in(requested)
    if before is not None and after is not None:
        return diff(before, after)
    was, now = (_main(job).get("args", []) for job in (existing, requested))
    found: list[tuple[str, Any, Any]] = [] if was == now else [("command", " ".join(was), " ".join(now))]
    old, new = ((job["metadata"].get("annotations") or {}).get(HASH) for job in (existing, requested))
    if before is after is None and old not in (None, new):
        found.append(("SHA-256 of the file", old, new))
    return found


def recipe_in(job: Object) -> Recipe | None:
    """The resolved recipe that a Job carries; None for one created by kubectl, or by another version of openrs."""
    text = (job["metadata"].get("annotations") or {}).get(RECIPE)
    try:
        return None if text is None else Recipe.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError):
        return None


def _main(job: Object) -> Object:
    container: Object = job["spec"]["template"]["spec"]["containers"][0]
    return container


def _within(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole`, too, where the server has filled in defaults."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(_within(value, whole.get(key)) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)
