"""The command line: what can be asked, and how it ends. What a verb does stands in verbs.py."""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from openrs import __version__
from openrs.cli import cluster_options as cluster_arguments
from openrs.cli.verbs import (
    cluster,
    curate,
    data,
    doctor,
    evaluate,
    export,
    fetch,
    grade,
    inputs,
    plan,
    recipe_diff,
    recipe_list,
    recipe_show,
    report,
    reproduce,
    results,
    track,
    train,
)
from openrs.errors import EXIT_INTERRUPTED, Interrupted, UserError, not_installed
from openrs.run.files import redact

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


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 42,43,44") from None


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
    look.add_argument("--benchmarks", type=_names, metavar="A,B", help="compare with these only")
    look.add_argument("--data", metavar="DIR", help="folder with the benchmarks' NAME.jsonl files (default: the hub)")
    look.add_argument("--golds", type=int, default=1000, metavar="N", help="golds judged (default 1000; 0: none)")
    look.add_argument("--workers", type=int, metavar="N", help="processes (default: as many as processors)")
    look.add_argument("--json", action="store_true")


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


def _evaluate_verb(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    sub = verb("evaluate", evaluate, "sample benchmarks with a model, judge, and say how sure the score is")
    sub.add_argument(
        "--rejudge",
        metavar="RUN",
        help="ask today's judge about stored samples (a run, or an evaluation's folder); no GPU",
    )
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
    judge.add_argument(
        "--compare",
        action="store_true",
        help="ask the strict judge too (the rule corrected) and mark where they differ",
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
    except UserError as error:
        print(redact(f"openrs {args.verb}: {error}"), file=sys.stderr)
        return error.exit_code
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
