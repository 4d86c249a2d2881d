"""`openrs plan`, `doctor` and `fetch`: what a recipe needs, what this machine has, and what must be downloaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.cli.options import Verbs, add_overrides, add_recipe, add_verb
from openrs.config.names import Layout
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say

if TYPE_CHECKING:
    from openrs.hub.pins import Reference


def add(verbs: Verbs) -> None:
    sub = add_verb(verbs, plan, "what a recipe needs: memory by part, time, money, disk; no GPU required")
    add_recipe(sub)
    sub.add_argument(
        "--gpu", metavar="NAME", help="A40, A6000, L40S, A100-80, H100, RTX-4090 ... (default: the recipe's)"
    )
    sub.add_argument("--gpus", type=int, metavar="N", help="how many (default: the recipe's)")
    sub.add_argument("--layout", choices=[layout.value for layout in Layout], help="default: the recipe's")
    sub.add_argument("--price", type=float, metavar="USD", help="dollars per GPU-hour")
    sub.add_argument("--node-memory", type=float, metavar="GIB", help="RAM of the node, to check against")
    sub.add_argument("--assume", action="append", default=[], metavar="NAME=NUMBER", help="change an assumption")
    sub.add_argument("--from", dest="learn_from", metavar="RUN", help="use the utilisations that this run measured")
    sub.add_argument("--fit", action="store_true", help="propose settings that fit and keep the gradient")
    sub.add_argument("--json", action="store_true")

    sub = add_verb(verbs, doctor, "what this machine has, what a recipe needs, and how to fix what is missing")
    sub.add_argument("what", nargs="*", metavar="[nccl] [RECIPE]", help="nccl benchmarks the links between the GPUs")
    add_overrides(sub)
    sub.add_argument("--run", metavar="NAME", help="the run directory (default: the recipe's name)")
    sub.add_argument("--quick", action="store_true", help="only checks that take under two seconds (for health checks)")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--report", action="store_true", help="what a bug report needs, as Markdown, without secrets")

    sub = add_verb(verbs, fetch, "download all models and data of a recipe into the cache, pinned and checked")
    sub.add_argument(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help="a recipe, a study, a run, or a model of the paper: paper:open-rs3 ...",
    )
    add_overrides(sub)
    sub.add_argument("--list", action="store_true", help="list files and sizes, without network")
    sub.add_argument("--quick", action="store_true", help="compare only the sizes of what was checked before")
    sub.add_argument("--workers", type=int, default=4, metavar="N", help="parallel downloads (default 4)")


def plan(args: argparse.Namespace) -> int:
    from openrs.config.load import load
    from openrs.planner.render import answer

    recipe = load(args.recipe, args.overrides, elsewhere=args.gpu not in (None, "none") or bool(args.gpus))
    options = ("gpu", "gpus", "price", "node_memory", "assume", "fit", "json")
    layout = Layout(args.layout) if args.layout is not None else None
    given = {name: getattr(args, name) for name in options}
    say(answer(recipe, run=args.learn_from, layout=layout, **given), end="")
    return EXIT_DONE


def fetch(args: argparse.Namespace) -> int:
    from openrs.hub import fetch as fetching

    every = [ref for name in args.recipes for ref in needed(name, args.overrides)]
    refs = list({(ref.name, ref.revision): ref for ref in every}.values())
    if args.list:
        say(fetching.render(fetching.listed(refs)), end="")
        return EXIT_DONE
    fetching.fetch_all(refs, say, workers=args.workers, quick=args.quick)
    return EXIT_DONE


def needed(name: str, overrides: Sequence[str]) -> "list[Reference]":
    """What a recipe, a study, a run or a model needs from the hub; nothing for a model's folder. Raises UserError."""
    from openrs.config.load import load, packaged
    from openrs.hub.pins import references, target
    from openrs.run import manifest
    from openrs.run.directory import existing_run, run_at
    from openrs.run.folders import Kind, kind_of
    from openrs.study.jobs import references_of
    from openrs.study.settings import load as load_study
    from openrs.study.settings import study_file

    if (refs := target(name)) is not None:
        return refs
    if (file := study_file(name)) is not None:
        return references_of(load_study(file, overrides), file.parent)
    folder = next((path for path in (run_at(name).path, Path(name)) if path.is_dir()), None)
    if folder is None or name in packaged():
        return references(load(name, overrides))
    recipe = manifest.recipe_of(existing_run(f"{folder}/")) if kind_of(folder) is Kind.RUN else None
    return references(recipe) if recipe is not None else []


def doctor(args: argparse.Namespace) -> int:
    from openrs.config.load import load
    from openrs.doctor import doctor as doctors
    from openrs.doctor.bug_report import bug_report
    from openrs.run.directory import run_at

    measure = args.what[:1] == ["nccl"]
    names = args.what[1:] if measure else args.what
    if len(names) > 1:
        raise UserError(f"more than one recipe: {' '.join(names)}", fix="openrs doctor [nccl] [RECIPE]")
    recipe = load(names[0], args.overrides) if names else None
    run = run_at(args.run or (Path(names[0]).stem if names else "doctor"))
    if measure:
        doctors.measure_nccl(recipe, run.path, say)
        return EXIT_DONE
    text, code = doctors.diagnose(recipe, names[0] if names else None, run.path, quick=args.quick, as_json=args.json)
    if args.report:
        say(bug_report(text, run), end="")
        return EXIT_DONE
    say(text, end="")
    return code
