"""The arguments of `openrs cluster`: light, so that `openrs --help` needs neither the client nor torch."""

import argparse
from collections.abc import Callable
from pathlib import Path

Verb = Callable[[argparse.Namespace], int]


def add(cluster: argparse.ArgumentParser, run: Verb) -> None:
    """submit, status, logs, collect, stop, delete; `run` gets the namespace with `what` set to one of these."""
    subverbs = cluster.add_subparsers(dest="what", required=True, metavar="submit|status|logs|collect|stop|delete")

    def subverb(name: str, text: str) -> argparse.ArgumentParser:
        sub = subverbs.add_parser(name, help=text, description=text)
        sub.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
        sub.add_argument("-n", "--namespace", metavar="NAME", help="default: the context's, or the Pod's own")
        sub.set_defaults(function=run)
        return sub

    sub = subverb(
        "submit", "send a recipe's Job, then follow it; given again it follows, goes on or refuses, never doubles"
    )
    sub.add_argument("recipe", help="a recipe's name (see: openrs recipe list) or a path to a YAML file")
    sub.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="as for train")
    sub.add_argument(
        "--run", metavar="NAME", help="also names Job and claim, after openrs- (default: the recipe's name)"
    )
    sub.add_argument("--image", metavar="NAME@DIGEST", help="of openrs (default: OPENRS_IMAGE in the environment)")
    sub.add_argument("--train-only", action="store_true", help="`openrs train` instead of `openrs reproduce`")
    sub.add_argument(
        "--claim", metavar="NAME", help="an existing volume claim (default: openrs-RUN, made when missing)"
    )
    sub.add_argument("--storage-class", metavar="NAME", help="of a new claim (default: the cluster's default)")
    sub.add_argument("--queue", metavar="NAME", help="Kueue's LocalQueue")
    sub.add_argument(
        "--gpu-product", dest="products", action="append", default=[], metavar="LABEL",
        help="nodes with this nvidia.com/gpu.product, e.g. NVIDIA-L40S (again for more; default: the recipe's GPU)",
    )  # fmt: skip
    sub.add_argument("--dry-run", action="store_true", help="print the YAML that would be sent; asks no server")
    sub.add_argument("--detach", action="store_true", help="do not follow")
    sub.add_argument("--force", action="store_true", help="send it although the preflight found something missing")

    sub = subverb("status", "all runs of the namespace, or one with its Pods, and why it waits")
    sub.add_argument("run", nargs="?", metavar="RUN")

    sub = subverb("logs", "what a run's Pods print")
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("-f", "--follow", action="store_true", help="to the end, over broken connections and new Pods")
    sub.add_argument("--tail", type=int, metavar="N", help="only the last lines there are")

    sub = subverb(
        "collect", "copy report, scores, metrics, manifest and logs from the volume to here; goes on where it broke"
    )
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("--to", type=Path, default=Path("runs"), metavar="DIR", help="default: runs, as runs/RUN")
    kinds = sub.add_mutually_exclusive_group()
    kinds.add_argument("--all", action="store_true", help="completions and samples, too")
    kinds.add_argument("--checkpoints", action="store_true", help="everything, checkpoints included")
    sub.add_argument("--image", metavar="NAME@DIGEST", help="when the Job is gone and only its claim is left")

    sub = subverb("stop", "let a run write a checkpoint and end; submit lets it go on")
    sub.add_argument("run", metavar="RUN")

    sub = subverb("delete", "take a Job away; its claim with all data stays unless --claim is given")
    sub.add_argument("run", metavar="RUN")
    sub.add_argument("--claim", action="store_true", help="delete the volume claim, too, with everything in it")
    sub.add_argument("--yes", action="store_true", help="do not ask")
