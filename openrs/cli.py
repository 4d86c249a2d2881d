"""The command line: one verb a function, no logic. Rooms are imported when their verb is called, never before."""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from openrs import __version__
from openrs.cluster import arguments as cluster_arguments
from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, Interrupted, Refusal, not_installed
from openrs.rundir import redact

Verb = Callable[[argparse.Namespace], int]
EVALUATION_OPTIONS = (
    "benchmarks", "data", "samples", "temperature", "top_p", "max_tokens", "window", "seed", "engine", "processes",
    "gpu_memory", "batch_size",
)  # fmt: skip


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


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 42,43,44") from None


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
    from openrs import uploads
    from openrs.attempt import attempt
    from openrs.training import launch

    asked = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
    if args.dry_run:
        print("\n".join(launch.describe(recipe, run) for recipe, run in asked), end="")
        return EXIT_DONE
    uploads.check(args.push, len(asked))
    launch.check_machine(asked[0][0], args.recipe)
    for recipe, run in asked:
        with (
            attempt(recipe, run, accept_changes=args.accept_changes) as progress,
            uploads.beside(run, args.push, progress.say),
        ):
            progress.say(f"done: {launch.train(recipe, run, progress)}")
    return EXIT_DONE


def reproduce(args: argparse.Namespace) -> int:
    from openrs import uploads
    from openrs.attempt import attempt
    from openrs.training import launch

    asked = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
    uploads.check(args.push, len(asked))
    launch.check_machine(asked[0][0], args.recipe)
    for recipe, run in asked:
        with (
            attempt(recipe, run, accept_changes=args.accept_changes) as progress,
            uploads.beside(run, args.push, progress.say),
        ):
            from openrs.reproduce import reproduce as whole_way

            whole_way(recipe, run, progress)
    return EXIT_DONE


def evaluate(args: argparse.Namespace) -> int:
    from openrs.evaluation import targets

    if args.merge:
        targets.merge_shards(args.merge, args.run, args.data)
        return EXIT_DONE
    if args.model is None:
        raise Refusal("no model to evaluate", mend="openrs evaluate MODEL; see openrs evaluate --help")
    options = {name: getattr(args, name) for name in EVALUATION_OPTIONS if getattr(args, name) is not None}
    targets.evaluate_model(
        args.model, args.protocol, options, revision=args.revision, dtype=args.dtype, keep_in=args.run,
        shard=args.shard, trust_remote_code=args.trust_remote_code,
    )  # fmt: skip
    return EXIT_DONE


# --- evaluation -------------------------------------------------------------------------------------------------------


def inputs(args: argparse.Namespace) -> int:
    from openrs.evaluation.benchmarks import known, resolve
    from openrs.evaluation.inputs import check_inputs

    names = [name for some in args.benchmarks or () for name in some]
    chosen = resolve(names) if names else [b for b in known().values() if b.hashes]
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


# --- data -------------------------------------------------------------------------------------------------------------


def curate(args: argparse.Namespace) -> int:
    from openrs.curation.verbs import curate as run

    return run(args.recipe, args.overrides, args.out, args.workers, args.shard)


def data(args: argparse.Namespace) -> int:
    from openrs.curation.verbs import show

    return show(
        args.path, benchmarks=args.benchmarks, data=args.data, golds=args.golds, workers=args.workers, html=args.html,
        as_json=args.json, columns={"problem": args.problem, "answer": args.answer}, revision=args.revision,
    )  # fmt: skip


def _data_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "make a dataset from raw problems: stages by a recipe, every removed row with its reason"
    sub = verbs.add_parser("curate", help=text, description=text)
    sub.set_defaults(function=curate)
    sub.add_argument(
        "recipe", help="open-s1, open-deepscaler, open-rs, a YAML file, or a .jsonl or .parquet file (docs/curation.md)"
    )
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                     help="override any setting, e.g. stages.length.max_tokens=256, stages.form=false")  # fmt: skip
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: datasets/NAME)")
    sub.add_argument("--workers", type=int, metavar="N", help="processes (default: as many as processors)")
    sub.add_argument("--shard", metavar="I/N", help="only draw part I of N of a model's samples, for a cluster")
    inner = verbs.add_parser("data", help="look at a dataset").add_subparsers(required=True, metavar="show")
    text = "counts, lengths, difficulty, copies, bad golds, benchmark questions, and some rows of any dataset"
    look = inner.add_parser("show", help=text, description=text)
    look.set_defaults(function=data)
    look.add_argument("path", help="a JSONL or parquet file, a folder of them, or a hub data set")
    look.add_argument("--html", type=Path, metavar="FILE", help="write a page too")
    look.add_argument(
        "--problem", metavar="COLUMN", help="default: problem, question or prompt; dots go into nested ones"
    )
    look.add_argument("--answer", metavar="COLUMN", help="default: answer, reward_model.ground_truth, final_answer")
    look.add_argument("--revision", metavar="COMMIT", help="of a hub data set (default: the newest)")
    look.add_argument("--benchmarks", type=lambda text: text.split(","), metavar="A,B", help="compare with these only")
    look.add_argument("--data", metavar="DIR", help="folder with the benchmarks' NAME.jsonl files (default: the hub)")
    look.add_argument("--golds", type=int, default=1000, metavar="N", help="golds judged (default 1000; 0: none)")
    look.add_argument("--workers", type=int, metavar="N", help="processes (default: as many as processors)")
    look.add_argument("--json", action="store_true")


