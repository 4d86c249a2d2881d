"""Completion in bash and zsh: verbs, options and choices from the parsers; recipes, runs and files as their values."""

import argparse
from collections.abc import Callable, Iterator

from openrs.cli.options import Verbs, add_verb
from openrs.errors import EXIT_DONE
from openrs.run.terminal import say

# Each function completes file names too: a shell that asks a script of ours does not complete them itself. Names with
# "_file" in them let bash end folders with a slash (shtab looks for it).
FUNCTIONS = {
    "bash": """
_openrs_recipe_file() { compgen -W "RECIPES" -- "$1"; compgen -f -- "$1"; }
_openrs_run_file() { (cd ./runs 2>/dev/null && compgen -d -- "$1"); compgen -f -- "$1"; }
""",
    "zsh": """
_openrs_recipe_file() { _alternative 'recipes:recipe:(RECIPES)' 'files:file:_files' }
_openrs_run_file() { local -a runs; runs=(runs/*(N/:t)); _alternative 'runs:run:compadd -a runs' 'files:file:_files' }
""",
}
KINDS = {
    **dict.fromkeys(("recipe", "recipes", "a", "b", "what"), "_openrs_recipe_file"),
    **dict.fromkeys(("run", "runs", "run_name", "model"), "_openrs_run_file"),
}


def add(verbs: Verbs, parser: Callable[[], argparse.ArgumentParser]) -> None:
    sub = add_verb(verbs, completion, 'what a shell needs to complete: eval "$(openrs completion bash)"')
    sub.add_argument("shell", choices=["bash", "zsh"])
    sub.set_defaults(parser=parser)


def completion(args: argparse.Namespace) -> int:
    say(script(args.parser(), args.shell))
    return EXIT_DONE


def values(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments and options of all verbs that take a value without a list of choices."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from values(verb)
        elif action.nargs != 0 and not action.choices:
            yield action


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    import shtab

    from openrs.config.load import titles

    for action in values(parser):
        function = KINDS.get(action.dest)
        action.complete = dict.fromkeys(FUNCTIONS, function) if function else shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell, preamble=FUNCTIONS[shell].replace("RECIPES", " ".join(titles()))))
