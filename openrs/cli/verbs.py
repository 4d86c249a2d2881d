"""The verbs of the command line: each a function of its parsed arguments that returns the exit code; no logic.

Rooms are imported when their verb is called, never before.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openrs.errors import EXIT_DONE, EXIT_REFUSED, UserError

if TYPE_CHECKING:
    from openrs.config.schema import Recipe
    from openrs.run.directory import Run
    from openrs.run.progress import Progress

EVALUATION_OPTIONS = (
    "benchmarks", "data", "samples", "temperature", "top_p", "max_tokens", "window", "seed", "engine", "processes",
    "gpu_memory", "batch_size",
)  # fmt: skip


def recipe_list(_: argparse.Namespace) -> int:
    from openrs.config.load import packaged

    for name, title in packaged().items():
        print(f"{name:12s} {title}")
    return EXIT_DONE


def recipe_show(args: argparse.Namespace) -> int:
    from openrs.config.load import load, to_json, to_yaml

    recipe = load(args.recipe, args.overrides)
    print(to_json(recipe) if args.json else to_yaml(recipe), end="")
    return EXIT_DONE


def recipe_diff(args: argparse.Namespace) -> int:
    from openrs.config.load import diff, load

    for key, left, right in diff(load(args.a), load(args.b)):
        print(f"{key}: {left} -> {right}")
    return EXIT_DONE


def train(args: argparse.Namespace) -> int:
    from openrs.training import launch

    if args.dry_run:
        asked = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
        print("\n".join(launch.describe(recipe, run) for recipe, run in asked), end="")
        return EXIT_DONE
    return _attempts(args, lambda recipe, run, progress: progress.say(f"done: {launch.train(recipe, run, progress)}"))


def reproduce(args: argparse.Namespace) -> int:
    def whole_way(recipe: "Recipe", run: "Run", progress: "Progress") -> None:
        from openrs.reproduce import reproduce  # it imports all rooms: not before the run is locked

        reproduce(recipe, run, progress)

    return _attempts(args, whole_way)


def _attempts(args: argparse.Namespace, work: "Callable[[Recipe, Run, Progress], object]") -> int:
    """Do the work for each run that is asked for, one after another; its checkpoints are pushed beside it if wanted."""
    from openrs.hub import upload as uploads
    from openrs.run.attempt import attempt
    from openrs.training import launch

    asked = launch.runs(args.recipe, args.overrides, args.run, args.seeds, args.until)
    uploads.check(args.push, len(asked))
    launch.check_machine(asked[0][0], args.recipe)
    for recipe, run in asked:
        with (
            attempt(recipe, run, accept_changes=args.accept_changes) as progress,
            uploads.beside(run, args.push, progress.say),
        ):
            work(recipe, run, progress)
    return EXIT_DONE


def evaluate(args: argparse.Namespace) -> int:
    from openrs.evaluation import targets

    if args.rejudge is not None:
        targets.rejudge_run(args.rejudge, args.data)
        return EXIT_DONE
    if args.merge:
        targets.merge_shards(args.merge, args.run, args.data)
        return EXIT_DONE
    if args.model is None:
        raise UserError("no model to evaluate", fix="openrs evaluate MODEL; see openrs evaluate --help")
    options = {name: getattr(args, name) for name in EVALUATION_OPTIONS if getattr(args, name) is not None}
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
    print(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if args.json else "\n".join(report.lines()))
    return EXIT_DONE if report.proven else EXIT_REFUSED


def results(args: argparse.Namespace) -> int:
    from openrs.report.evidence.lighteval_logs import lines, read

    reading = read(args.paths)
    print(json.dumps(reading.as_json(), indent=2, ensure_ascii=False) if args.json else "\n".join(lines(reading)))
    return EXIT_DONE if reading.results else EXIT_REFUSED


def report(args: argparse.Namespace) -> int:
    from openrs.report.pages.page import report_on

    print(f"report: {report_on(args.runs, args.out, args.price)}")
    return EXIT_DONE


def grade(args: argparse.Namespace) -> int:
    from openrs.rewards.grade_files import compare_file, grade_file
    from openrs.rewards.grading import Judge

    with Judge(args.workers, args.timeout) as judge:
        (compare_file if args.compare else grade_file)(args.file, judge, args.rule, print)
    return EXIT_DONE


def curate(args: argparse.Namespace) -> int:
    from openrs.cli.curate import curate as run

    return run(args.recipe, args.overrides, args.out, args.workers, args.shard)


def data(args: argparse.Namespace) -> int:
    from openrs.cli.curate import show

    return show(
        args.path, benchmarks=args.benchmarks, data=args.data, golds=args.golds, workers=args.workers, html=args.html,
        as_json=args.json, columns={"problem": args.problem, "answer": args.answer}, revision=args.revision,
    )  # fmt: skip


def export(args: argparse.Namespace) -> int:
    from openrs.hub import upload as uploads
    from openrs.hub.export import export as write
    from openrs.run.directory import existing_run

    uploads.check(args.push)
    folder = write(existing_run(args.run_name), args.step, args.to)
    print(f"model: {folder}", flush=True)
    if args.push is not None:
        print(f"pushed: {uploads.push(folder, args.push, private=not args.public, say=print, tries=args.tries)}")
    return EXIT_DONE


def track(args: argparse.Namespace) -> int:
    from openrs.run.directory import existing_run
    from openrs.training.tracking import rebuild

    print(f"{args.to}: {rebuild(existing_run(args.run_name), args.to)} steps")
    return EXIT_DONE


def plan(args: argparse.Namespace) -> int:
    from openrs.config.load import load
    from openrs.planner.render import answer

    recipe = load(args.recipe, args.overrides)
    options = ("gpu", "gpus", "layout", "price", "node_memory", "assume", "fit", "json")
    print(answer(recipe, run=args.learn_from, **{name: getattr(args, name) for name in options}), end="")
    return EXIT_DONE


def fetch(args: argparse.Namespace) -> int:
    from openrs.config.load import load
    from openrs.hub import fetch as fetching
    from openrs.hub.pins import references, target

    refs = target(args.recipe) or references(load(args.recipe, args.overrides))
    if args.list:
        print(fetching.render(fetching.listed(refs)), end="")
        return EXIT_DONE
    fetching.fetch_all(refs, lambda line: print(line, flush=True), workers=args.workers)
    return EXIT_DONE


def doctor(args: argparse.Namespace) -> int:
    from openrs.config.load import load
    from openrs.doctor import doctor as doctors
    from openrs.run.directory import run_at

    measure = args.what[:1] == ["nccl"]
    names = args.what[1:] if measure else args.what
    if len(names) > 1:
        raise UserError(f"one recipe at a time: {' '.join(names)}", fix="openrs doctor [nccl] [RECIPE]")
    recipe = load(names[0], args.overrides) if names else None
    run = run_at(args.run or (Path(names[0]).stem if names else "doctor"))
    if measure:
        doctors.measure_nccl(recipe, run.path, lambda line: print(line, flush=True))
        return EXIT_DONE
    text, code = doctors.diagnose(recipe, names[0] if names else None, run.path, quick=args.quick, as_json=args.json)
    print(text, end="")
    return code


def cluster(args: argparse.Namespace) -> int:
    from openrs.cli.cluster import run

    return run(args)
