"""`openrs cluster`: recipes as Kubernetes Jobs."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.cli import study
from openrs.cli.options import Verb, Verbs, add_overrides, add_verb
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say

if TYPE_CHECKING:
    from openrs.cluster.api import Cluster, Object
    from openrs.cluster.jobs import JobManifests
    from openrs.cluster.screen import Screen
    from openrs.doctor.finding import Finding


def add(verbs: Verbs) -> None:
    text = "run recipes as Kubernetes Jobs: submit, follow, collect"
    cluster = verbs.add_parser("cluster", help=text, description=text)
    subverbs = cluster.add_subparsers(dest="what", required=True, metavar="submit|status|logs|collect|stop|delete")

    def subverb(function: Verb, text: str) -> argparse.ArgumentParser:
        sub = add_verb(subverbs, function, text)
        sub.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
        sub.add_argument("-n", "--namespace", metavar="NAME", help="default: the context's, or the Pod's own")
        return sub

    sub = subverb(
        submit,
        "create a recipe's Job and follow it; repeated, it follows, resumes or refuses, and never creates a second one",
    )
    sub.add_argument("recipe", help="a recipe's or study's name (see: openrs recipe list) or a path to a YAML file")
    add_overrides(sub)
    study.add_choice(sub.add_argument_group("a study (docs/study.md): one Indexed Job, an index for each part"))
    sub.add_argument(
        "--run", metavar="NAME", help="also names Job and claim, after openrs- (default: the recipe's name)"
    )
    sub.add_argument("--image", metavar="NAME@DIGEST", help="of openrs (default: OPENRS_IMAGE in the environment)")
    sub.add_argument("--train-only", action="store_true", help="`openrs train` instead of `openrs reproduce`")
    sub.add_argument(
        "--claim", metavar="NAME", help="an existing volume claim (default: openrs-RUN, created when missing)"
    )
    sub.add_argument("--storage-class", metavar="NAME", help="of a new claim (default: the cluster's default)")
    sub.add_argument(
        "--pull-secret", metavar="NAME", help="secret of a private registry (kubectl create secret docker-registry)"
    )
    sub.add_argument("--queue", metavar="NAME", help="Kueue's LocalQueue")
    sub.add_argument(
        "--gpu-product", dest="products", action="append", default=[], metavar="LABEL",
        help="nodes with this nvidia.com/gpu.product, e.g. NVIDIA-L40S (repeatable; default: the recipe's GPU)",
    )  # fmt: skip
    sub.add_argument("--dry-run", action="store_true", help="print the YAML that would be sent; contacts no server")
    sub.add_argument("--detach", action="store_true", help="do not follow")
    sub.add_argument("--force", action="store_true", help="create it although the preflight failed")

    sub = subverb(status, "all runs of the namespace, or one with its Pods, and why it waits")
    sub.add_argument("run", nargs="?", metavar="RUN")

    sub = subverb(logs, "what a run's Pods print")
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("-f", "--follow", action="store_true", help="to the end, across broken connections and new Pods")
    sub.add_argument("--tail", type=int, metavar="N", help="only the last N lines")

    sub = subverb(collect, "copy report, scores, metrics, manifest and logs from the volume to this machine; resumable")
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("--to", type=Path, default=Path("runs"), metavar="DIR", help="default: runs, as runs/RUN")
    kinds = sub.add_mutually_exclusive_group()
    kinds.add_argument("--all", action="store_true", help="also completions and samples")
    kinds.add_argument("--checkpoints", action="store_true", help="everything, checkpoints included")
    sub.add_argument("--image", metavar="NAME@DIGEST", help="when the Job is gone and only its claim is left")

    sub = subverb(stop, "let a run write a checkpoint and end; submit resumes it")
    sub.add_argument("run", metavar="RUN")

    sub = subverb(delete, "delete a Job; its claim and all data are kept unless --claim is given")
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("--claim", action="store_true", help="also delete the volume claim with all data in it")
    sub.add_argument("--yes", action="store_true", help="do not ask")


def submit(args: argparse.Namespace) -> int:
    from openrs.cluster.api import connect, default_namespace
    from openrs.cluster.follow import TAIL_LINES
    from openrs.cluster.jobs import to_text
    from openrs.cluster.screen import Screen
    from openrs.cluster.submit import submit as send

    run = args.run or Path(args.recipe).stem
    manifests = requested(args, run)
    if args.dry_run:
        place(manifests, default_namespace(args.context, args.namespace))
        say(to_text(manifests.objects), end="")
        for note in manifests.notes:
            say(f"note: {note}", error=True)
        return EXIT_DONE
    cluster = connect(args.context, args.namespace)
    place(manifests, cluster.namespace)
    screen = Screen()
    for note in manifests.notes:
        screen.say(f"note: {note}")
    check(cluster, manifests, force=args.force)
    outcome = send(cluster, manifests, screen.say)
    if args.detach:
        screen.say(f"follow it with openrs cluster logs -f {run}")
        return EXIT_DONE
    return follow(cluster, run, screen, TAIL_LINES if outcome == "exists" else None)


def follow(cluster: "Cluster", run: str, screen: "Screen", tail: int | None) -> int:
    """Print what a Job does until it ends. Raises UserError, RunFailure or Interrupted as it ended."""
    from openrs.cluster import follow as following
    from openrs.cluster.reading import need_job

    end = following.follow(cluster, need_job(cluster, run), screen, tail=tail)
    following.conclude(end)
    screen.say(end.text)
    return EXIT_DONE


def requested(args: argparse.Namespace, run: str) -> "JobManifests":
    """The objects of a recipe's or a study's Job. Raises UserError."""
    from openrs.cluster.jobs import PLACEHOLDER, JobRequest, build_manifests
    from openrs.config.load import load
    from openrs.study.settings import study_file

    request = partial(
        JobRequest,
        run=run,
        image=args.image or os.environ.get("OPENRS_IMAGE") or PLACEHOLDER,
        claim=args.claim,
        storage_class=args.storage_class,
        queue=args.queue,
        pull_secret=args.pull_secret,
        products=args.products,
    )
    if (file := study_file(args.recipe)) is None:
        study.refuse_for_recipes(args)
        recipe = load(args.recipe, args.overrides, elsewhere=True)
        return build_manifests(
            request(recipe, args.recipe, args.overrides, verb="train" if args.train_only else "reproduce")
        )
    from openrs.study.kubernetes import build_study_manifests

    chosen, machine = study.asked(args, file)
    return build_study_manifests(
        request, chosen, file, machine=machine, limits=study.limits_of(args), also=args.also,
        choice=study.chosen(args, *study.CHOICE, "parallel"), overrides=args.overrides,
    )  # fmt: skip


def place(manifests: "JobManifests", namespace: str | None) -> None:
    """Set the namespace, so that what is printed is what is sent."""
    if namespace is not None:
        for thing in manifests.objects:
            meta = thing["metadata"]
            thing["metadata"] = {"name": meta["name"], "namespace": namespace} | meta


def check(cluster: "Cluster", manifests: "JobManifests", *, force: bool) -> None:
    """Run and print the preflight checks. Raises UserError when one fails, unless forced."""
    from openrs.cluster import preflight

    findings = preflight.examine(cluster, manifests)
    say("".join(f"{rendered(line)}\n" for line in findings), end="")
    failed = [line for line in findings if line.state == "fail"]
    if failed and not force:
        fixes = "; ".join(line.fix for line in failed if line.fix)
        raise UserError(
            f"the Job cannot run: {', '.join(line.name for line in failed)}",
            fix=f"{fixes or 'see above'} (--force creates the Job anyway)",
        )


def rendered(line: "Finding") -> str:
    from openrs.doctor.doctor import MARKS
    from openrs.planner.render import wrapped

    needed = f"; needed: {line.needed}" if line.needed and line.state in {"fail", "warn"} else ""
    fix = f"; fix: {line.fix}" if line.fix and line.state != "ok" else ""
    return wrapped(f"{MARKS[line.state]}  {line.name:10s}  {line.found}{needed}{fix}", " " * 18)


def status(args: argparse.Namespace) -> int:
    from openrs.cluster.api import connect
    from openrs.cluster.status import of_run, overview

    cluster = connect(args.context, args.namespace)
    say(of_run(cluster, args.run) if args.run else overview(cluster), end="")
    return EXIT_DONE


def logs(args: argparse.Namespace) -> int:
    from openrs.cluster.api import connect
    from openrs.cluster.reading import need_job, pods
    from openrs.cluster.screen import Screen

    cluster = connect(args.context, args.namespace)
    screen = Screen()
    if args.follow:
        return follow(cluster, args.run, screen, args.tail)
    listed = pods(cluster, need_job(cluster, args.run)["metadata"]["name"])
    if not listed:
        raise UserError(f"run {args.run} has no Pod", fix=f"see why with openrs cluster status {args.run}")
    for pod in listed:
        print_logs(cluster, pod, screen, args.tail)
    return EXIT_DONE


def print_logs(cluster: "Cluster", pod: "Object", screen: "Screen", tail: int | None) -> None:
    """Print a Pod's logs so far, container by container."""
    from kubernetes.client.exceptions import ApiException

    from openrs.cluster.api import ServerUnavailable, lines, open_response
    from openrs.cluster.words import containers

    name = pod["metadata"]["name"]
    for state in containers(pod):
        if "waiting" in (state.get("state") or {"waiting": {}}):
            continue
        options = {"container": state["name"]} | ({} if tail is None else {"tail_lines": tail})
        what = f"get the log of Pod {name}"
        try:
            response = open_response(
                cluster.core.read_namespaced_pod_log, name, cluster.namespace, what=what, **options
            )
            for line in lines(response):
                screen.log(f"[{name} {state['name']}] ", line.decode("utf-8", "replace"))
        except (ApiException, ServerUnavailable) as error:
            screen.say(f"the log of {name}, container {state['name']}, cannot be read: {error}")


