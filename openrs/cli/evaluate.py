"""`openrs evaluate`, `inputs`, `results`, `report` and `grade`: generate, score, check inputs, report, grade."""

import argparse
import json
from pathlib import Path

from openrs.cli.options import Verbs, add_verb, names
from openrs.errors import EXIT_DONE, EXIT_REFUSED, UserError
from openrs.run.terminal import say


def add(verbs: Verbs) -> None:
    _add_evaluate(verbs)
    sub = add_verb(verbs, inputs, "check that the benchmarks' inputs are the paper's, by 15 hashes, in seconds")
    sub.add_argument("--data", type=Path, help="folder with NAME.jsonl or NAME.parquet; the hub when absent")
    sub.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json and chat template, for 5 of the hashes")
    sub.add_argument(
        "--benchmarks", nargs="+", type=names, metavar="A,B", help="only these (names, or YAML files with your own)"
    )
    sub.add_argument("--json", action="store_true")
    sub = add_verb(verbs, results, "read lighteval results of any origin: score, n, k, inputs verified or not")
    sub.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="results_*.json, or folders of them")
    sub.add_argument("--format", choices=["text", "csv", "md", "json"], default="text", help="default: text")
    sub.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    sub = add_verb(verbs, report, "what runs and result files show, and the paper's claims: report.html, .md and .json")
    sub.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs, a study, evaluations, result files; none: the published figures"
    )
    sub.add_argument("--out", metavar="DIR", help="where to write (default: a single run, else the folder report)")
    sub.add_argument("--paper", action="store_true", help="lead with the paper's claims, whatever the runs are")
    sub.add_argument(
        "--watch",
        type=int,
        metavar="S",
        help="write the page again every S seconds until the runs end; an open tab follows",
    )
    sub.add_argument("--price", type=float, metavar="USD", help="dollars per GPU-hour, over the recipe's")

    sub = add_verb(verbs, grade, "judge answers: one verdict per line, with the extracted answer")
    sub.add_argument(
        "file", type=Path, help="JSONL with the fields gold and completion, and rule for a line with its own"
    )
    sub.add_argument(
        "--rule",
        default="paper",
        metavar="RULE",
        help="paper (default), paper-cosine, corrected: the training rewards; latex-, expr-, index-gold: evaluation",
    )
    sub.add_argument(
        "--compare",
        action="store_true",
        help="ask the strict judge too (the rule corrected) and mark where they differ",
    )
    sub.add_argument("--timeout", type=float, default=5.0, metavar="S", help="seconds for one answer (default 5)")
    sub.add_argument("--workers", type=int, metavar="N", help="answers judged in parallel (default at most 4)")


def _add_evaluate(verbs: Verbs) -> None:
    sub = add_verb(verbs, evaluate, "sample benchmarks with a model, judge, and report scores with intervals")
    sub.add_argument(
        "model",
        nargs="?",
        help="a model folder, a hub repository, a run (its base and its checkpoints), a checkpoint's folder in a run,"
        " or one of the paper's: paper:base, paper:open-rs1 to 3, paper:exp3@50, paper:deepscaler ...",
    )
    what = sub.add_argument_group("benchmarks")
    what.add_argument("--benchmarks", type=names, metavar="A,B", help="names, or YAML files of your own")
    what.add_argument("--data", metavar="DIR", help="folder with NAME.jsonl files (default: the hub, pinned)")
    how = sub.add_argument_group("sampling (default: a run's recipe, else the paper's with one BOS)")
    how.add_argument(
        "--protocol",
        choices=["paper", "sober"],
        help="paper: 1 sample, temperature 0.6, top-p 0.95, 32,768 tokens, two BOS; sober: 10 samples of small"
        " benchmarks, 3 of others, temperature 0.8, top-p 0.9; options below override it",
    )
    how.add_argument("--samples", type=int, metavar="N", help="completions per problem")
    how.add_argument("--temperature", type=float, metavar="T")
    how.add_argument("--top-p", type=float, metavar="P")
    how.add_argument("--max-tokens", type=int, metavar="N", help="longest completion")
    how.add_argument("--max-model-len", type=int, metavar="N", help="longest prompt and completion together")
    how.add_argument("--seed", type=int, metavar="N")
    where = sub.add_argument_group("engine and output")
    where.add_argument(
        "--engine", choices=["vllm", "transformers"], help="default: vllm where it is installed and there is a GPU"
    )
    where.add_argument("--processes", type=int, metavar="N", help="parallel engines (default: one a GPU)")
    where.add_argument(
        "--gpu-memory", type=float, metavar="SHARE", help="share of a GPU's memory, for vllm (default 0.9)"
    )
    where.add_argument(
        "--batch-size", type=int, metavar="N", help="completions per batch, for transformers (default 64)"
    )
    where.add_argument("--run", metavar="NAME", help="write to this run (default: the run itself, or evaluations)")
    where.add_argument("--shard", metavar="I/N", help="only part I of N, for a cluster; afterwards:")
    where.add_argument("--merge", nargs="+", type=Path, metavar="DIR", help="merge shards and score them")
    where.add_argument(
        "--rejudge",
        metavar="RUN",
        help="apply today's judge to stored samples (a run or an evaluation's folder); no GPU",
    )
    model = sub.add_argument_group("the model")
    model.add_argument("--revision", metavar="COMMIT", help="hub commit (default: as pinned, else the newest)")
    model.add_argument(
        "--dtype", choices=["bfloat16", "float32", "float16"], help="default: bfloat16; float32 on a CPU"
    )
    model.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


