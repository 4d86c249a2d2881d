"""Options that several verbs share."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

Verb = Callable[[argparse.Namespace], int]
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(verbs: Verbs, function: Verb, text: str) -> argparse.ArgumentParser:
    """The parser of the verb that `function` is; `text` is its line in the list of verbs and the head of its help."""
    parser = verbs.add_parser(function.__name__, help=text, description=text)
    parser.set_defaults(function=function)
    return parser


def add_overrides(parser: argparse.ArgumentParser, text: str = "as for train") -> None:
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=text)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name (see: openrs recipe list) or a path to a YAML file")
    add_overrides(parser, "override any setting, e.g. --set grpo.learning_rate=2e-6 (repeatable)")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 42,43,44") from None