def collect(args: argparse.Namespace) -> int:
    from openrs.cluster import collect as collecting
    from openrs.cluster.api import connect
    from openrs.cluster.screen import Screen

    kind: collecting.Kind = "checkpoints" if args.checkpoints else "all" if args.all else "report"
    cluster = connect(args.context, args.namespace)
    image = args.image or os.environ.get("OPENRS_IMAGE")
    collecting.collect(cluster, args.run, Screen().say, kind=kind, to=args.to, image=image)
    return EXIT_DONE


def stop(args: argparse.Namespace) -> int:
    from openrs.cluster import control
    from openrs.cluster.api import connect
    from openrs.cluster.screen import Screen

    control.stop(connect(args.context, args.namespace), args.run, Screen().say)
    return EXIT_DONE


def delete(args: argparse.Namespace) -> int:
    from openrs.cluster import control
    from openrs.cluster.api import connect
    from openrs.cluster.screen import Screen

    cluster = connect(args.context, args.namespace)
    what = f"Job openrs-{args.run} in {cluster.namespace}"
    if args.claim:
        what += " and its volume claim with all data in it"
    if not args.yes:
        confirm(what, args.run)
    control.delete(cluster, args.run, Screen().say, with_claim=args.claim)
    return EXIT_DONE


def confirm(what: str, word: str) -> None:
    """Ask for the run's name as confirmation. Raises UserError without a terminal, or for another answer."""
    if not sys.stdin.isatty():
        raise UserError(f"deleting {what} needs confirmation, and there is no terminal", fix="add --yes")
    try:
        answer = input(f"Delete {what}? Type {word} to do it: ")
    except EOFError:
        answer = ""
    if answer.strip() != word:
        raise UserError("nothing was deleted")
