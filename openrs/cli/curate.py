"""`openrs curate` and `openrs data show`: make a dataset, or look at one."""

import argparse
import json
import sys
from pathlib import Path

from openrs.cli.options import Verbs, add_overrides, add_verb, names
from openrs.errors import EXIT_DONE, UserError
from openrs.run.terminal import say


def add(verbs: Verbs) -> None:
    text = "make a dataset from raw problems by a recipe of stages; every removed row is kept with its reason"
    sub = add_verb(verbs, curate, text)
    sub.add_argument("recipe", help="open-s1, open-deepscaler, open-rs, a YAML file, or a data file (docs/curation.md)")
    add_overrides(sub, "override any setting, e.g. stages.length.max_tokens=256, stages.form=false")
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: datasets/NAME)")
    sub.add_argument("--workers", type=int, metavar="N", help="processes (default: number of processors)")
    sub.add_argument("--shard", metavar="I/N", help="only generate part I of N of a model's samples, for a cluster")
    inner = verbs.add_parser("data", help="look at a dataset").add_subparsers(required=True, metavar="show")
    text = "summarise a dataset: counts, lengths, difficulty, duplicates, unusable answers, benchmark questions, rows"
    look = add_verb(inner, show, text)
    look.add_argument("path", help="a data file, a folder of them, or a hub data set (docs/data.md)")
    look.add_argument("--html", type=Path, metavar="FILE", help="also write an HTML page")
    look.add_argument(
        "--problem", metavar="COLUMN", help="default: problem, question or prompt; dots select nested ones"
    )
    look.add_argument("--answer", metavar="COLUMN", help="default: answer, reward_model.ground_truth, final_answer")
    look.add_argument("--revision", metavar="COMMIT", help="of a hub data set (default: the newest)")
    look.add_argument("--benchmarks", type=names, metavar="A,B", help="compare with these only")
    look.add_argument("--data", metavar="DIR", help="folder with the benchmarks' NAME.jsonl files (default: the hub)")
    look.add_argument(
        "--references", type=int, default=1000, metavar="N", help="reference answers judged (default 1000; 0: none)"
    )
    look.add_argument("--workers", type=int, metavar="N", help="processes (default: number of processors)")
    look.add_argument("--json", action="store_true")


def curate(args: argparse.Namespace) -> int:
    from openrs.curation import chain
    from openrs.curation.settings import load
    from openrs.evaluation.shards import shard_from

    settings = load(args.recipe, args.overrides)
    part = shard_from(args.shard) if args.shard is not None else None
    out = args.out or Path("datasets") / (Path(args.recipe).stem or "own")
    chain.curate(settings, out, _workers(args.workers), part)
    return EXIT_DONE


def show(args: argparse.Namespace) -> int:
    """Print a summary of a dataset, and write the HTML page with --html."""
    from openrs.curation import show as dataset
    from openrs.curation.settings import Source
    from openrs.curation.show_page import lines, write_page
    from openrs.run.libraries import quiet
    from openrs.run.progress import Progress

    quiet()
    if args.references < 0:
        raise UserError(f"--references {args.references} is below 0", fix="--references 1000, or 0 for none")
    columns = {name: column for name in ("problem", "answer") if (column := getattr(args, name)) is not None}
    source = Source.model_validate({"path": args.path, "revision": args.revision, "allow_unpinned": True, **columns})
    shown = dataset.look(
        source, benchmarks=args.benchmarks, data=args.data, references=args.references, workers=_workers(args.workers),
        progress=Progress(stream=sys.stderr),
    )  # fmt: skip
    if args.html is not None:
        write_page(shown, args.html)
    text = json.dumps(dataset.as_json(shown), indent=2, ensure_ascii=True) if args.json else "\n".join(lines(shown))
    say(text if args.html is None or args.json else f"{text}\npage: {args.html}")
    return EXIT_DONE


def _workers(requested: int | None) -> int:
    from openrs.rewards.grading import processors

    if requested is not None and requested < 1:
        raise UserError(f"--workers {requested}", fix="use at least one process: --workers 1")
    return requested or min(processors(), 32)