# --- what a run leaves ------------------------------------------------------------------------------------------------


def export(args: argparse.Namespace) -> int:
    from openrs import uploads
    from openrs.export import export as write
    from openrs.rundir import existing_run

    uploads.check(args.push)
    folder = write(existing_run(args.run_name), args.step, args.to)
    print(f"model: {folder}", flush=True)
    if args.push is not None:
        print(f"pushed: {uploads.push(folder, args.push, private=not args.public, say=print, tries=args.tries)}")
    return EXIT_DONE


def track(args: argparse.Namespace) -> int:
    from openrs.rundir import existing_run
    from openrs.training.tracking import rebuild

    print(f"{args.to}: {rebuild(existing_run(args.run_name), args.to)} steps")
    return EXIT_DONE


def _run_verbs(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    sub = verb("export", export, "write a run's checkpoint as a plain model folder with a model card")
    sub.add_argument("run_name", metavar="RUN", help="the name of a folder in runs/, or its path")
    sub.add_argument("--step", type=int, metavar="N", help="default: the newest complete checkpoint")
    sub.add_argument("--to", type=Path, metavar="DIR", help="default: RUN/export/step-N")
    sub.add_argument("--push", metavar="OWNER/NAME", help="and upload it to the hub, trying again while that fails")
    sub.add_argument("--public", action="store_true", help="a repository that is made for it is public, not private")
    sub.add_argument("--tries", type=int, default=20, metavar="N", help="before it gives up (default 20, over an hour)")

    sub = verb("track", track, "make a mirror of metrics.jsonl anew: TensorBoard, wandb or trackio")
    sub.add_argument("run_name", metavar="RUN", help="the name of a folder in runs/, or its path")
    sub.add_argument("--to", required=True, choices=["tensorboard", "wandb", "trackio"])


# --- the machine ------------------------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> int:
    from openrs.machine.plan_text import answer
    from openrs.recipe import load

    recipe = load(args.recipe, args.overrides)
    options = ("gpu", "gpus", "layout", "price", "node_memory", "assume", "fit", "json")
    print(answer(recipe, run=args.learn_from, **{name: getattr(args, name) for name in options}), end="")
    return EXIT_DONE


def fetch(args: argparse.Namespace) -> int:
    from openrs.machine import fetch as fetching
    from openrs.machine.pins import references, target
    from openrs.recipe import load

    refs = target(args.recipe) or references(load(args.recipe, args.overrides))
    if args.list:
        print(fetching.render(fetching.listed(refs)), end="")
        return EXIT_DONE
    fetching.fetch_all(refs, lambda line: print(line, flush=True), workers=args.workers)
    return EXIT_DONE


def doctor(args: argparse.Namespace) -> int:
    from openrs.machine import doctor as doctors
    from openrs.recipe import load
    from openrs.rundir import run_at

    measure = args.what[:1] == ["nccl"]
    names = args.what[1:] if measure else args.what
    if len(names) > 1:
        raise Refusal(f"one recipe at a time: {' '.join(names)}", mend="openrs doctor [nccl] [RECIPE]")
    recipe = load(names[0], args.overrides) if names else None
    run = run_at(args.run or (Path(names[0]).stem if names else "doctor"))
    if measure:
        doctors.measure_nccl(recipe, run.path, lambda line: print(line, flush=True))
        return EXIT_DONE
    text, code = doctors.diagnose(recipe, names[0] if names else None, run.path, quick=args.quick, as_json=args.json)
    print(text, end="")
    return code


# --- the cluster ------------------------------------------------------------------------------------------------------


def cluster(args: argparse.Namespace) -> int:
    from openrs.cluster.verbs import run

    return run(args)


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

    sub = verb("doctor", doctor, "what this machine has, what a recipe needs, and how to mend what is missing")
    sub.add_argument("what", nargs="*", metavar="[nccl] [RECIPE]", help="nccl measures the links between the GPUs")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="as for train")
    sub.add_argument("--run", metavar="NAME", help="the run directory that is meant (default: the recipe's name)")
    sub.add_argument("--quick", action="store_true", help="only what answers in under two seconds (health checks)")
    sub.add_argument("--json", action="store_true")

    sub = verb("fetch", fetch, "bring all models and data of a recipe into the cache, pinned and checked")
    _recipe_options(sub)
    sub.add_argument("--list", action="store_true", help="what it needs and how large that is, without network")
    sub.add_argument("--workers", type=int, default=4, metavar="N", help="files fetched at once (default 4)")


# --- evaluating a model -----------------------------------------------------------------------------------------------


