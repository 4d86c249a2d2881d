"""The command line: one verb a function, no logic. Rooms are imported when their verb is called, never before."""

import argparse
import sys
from collections.abc import Callable, Sequence

from openrs import __version__
from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, Interrupted, Refusal

Verb = Callable[[argparse.Namespace], int]


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name (see: openrs recipe list) or a path to a YAML file")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override any setting, e.g. --set grpo.learning_rate=2e-6 (again for more)",
    )


# --- recipe -----------------------------------------------------------------------------------------------------------


def recipe_list(_: argparse.Namespace) -> int:
    from openrs.recipe import packaged

    for name, title in packaged().items():
        print(f"{name:12s} {title}")
    return EXIT_DONE


def recipe_show(args: argparse.Namespace) -> int:
    from openrs.recipe import load, to_json, to_yaml

    recipe = load(args.recipe, args.overrides)
    print(to_json(recipe) if args.json else to_yaml(recipe), end="")
    return EXIT_DONE


def recipe_diff(args: argparse.Namespace) -> int:
    from openrs.recipe import diff, load

    for key, left, right in diff(load(args.a), load(args.b)):
        print(f"{key}: {left} -> {right}")
    return EXIT_DONE


# --- the main way -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="openrs", description="Run the Open-RS paper again, know what of it is true, train your own."
    )
    top.add_argument("--version", action="version", version=f"openrs {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Verb, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    recipes = verbs.add_parser("recipe", help="list, show and compare recipes").add_subparsers(
        required=True, metavar="list|show|diff"
    )
    recipes.add_parser("list", help="the recipes that come with openrs").set_defaults(run=recipe_list)
    show = recipes.add_parser("show", help="print the resolved tree of settings")
    _recipe_options(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=recipe_show)
    compare = recipes.add_parser("diff", help="print what differs between two recipes")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.set_defaults(run=recipe_diff)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0 done, 2 refused (a retry can't help), 75 interrupted, resumable; 1 has a trace."""
    args = parser().parse_args(argv)
    try:
        run: Verb = args.run
        return run(args)
    except Refusal as refusal:
        print(f"openrs {args.verb}: {refusal}", file=sys.stderr)
        return EXIT_REFUSED
    except Interrupted as interrupted:
        print(f"openrs {args.verb}: {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"openrs {args.verb}: stopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