def evaluate(args: argparse.Namespace) -> int:
    from openrs.config.schema import Evaluation
    from openrs.evaluation import targets

    if args.rejudge is not None:
        targets.rejudge_run(args.rejudge, args.data)
        return EXIT_DONE
    if args.merge:
        targets.merge_shards(args.merge, args.run, args.data)
        return EXIT_DONE
    if args.model is None:
        raise UserError("no model to evaluate", fix="openrs evaluate MODEL; see openrs evaluate --help")
    options = {name: getattr(args, name, None) for name in Evaluation.model_fields}
    options = {name: value for name, value in options.items() if value is not None}
    targets.evaluate_model(
        args.model, args.protocol, options, revision=args.revision, dtype=args.dtype, keep_in=args.run,
        shard=args.shard, trust_remote_code=args.trust_remote_code,
    )  # fmt: skip
    return EXIT_DONE


def inputs(args: argparse.Namespace) -> int:
    from openrs.evaluation.benchmarks import known, resolve
    from openrs.evaluation.inputs import check_inputs

    names = [name for some in args.benchmarks or () for name in some]
    chosen = resolve(names) if names else [b for b in known().values() if b.hashes]
    report = check_inputs(chosen, args.data, args.tokenizer)
    say(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if args.json else "\n".join(report.lines()))
    return EXIT_DONE if report.proven else EXIT_REFUSED


def results(args: argparse.Namespace) -> int:
    from openrs.report.evidence.lighteval_logs import Reading, lines, read

    def table(reading: Reading) -> str:
        if args.format == "json":
            return json.dumps(reading.as_json(), indent=2, ensure_ascii=False)
        if args.format == "text":
            return "\n".join(lines(reading))
        from openrs.report.pages.results_table import as_csv, as_markdown

        return (as_csv if args.format == "csv" else as_markdown)(reading)

    reading = read(args.paths)
    say(table(reading))
    for broken in reading.broken if args.format in ("csv", "md") else ():
        say(f"skipped: {broken.path}: {broken.reason}", error=True)
    return EXIT_DONE if reading.results else EXIT_REFUSED


def report(args: argparse.Namespace) -> int:
    from openrs.report.pages.page import keep_fresh, report_on
    from openrs.run.directory import run_at
    from openrs.study.state import STATE

    folder = run_at(args.runs[0]).path if len(args.runs) == 1 else None
    if folder is not None and (folder / STATE).is_file():
        if args.watch is not None:
            raise UserError("--watch is for runs, and this is a study", fix=f"openrs watch {args.runs[0]}")
        from openrs.study.report import write_study_report

        say(f"report: {write_study_report(folder, Path(args.out) if args.out else None, args.price)}")
        return EXIT_DONE
    if args.watch is not None:
        keep_fresh(args.runs, args.out, args.price, paper=args.paper, every=args.watch)
    say(f"report: {report_on(args.runs, args.out, args.price, paper=args.paper)}")
    return EXIT_DONE


def grade(args: argparse.Namespace) -> int:
    from openrs.rewards.grade_files import compare_file, grade_file
    from openrs.rewards.grading import Judge

    with Judge(args.workers, args.timeout) as judge:
        (compare_file if args.compare else grade_file)(args.file, judge, args.rule, say)
    return EXIT_DONE