def _evaluate_verb(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    sub = verb("evaluate", evaluate, "sample benchmarks with a model, judge, and say how sure the score is")
    sub.add_argument(
        "model",
        nargs="?",
        help="a model folder, a hub repository, a run (its base and its checkpoints), a checkpoint's folder in a run,"
        " or one of the paper's: paper:base, paper:open-rs1 to 3, paper:exp3@50 ...",
    )
    what = sub.add_argument_group("what is asked")
    what.add_argument("--benchmarks", type=_names, metavar="A,B", help="names, or YAML files of your own")
    what.add_argument("--data", metavar="DIR", help="folder with NAME.jsonl files (default: the hub, pinned)")
    how = sub.add_argument_group("how it is sampled (default: a run's recipe, else the paper's with one BOS)")
    how.add_argument(
        "--protocol",
        choices=["paper", "sober"],
        help="paper: 1 sample, temperature 0.6, top-p 0.95, 32,768 tokens, two BOS; sober: 10 samples of small"
        " benchmarks, 3 of others, temperature 0.8, top-p 0.9; options below go over it",
    )
    how.add_argument("--samples", type=int, metavar="N", help="completions per problem")
    how.add_argument("--temperature", type=float, metavar="T")
    how.add_argument("--top-p", type=float, metavar="P")
    how.add_argument("--max-tokens", type=int, metavar="N", help="longest completion")
    how.add_argument("--window", type=int, metavar="N", help="longest prompt and completion together")
    how.add_argument("--seed", type=int, metavar="N")
    where = sub.add_argument_group("where it runs")
    where.add_argument("--engine", choices=["vllm", "transformers"], help="default: vllm where it and a GPU are there")
    where.add_argument("--processes", type=int, metavar="N", help="engines side by side (default: one a GPU)")
    where.add_argument("--gpu-memory", type=float, metavar="SHARE", help="of a GPU, for vllm (default 0.9)")
    where.add_argument("--batch-size", type=int, metavar="N", help="completions at once, for transformers (default 64)")
    where.add_argument("--run", metavar="NAME", help="keep it in this run (default: the run itself, or evaluations)")
    where.add_argument("--shard", metavar="I/N", help="only part I of N, for a cluster; then:")
    where.add_argument("--merge", nargs="+", type=Path, metavar="DIR", help="put shards together and score them")
    model = sub.add_argument_group("the model")
    model.add_argument("--revision", metavar="COMMIT", help="hub commit (default: as pinned, else the newest)")
    model.add_argument("--dtype", choices=["bfloat16", "float32", "float16"], help="default: bfloat16")
    model.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


# --- the main way -----------------------------------------------------------------------------------------------------


def _recipe_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        sub.add_argument("--accept-changes", action="store_true", help="go on with other settings or data; recorded")
        sub.add_argument("--seeds", type=_numbers, default=[], metavar="42,43,44", help="a run each: NAME-seed42 ...")
        sub.add_argument(
            "--push", metavar="OWNER/NAME", help="upload each complete checkpoint to this private repository on the hub"
        )
        sub.add_argument("--until", metavar="STEP", help="end at this step, or at the `released` one; same schedule")
        if name == "train":
            sub.add_argument("--dry-run", action="store_true", help="print commands and settings; start nothing")

    _evaluate_verb(verb)
    _recipe_verbs(verbs)

    prove = verb("inputs", inputs, "prove that the benchmarks' inputs are the paper's: 15 hashes, in seconds")
    prove.add_argument("--data", type=Path, help="folder with NAME.jsonl or NAME.parquet; the hub when absent")
    prove.add_argument(
        "--tokenizer", type=Path, help="folder with tokenizer.json and chat template, for 5 of the hashes"
    )
    prove.add_argument(
        "--benchmarks", nargs="+", type=_names, metavar="A,B", help="only these (names, or YAML files with your own)"
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

    _run_verbs(verb)
    _data_verbs(verbs)
    _machine_verbs(verb)
    cluster_arguments.add(verb("cluster", cluster, "run recipes as Kubernetes Jobs: submit, follow, collect"), cluster)

    judge = verb("grade", grade, "ask the judge about answers: a verdict a line, and what was extracted")
    judge.add_argument(
        "file", type=Path, help="JSONL with the fields gold and completion, and rule where a line wants its own"
    )
    judge.add_argument(
        "--rule",
        default="paper",
        metavar="RULE",
        help="paper (default), paper-cosine, corrected: the training rewards; latex-, expr-, index-gold: evaluation",
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
        print(redact(f"openrs {args.verb}: {refusal}"), file=sys.stderr)
        return refusal.exit_code
    except ModuleNotFoundError as error:
        missing = not_installed(error)
        if missing is None:
            raise
        print(f"openrs {args.verb}: {missing}", file=sys.stderr)
        return missing.exit_code
    except Interrupted as interrupted:
        print(redact(f"openrs {args.verb}: {interrupted}"), file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"openrs {args.verb}: stopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPTED


def program() -> NoReturn:
    """The command itself. At the end its memory goes back to the kernel: to search it for garbage first, as Python
    does, takes two seconds when torch is loaded."""
    code = main()
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    program()
