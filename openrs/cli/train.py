"""`openrs train`, `reproduce`, `export` and `track`: from a recipe to checkpoints, and what follows from them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.cli import study
from openrs.cli.options import Verbs, add_recipe, add_verb, numbers
from openrs.errors import EXIT_DONE
from openrs.run.terminal import say

if TYPE_CHECKING:
    from openrs.config.schema import Recipe
    from openrs.run.directory import Run
    from openrs.run.progress import Progress


def add(verbs: Verbs) -> None:
    sub = add_verb(verbs, train, "train a recipe; resumes from the latest complete checkpoint")
    _run_options(sub)
    sub.add_argument("--dry-run", action="store_true", help="print commands and settings; start nothing")
    text = "the whole experiment: base evaluation, training, evaluation, report; or a study of many (paper)"
    sub = add_verb(verbs, reproduce, text)
    _run_options(sub)
    study.add_options(sub)

    sub = add_verb(verbs, watch, "how a run goes, from its files: curves, time left, alarms, disk, completions")
    sub.add_argument("run_name", metavar="RUN", help="a run or a study: the name of a folder in runs/, or its path")
    sub.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (default 2)")
    sub.add_argument("--once", action="store_true", help="one look")

    sub = add_verb(verbs, export, "write a run's checkpoint as a plain model folder with a model card")
    sub.add_argument("run_name", metavar="RUN", help="the name of a folder in runs/, or its path")
    sub.add_argument("--step", type=int, metavar="N", help="default: the latest complete checkpoint")
    sub.add_argument("--to", type=Path, metavar="DIR", help="default: RUN/export/step-N")
    sub.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    sub.add_argument("--push", metavar="OWNER/NAME", help="also upload it to the hub, with retries")
    sub.add_argument("--public", action="store_true", help="create a missing repository as public, not private")
    sub.add_argument("--tries", type=int, default=20, metavar="N", help="upload attempts (default 20, over an hour)")

    sub = add_verb(verbs, track, "export metrics.jsonl to TensorBoard, wandb or trackio")
    sub.add_argument("run_name", metavar="RUN", help="the name of a folder in runs/, or its path")
    sub.add_argument("--to", required=True, choices=["tensorboard", "wandb", "trackio"])


def _run_options(sub: argparse.ArgumentParser) -> None:
    add_recipe(sub)
    sub.add_argument(
        "--run", metavar="NAME", help="run directory: a name under runs/, or a path (default: the recipe's name)"
    )
    sub.add_argument(
        "--accept-changes", action="store_true", help="resume with changed settings or data; the changes are recorded"
    )
    sub.add_argument("--seeds", type=numbers, default=[], metavar="42,43,44", help="one run per seed: NAME-seed42 ...")
    sub.add_argument(
        "--until",
        metavar="STEP",
        help="end at this step, or at `released` (the step whose weights were published); same schedule",
    )


def train(args: argparse.Namespace) -> int:
    from openrs.training import launch

    if args.dry_run:
        requested = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
        say("\n".join(launch.describe(recipe, run) for recipe, run in requested), end="")
        return EXIT_DONE
    return _attempts(args, lambda recipe, run, progress: progress.say(f"done: {launch.train(recipe, run, progress)}"))


def reproduce(args: argparse.Namespace) -> int:
    from openrs.study.settings import study_file

    if (file := study_file(args.recipe)) is not None:
        return study.reproduce(args, file)
    study.refuse_for_recipes(args)

    def whole_way(recipe: "Recipe", run: "Run", progress: "Progress") -> None:
        from openrs.reproduce import reproduce  # imports torch, so only once the run is locked

        reproduce(recipe, run, progress)

    return _attempts(args, whole_way)


def _attempts(args: argparse.Namespace, work: "Callable[[Recipe, Run, Progress], object]") -> int:
    """Do the work for each requested run, one after another."""
    from openrs.run.attempt import attempt
    from openrs.training import launch

    requested = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
    launch.check_machine(requested[0][0], args.recipe)
    for recipe, run in requested:
        with attempt(recipe, run, accept_changes=args.accept_changes) as progress:
            work(recipe, run, progress)
    return EXIT_DONE


def watch(args: argparse.Namespace) -> int:
    from openrs.run.directory import existing_run, run_at
    from openrs.run.watch import watch
    from openrs.study.state import STATE

    every, folder = min(3600.0, max(0.2, args.every)), run_at(args.run_name).path
    if (folder / STATE).is_file():
        from openrs.study.watch import watch as watch_study

        watch_study(folder, every, once=args.once)
    else:
        watch(existing_run(args.run_name), every, once=args.once)
    return EXIT_DONE


def export(args: argparse.Namespace) -> int:
    from openrs.hub import upload
    from openrs.hub.export import export as write
    from openrs.run.directory import existing_run

    upload.check(args.push)
    folder = write(existing_run(args.run_name), args.step, args.to, trust_remote_code=args.trust_remote_code)
    say(f"model: {folder}")
    if args.push is not None:
        say(f"pushed: {upload.push(folder, args.push, private=not args.public, say=say, tries=args.tries)}")
    return EXIT_DONE


def track(args: argparse.Namespace) -> int:
    from openrs.run.directory import existing_run
    from openrs.training.tracking import rebuild

    say(f"{args.to}: {rebuild(existing_run(args.run_name), args.to)} steps")
    return EXIT_DONE
