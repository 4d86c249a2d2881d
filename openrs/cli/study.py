"""`openrs reproduce STUDY`: plan or run many jobs as one study. Its options stand with those of `openrs reproduce`.

Modules that the verb needs are imported when it is called: `openrs --help` stays light, and a plan never imports torch.
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.cli.options import names
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say

if TYPE_CHECKING:
    from openrs.study.jobs import Machine
    from openrs.study.settings import Study

ONLY_STUDIES = ("plan", "budget", "hours", "gpu", "gpus", "price", "page", "until_usd", "until_hours", "also")
ONLY_RECIPES = ("seeds", "until")
RESUMED = ("run", "budget", "hours", "gpu", "gpus", "price", "also")


def add_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("a study: `paper`, or a YAML file of your own with jobs and claims (docs/study.md)")
    group.add_argument(
        "--plan", action="store_true", help="what to run, what it costs, what it can decide; runs nothing"
    )
    group.add_argument("--budget", type=float, metavar="USD", help="plan and run only what this pays for")
    group.add_argument("--hours", type=float, metavar="H", help="and what these hours of wall clock are enough for")
    group.add_argument("--gpu", metavar="NAME", help="plan for this GPU (default: the study's)")
    group.add_argument("--gpus", type=int, metavar="N", help="and so many of it")
    group.add_argument("--price", type=float, metavar="USD", help="dollars per GPU-hour")
    group.add_argument("--page", type=Path, metavar="FILE", help="where the plan's page goes (default: RUN/plan.html)")
    group.add_argument("--also", type=names, default=[], metavar="A,B", help="run these entries, too, claims or not")
    group.add_argument("--until-usd", type=float, metavar="USD", help="end at a safe place when so much is spent")
    group.add_argument("--until-hours", type=float, metavar="H", help="end at a safe place after so many hours")


def refuse_for_recipes(args: argparse.Namespace) -> None:
    """Raises UserError when an option of studies is given with a recipe."""
    given = [name for name in ONLY_STUDIES if getattr(args, name) not in (None, False, [])]
    if given:
        raise UserError(
            f"--{given[0].replace('_', '-')} is for studies, and {args.recipe} is a recipe",
            fix=f"openrs reproduce paper --{given[0].replace('_', '-')} ..., or openrs plan {args.recipe}",
        )


def reproduce(args: argparse.Namespace, file: Path) -> int:
    from openrs.run.directory import run_at
    from openrs.study import jobs, settings

    given = [name for name in ONLY_RECIPES if getattr(args, name)]
    if given:
        raise UserError(
            f"--{given[0]} is for recipes, and {args.recipe} is a study", fix="its file names seeds and steps"
        )
    for name in ("budget", "hours", "until_usd", "until_hours"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g} is no limit", fix="give a number above 0")
    study = settings.load(file, args.overrides)
    machine = jobs.machine_of(study, args.gpu, args.gpus, args.price)
    folder = run_at(args.run or file.stem).path
    if args.plan:
        return show_plan(study, machine, file, folder, args)
    from openrs.study.run import Limits, run_study

    limits = Limits(args.budget, args.hours, args.until_usd, args.until_hours)
    run_study(
        study,
        file,
        folder,
        machine=machine,
        limits=limits,
        also=args.also,
        accept_changes=args.accept_changes,
        command=resuming(args),
    )
    return EXIT_DONE


def resuming(args: argparse.Namespace) -> str:
    """The command that goes on, as it was typed: without its --budget it would run, and spend, more. The limits of one
    launch are not in it."""
    words = ["openrs", "reproduce", args.recipe]
    for name in RESUMED:
        if (value := getattr(args, name)) not in (None, []):
            words += [f"--{name}", ",".join(value) if name == "also" else str(value)]
    for change in args.overrides:
        words += ["--set", change]
    return shlex.join(words)


def show_plan(study: "Study", machine: "Machine", file: Path, folder: Path, args: argparse.Namespace) -> int:
    from openrs.study import render
    from openrs.study.chances import powers_of
    from openrs.study.page import write_page
    from openrs.study.plan import make_plan

    plan = make_plan(study, machine, file.parent, powers_of(study, file.parent), budget=args.budget, hours=args.hours)
    page = write_page(plan, args.page or folder / "plan.html")
    say(f"{render.text(plan, args.budget, args.hours)}\npage: {page}")
    return EXIT_DONE
