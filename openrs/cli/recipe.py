"""`openrs recipe`: list, show and compare recipes."""

import argparse
import shlex
from pathlib import Path

from openrs.cli.options import Verbs, add_recipe
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say


def add(verbs: Verbs) -> None:
    recipes = verbs.add_parser("recipe", help="list, show and compare recipes").add_subparsers(
        required=True, metavar="list|new|show|diff"
    )
    recipes.add_parser("list", help="the recipes that come with openrs").set_defaults(function=recipe_list)
    new = recipes.add_parser("new", help="write a commented recipe for a model and data of your own")
    new.add_argument("file", type=Path, help="the YAML file to write")
    new.add_argument("--model", required=True, metavar="DIR", help="a model folder, or a fetched hub model")
    new.add_argument("--data", required=True, metavar="FILE", help="problems with reference answers")
    new.add_argument("--from", dest="base", default="own", metavar="RECIPE", help="what it extends (default: own)")
    new.add_argument(
        "--hold-out", type=int, default=0, metavar="N", help="N problems to measure with, before and after"
    )
    for name, column in (("problem", "the problem's"), ("answer", "the reference answer's")):
        text = f"{column} column, where it is not recognised; dots select nested ones"
        new.add_argument(f"--{name}", dest=f"{name}_column", metavar="COLUMN", help=text)
    new.set_defaults(function=recipe_new)
    show = recipes.add_parser("show", help="print all settings of a recipe, resolved")
    add_recipe(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(function=recipe_show)
    compare = recipes.add_parser("diff", help="print the differences between two recipes")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.set_defaults(function=recipe_diff)


def recipe_list(_: argparse.Namespace) -> int:
    from openrs.config.load import titles

    for name, title in titles().items():
        say(f"{name:12s} {title}")
    return EXIT_DONE


def recipe_new(args: argparse.Namespace) -> int:
    from openrs.new_recipe import write

    if args.hold_out < 0:
        raise UserError(f"--hold-out {args.hold_out}", fix="give a number of problems")
    given = {key: getattr(args, key) for key in ("problem_column", "answer_column")}
    columns = {key: column for key, column in given.items() if column}
    say(write(args.file, args.model, args.data, args.base, held_out=args.hold_out, columns=columns), end="")
    file = shlex.quote(str(args.file))
    train = f"openrs train {file}"
    after = f"{train}, then openrs report {shlex.quote(args.file.stem)}"
    say(f"\nwritten: {args.file}; next: {train} --dry-run, then ", end="")
    say(f"openrs reproduce {file}: evaluation, training, evaluation, report" if args.hold_out else after)
    return EXIT_DONE


def recipe_show(args: argparse.Namespace) -> int:
    from openrs.config.load import load, to_json, to_yaml

    recipe = load(args.recipe, args.overrides)
    say(to_json(recipe) if args.json else to_yaml(recipe), end="")
    return EXIT_DONE


def recipe_diff(args: argparse.Namespace) -> int:
    from openrs.config.load import diff, load

    for key, left, right in diff(load(args.a), load(args.b)):
        say(f"{key}: {left} -> {right}")
    return EXIT_DONE
