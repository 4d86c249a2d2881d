"""`openrs cluster`: one function a verb; see arguments.py for what they are given."""

import argparse
import os
import sys

from openrs.cluster import collect as collecting
from openrs.cluster import control, preflight, status
from openrs.cluster.api import (
    ApiException,
    Cluster,
    Object,
    ServerUnavailable,
    connect,
    lines,
    namespace_at_hand,
    opened,
)
from openrs.cluster.follow import TAIL_LINES, conclude, follow
from openrs.cluster.jobs import PLACEHOLDER, JobManifests, JobRequest, make, to_text
from openrs.cluster.reading import need_job, pods
from openrs.cluster.screen import Screen
from openrs.cluster.submit import submit as send
from openrs.cluster.words import containers
from openrs.config.load import load
from openrs.doctor.doctor import MARKS
from openrs.doctor.finding import Finding
from openrs.errors import EXIT_DONE, UserError
from openrs.planner.render import wrapped


def run(args: argparse.Namespace) -> int:
    """Returns 0; everything else is raised: UserError (2), Failure (1), Interrupted (75)."""
    verbs = {"submit": submit, "status": show, "logs": logs, "collect": collect, "stop": stop, "delete": delete}
    verbs[args.what](args)
    return EXIT_DONE


def submit(args: argparse.Namespace) -> None:
    asked = JobRequest(
        recipe=load(args.recipe, args.overrides),
        named=args.recipe,
        overrides=args.overrides,
        run=args.run,
        image=args.image or os.environ.get("OPENRS_IMAGE") or PLACEHOLDER,
        verb="train" if args.train_only else "reproduce",
        claim=args.claim,
        storage_class=args.storage_class,
        queue=args.queue,
        products=args.products,
    )
    made = make(asked)
    if args.dry_run:
        place(made, namespace_at_hand(args.context, args.namespace))
        sys.stdout.write(to_text(made.objects))
        sys.stderr.write("".join(f"note: {note}\n" for note in made.notes))
        return
    cluster = connect(args.context, args.namespace)
    place(made, cluster.namespace)
    screen = Screen()
    for note in made.notes:
        screen.say(f"note: {note}")
    check(cluster, made, force=args.force)
    what = send(cluster, made, screen.say)
    if args.detach:
        screen.say(f"openrs cluster logs -f {asked.name} follows it")
        return
    job = need_job(cluster, asked.name)
    end = follow(cluster, job, screen, tail=TAIL_LINES if what == "there" else None)
    conclude(end)
    screen.say(end.text)


def place(made: JobManifests, namespace: str | None) -> None:
    """Into its namespace, so that what is printed and what is sent are the same."""
    if namespace is not None:
        for thing in made.objects:
            meta = thing["metadata"]
            thing["metadata"] = {"name": meta["name"], "namespace": namespace} | meta


def check(cluster: Cluster, made: JobManifests, *, force: bool) -> None:
    """Print the preflight. Raises UserError when something is missing, unless forced."""
    found = preflight.examine(cluster, made)
    sys.stdout.write("".join(f"{rendered(line)}\n" for line in found))
    sys.stdout.flush()
    failed = [line for line in found if line.state == "fail"]
    if failed and not force:
        mends = "; ".join(line.fix for line in failed if line.fix)
        raise UserError(
            f"the Job cannot run as things are: {', '.join(line.name for line in failed)}",
            fix=f"{mends or 'see above'}. (--force sends it all the same)",
        )


def rendered(line: Finding) -> str:
    needed = f"; needed: {line.needed}" if line.needed and line.state in {"fail", "warn"} else ""
    fix = f"; fix: {line.fix}" if line.fix and line.state != "ok" else ""
    return wrapped(f"{MARKS[line.state]}  {line.name:10s}  {line.found}{needed}{fix}", " " * 18)


def show(args: argparse.Namespace) -> None:
    cluster = connect(args.context, args.namespace)
    sys.stdout.write(status.of_run(cluster, args.run) if args.run else status.overview(cluster))


def logs(args: argparse.Namespace) -> None:
    cluster = connect(args.context, args.namespace)
    job = need_job(cluster, args.run)
    screen = Screen()
    if args.follow:
        end = follow(cluster, job, screen, tail=args.tail)
        conclude(end)
        screen.say(end.text)
        return
    there = pods(cluster, job["metadata"]["name"])
    if not there:
        raise UserError(f"run {args.run} has no Pod", fix=f"openrs cluster status {args.run} says why")
    for pod in there:
        print_logs(cluster, pod, screen, args.tail)


def print_logs(cluster: Cluster, pod: Object, screen: Screen, tail: int | None) -> None:
    """What there is of a Pod's logs, container by container; does not wait for more."""
    name = pod["metadata"]["name"]
    for state in containers(pod):
        if "waiting" in (state.get("state") or {"waiting": {}}):
            continue
        options = {"container": state["name"]} | ({} if tail is None else {"tail_lines": tail})
        what = f"get the log of Pod {name}"
        try:
            answer = opened(cluster.core.read_namespaced_pod_log, name, cluster.namespace, what=what, **options)
            for line in lines(answer):
                screen.log(f"[{name} {state['name']}] ", line.decode("utf-8", "replace"))
        except (ApiException, ServerUnavailable) as error:
            screen.say(f"the log of {name}, container {state['name']}, cannot be read: {error}")


def collect(args: argparse.Namespace) -> None:
    kind: collecting.Kind = "checkpoints" if args.checkpoints else "all" if args.all else "report"
    cluster = connect(args.context, args.namespace)
    image = args.image or os.environ.get("OPENRS_IMAGE")
    collecting.collect(cluster, args.run, Screen().say, kind=kind, to=args.to, image=image)


def stop(args: argparse.Namespace) -> None:
    control.stop(connect(args.context, args.namespace), args.run, Screen().say)


def delete(args: argparse.Namespace) -> None:
    cluster = connect(args.context, args.namespace)
    what = f"Job openrs-{args.run} in {cluster.namespace}"
    if args.claim:
        what += ", and its volume claim with everything in it"
    if not args.yes:
        confirm(what, args.run)
    control.delete(cluster, args.run, Screen().say, with_claim=args.claim)


def confirm(what: str, word: str) -> None:
    """Ask a person to type the run's name. Raises UserError where nobody can, or for another answer."""
    if not sys.stdin.isatty():
        raise UserError(f"nobody is here to ask whether to delete {what}", fix="--yes says so beforehand")
    try:
        answer = input(f"Delete {what}? Type {word} to do it: ")
    except EOFError:
        answer = ""
    if answer.strip() != word:
        raise UserError("nothing was deleted")
