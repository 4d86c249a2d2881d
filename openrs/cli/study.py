"""`openrs reproduce STUDY`: plan or run many jobs as one study. Its options stand with those of `openrs reproduce`."""

import argparse
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.cli.options import names
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say

if TYPE_CHECKING:
    from openrs.study.jobs import Machine
    from openrs.study.run import Limits
    from openrs.study.settings import Study

CHOICE = ("budget", "hours", "gpu", "gpus", "price", "also")  # which jobs, on what
ONLY_STUDIES = ("plan", *CHOICE, "page", "until_usd", "until_hours", "part", "parallel")
ONLY_RECIPES = ("seeds", "until", "train_only")


def add_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("a study: `paper`, or a YAML file of your own with jobs and claims (docs/study.md)")
    group.add_argument(
        "--plan", action="store_true", help="what to run, what it costs, what it can decide; runs nothing"
    )
    group.add_argument("--page", type=Path, metavar="FILE", help="where the plan's page goes (default: RUN/plan.html)")
    add_choice(group)
    group.add_argument(
        "--part", type=part_from, metavar="I/N", help="only part I, from 0, of the N that need nothing of each other"
    )


def add_choice(group: "argparse._ArgumentGroup") -> None:
    """The options that running a study here and in a cluster share."""
    group.add_argument("--budget", type=float, metavar="USD", help="plan and run only what this pays for")
    group.add_argument("--hours", type=float, metavar="H", help="and what these hours of wall clock are enough for")
    group.add_argument("--gpu", metavar="NAME", help="plan for this GPU (default: the study's)")
    group.add_argument("--gpus", type=int, metavar="N", help="and so many of it")
    group.add_argument("--price", type=float, metavar="USD", help="dollars per GPU-hour")
    group.add_argument("--also", type=names, default=[], metavar="A,B", help="run these entries, too, claims or not")
    group.add_argument("--parallel", type=int, metavar="P", help="so many parts run at once, and share --until-usd")
    group.add_argument("--until-usd", type=float, metavar="USD", help="end at a safe place when so much is spent")
    group.add_argument("--until-hours", type=float, metavar="H", help="end at a safe place after so many hours")


def part_from(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 0/4")
    return int(match[1]), int(match[2])


def refuse_for_recipes(args: argparse.Namespace) -> None:
    """Raises UserError when an option of studies is given with a recipe."""
    values = {name: getattr(args, name, None) for name in ONLY_STUDIES}
    given = [name for name, value in values.items() if value is not None and value is not False and value != []]
    if given:
        raise UserError(
            f"--{given[0].replace('_', '-')} is for studies, and {args.recipe} is a recipe",
            fix=f"leave it out, or name a study (paper); what a recipe costs says: openrs plan {args.recipe}",
        )


def asked(args: argparse.Namespace, file: Path) -> "tuple[Study, Machine]":
    """The study and the machine of the options. Raises UserError for options of recipes and limits that are none."""
    from openrs.study import jobs, settings

    given = [name for name in ONLY_RECIPES if getattr(args, name, None)]
    if given:
        raise UserError(
            f"--{given[0].replace('_', '-')} is for recipes, and {args.recipe} is a study",
            fix="its file names seeds and steps",
        )
    for name in ("budget", "hours", "until_usd", "until_hours", "parallel"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g} is no limit", fix="give a number above 0")
    study = settings.load(file, args.overrides)
    return study, jobs.machine_of(study, args.gpu, args.gpus, args.price)


def limits_of(args: argparse.Namespace) -> "Limits":
    from openrs.study.run import Limits

    return Limits(args.budget, args.hours, args.until_usd, args.until_hours, args.parallel or 1)


def reproduce(args: argparse.Namespace, file: Path) -> int:
    from openrs.run.directory import run_at

    alone = "part" if args.plan and args.part else "parallel" if args.parallel and not args.part else None
    if alone is not None:
        raise UserError(
            f"--{alone} is for parts that are run, and this is the whole study",
            fix="leave it out; openrs cluster submit runs parts side by side",
        )
    study, machine = asked(args, file)
    folder = run_at(args.run or file.stem).path
    if args.plan:
        return show_plan(study, machine, file, folder, args)
    from openrs.study.run import run_study

    run_study(
        study,
        file,
        folder,
        machine=machine,
        limits=limits_of(args),
        also=args.also,
        accept_changes=args.accept_changes,
        command=resuming(args),
        part=args.part,
    )
    return EXIT_DONE


def resuming(args: argparse.Namespace) -> str:
    """The command that goes on."""
    sets = [word for change in args.overrides for word in ("--set", change)]
    return shlex.join(["openrs", "reproduce", args.recipe, *chosen(args, "run", *CHOICE, "part", "parallel"), *sets])


def chosen(args: argparse.Namespace, *names: str) -> list[str]:
    """These options as they were typed. For what goes on: without its --budget it would run, and spend, more; the
    limits of one launch are not among them."""
    words = []
    for name in names:
        if (value := getattr(args, name)) not in (None, []):
            text = "/".join(map(str, value)) if name == "part" else ",".join(value) if name == "also" else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    return words


def show_plan(study: "Study", machine: "Machine", file: Path, folder: Path, args: argparse.Namespace) -> int:
    from openrs.study import render
    from openrs.study.plan import make_plan
    from openrs.study.power import powers_of

    plan = make_plan(study, machine, file.parent, powers_of(study, file.parent), budget=args.budget, hours=args.hours)
    page = render.write_page(plan, args.page or folder / "plan.html")
    say(f"{render.text(plan, args.budget, args.hours)}\npage: {page}")
    return EXIT_DONE
