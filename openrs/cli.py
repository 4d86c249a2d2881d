"""The command line: one verb a function, no logic. Rooms are imported when their verb is called, never before."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from openrs import __version__
from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, Interrupted, Refusal

Verb = Callable[[argparse.Namespace], int]
EVALUATION_OPTIONS = ("benchmarks", "data", "samples", "temperature", "top_p", "max_tokens", "seed", "batch_size")


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


# --- the way through ----------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    from openrs.attempt import attempt
    from openrs.recipe import load
    from openrs.rundir import run_at

    recipe, run = load(args.recipe, args.overrides), run_at(args.run or Path(args.recipe).stem)
    with attempt(recipe, run) as progress:
        from openrs.training import grpo

        progress.say(f"done: {grpo.train(recipe, run, progress)}")
    return EXIT_DONE


def reproduce(args: argparse.Namespace) -> int:
    from openrs.attempt import attempt
    from openrs.recipe import load
    from openrs.rundir import run_at

    recipe, run = load(args.recipe, args.overrides), run_at(args.run or Path(args.recipe).stem)
    with attempt(recipe, run) as progress:
        from openrs.reproduce import reproduce as whole_way

        whole_way(recipe, run, progress)
    return EXIT_DONE


def evaluate(args: argparse.Namespace) -> int:
    from openrs.evaluation.targets import evaluate_model

    changes = {name: getattr(args, name) for name in EVALUATION_OPTIONS if getattr(args, name) is not None}
    evaluate_model(args.model, args.revision, args.dtype, args.run, changes, trust_remote_code=args.trust_remote_code)
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


def report(args: argparse.Namespace) -> int:
    from openrs.report.page import report_on

    print(f"report: {report_on(args.runs, args.out, args.price)}")
    return EXIT_DONE


def grade(args: argparse.Namespace) -> int:
    from openrs.rewards.grading import Judge, grade_file

    with Judge(args.workers, args.timeout) as judge:
        grade_file(args.file, judge, args.rule, print)
    return EXIT_DONE


# --- the machine ------------------------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> int:
    from openrs.machine.plan_text import answer
    from openrs.recipe import load

    recipe = load(args.recipe, args.overrides)
    options = ("gpu", "gpus", "layout", "price", "node_memory", "assume", "fit", "json")
    print(answer(recipe, run=args.learn_from, **{name: getattr(args, name) for name in options}), end="")
    return EXIT_DONE


def _machine_verbs(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    sub = verb("plan", plan, "what a recipe takes: memory by part, time, money, disk; no GPU needed")
    _recipe_options(sub)
    sub.add_argument(
        "--gpu", metavar="NAME", help="A40, A6000, L40S, A100-80, H100, RTX-4090 ... (default: the recipe's)"
    )
    sub.add_argument("--gpus", type=int, metavar="N", help="how many (default: the recipe's)")
    sub.add_argument("--layout", choices=["single", "colocate", "split"], help="default: the recipe's")
    sub.add_argument("--price", type=float, metavar="USD", help="of one GPU for an hour")
    sub.add_argument("--node-memory", type=float, metavar="GIB", help="RAM of the node, to compare with")
    sub.add_argument("--assume", action="append", default=[], metavar="NAME=NUMBER", help="change an assumption")
    sub.add_argument("--from", dest="learn_from", metavar="RUN", help="take utilisations from what this run measured")
    sub.add_argument("--fit", action="store_true", help="propose settings that fit and keep the gradient")
    sub.add_argument("--json", action="store_true")


# --- the main way -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="openrs", description="Run the Open-RS paper again, know what of it is true, train your own."
    )
    top.add_argument("--version", action="version", version=f"openrs {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Verb, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=run)
        return sub

    for name, function, text in (
        ("train", train, "train from a recipe; goes on from the newest complete checkpoint"),
        ("reproduce", reproduce, "the whole way: base evaluation, training, evaluation, report"),
    ):
        sub = verb(name, function, text)
        _recipe_options(sub)
        sub.add_argument(
            "--run", metavar="NAME", help="run directory: a name under runs/, or a path (default: the recipe's name)"
        )

    sub = verb("evaluate", evaluate, "sample benchmarks with a model, judge, and say how sure the score is")
    sub.add_argument("model", help="a model folder, a hub repository, or a run")
    sub.add_argument(
        "--run", metavar="NAME", help="keep the evaluation in this run (default: the run itself, or runs/evaluations)"
    )
    sub.add_argument(
        "--benchmarks", type=lambda text: text.split(","), metavar="A,B", help="names, or YAML files of your own"
    )
    sub.add_argument(
        "--data", metavar="DIR", help="folder with NAME.jsonl files (default: the hub at pinned revisions)"
    )
    sub.add_argument("--samples", type=int, metavar="N", help="completions per problem")
    sub.add_argument("--temperature", type=float)
    sub.add_argument("--top-p", type=float)
    sub.add_argument("--max-tokens", type=int)
    sub.add_argument("--seed", type=int)
    sub.add_argument("--batch-size", type=int)
    sub.add_argument("--revision", help="hub commit of the model")
    sub.add_argument("--dtype", choices=["bfloat16", "float32", "float16"], default="bfloat16")
    sub.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")

    recipes = verbs.add_parser("recipe", help="list, show and compare recipes").add_subparsers(
        required=True, metavar="list|show|diff"
    )
    recipes.add_parser("list", help="the recipes that come with openrs").set_defaults(function=recipe_list)
    show = recipes.add_parser("show", help="print the resolved tree of settings")
    _recipe_options(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(function=recipe_show)
    compare = recipes.add_parser("diff", help="print what differs between two recipes")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.set_defaults(function=recipe_diff)

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
    page = verb("report", report, "weigh the paper's claims with what is here: a page, report.md and report.json")
    page.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs, single evaluations, or result files; none: the published figures"
    )
    page.add_argument("--out", metavar="DIR", help="where to write (default: a single run, else the folder report)")
    page.add_argument("--price", type=float, metavar="USD", help="dollars per GPU-hour, over the recipe's")

    _machine_verbs(verb)

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
        function: Verb = args.function
        return function(args)
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
