"""`openrs recipe`: list, show and compare recipes."""

import argparse

from openrs.cli.options import Verbs, add_recipe
from openrs.errors import EXIT_DONE
from openrs.run.terminal import say


def add(verbs: Verbs) -> None:
    recipes = verbs.add_parser("recipe", help="list, show and compare recipes").add_subparsers(
        required=True, metavar="list|show|diff"
    )
    recipes.add_parser("list", help="the recipes that come with openrs").set_defaults(function=recipe_list)
    show = recipes.add_parser("show", help="print all settings of a recipe, resolved")
    add_recipe(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(function=recipe_show)
    compare = recipes.add_parser("diff", help="print the differences between two recipes")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.set_defaults(function=recipe_diff)


def recipe_list(_: argparse.Namespace) -> int:
    from openrs.config.load import packaged

    for name, title in packaged().items():
        say(f"{name:12s} {title}")
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
