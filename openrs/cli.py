"""The command line: one verb a function, no logic. Rooms are imported when their verb is called, never before."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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


# --- evaluation -------------------------------------------------------------------------------------------------------


def inputs(args: argparse.Namespace) -> int:
    from openrs.evaluation.benchmarks import known, resolve
    from openrs.evaluation.inputs import check_inputs

    chosen = resolve(args.benchmarks) if args.benchmarks else [b for b in known().values() if b.hashes]
    report = check_inputs(chosen, args.data, args.tokenizer)
    print(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if args.json else "\n".join(report.lines()))
    return EXIT_DONE if report.proven else EXIT_REFUSED


def results(args: argparse.Namespace) -> int:
    from openrs.report.lighteval_logs import lines, read

    reading = read(args.paths)
    print(json.dumps(reading.as_json(), indent=2, ensure_ascii=False) if args.json else "\n".join(lines(reading)))
    return EXIT_DONE if reading.results else EXIT_REFUSED


def grade(args: argparse.Namespace) -> int:
    from openrs.rewards.grading import Judge, grade_file

    with Judge(args.workers, args.timeout) as judge:
        grade_file(args.file, judge, args.rule, print)
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

    prove = verb("inputs", inputs, "prove that the benchmarks' inputs are the paper's: 15 hashes, in seconds")
    prove.add_argument("--data", type=Path, help="folder with NAME.jsonl or NAME.parquet; the hub when absent")
    prove.add_argument(
        "--tokenizer", type=Path, help="folder with tokenizer.json and chat template, for 5 of the hashes"
    )
    prove.add_argument(
        "--benchmarks", nargs="+", metavar="NAME", help="only these (names, or YAML files with your own)"
    )
    prove.add_argument("--json", action="store_true")
    others = verb("results", results, "read lighteval results, anybody's: score, n, k, inputs verified or not")
    others.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="results_*.json, or folders of them")
    others.add_argument("--json", action="store_true")

    judge = verb("grade", grade, "ask the judge about answers: a verdict a line, and what was extracted")
    judge.add_argument(
        "file", type=Path, help="JSONL with the fields gold and completion, and rule where a line wants its own"
    )
    judge.add_argument(
        "--rule",
        default="paper",
        metavar="RULE",
        help="paper (default), paper-cosine, corrected: the training rewards; latex-gold, expr-gold: evaluation",
    )
    judge.add_argument("--timeout", type=float, default=5.0, metavar="S", help="seconds for one answer (default 5)")
    judge.add_argument(
        "--workers", type=int, metavar="N", help="how many answers are judged at once (default at most 4)"
    )
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
