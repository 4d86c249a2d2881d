"""How completions are drawn: the protocols that other evaluations published, and any other.

A protocol is nothing but settings of recipe.Evaluation. Results carry the name of the one that their settings are, so
changing one setting of `paper` gives `custom`, whatever was typed.
"""

from collections.abc import Mapping
from typing import Any, Literal

from openrs.config.load import with_changes
from openrs.config.schema import Evaluation
from openrs.evaluation.benchmarks import Benchmark

Name = Literal["paper", "sober", "custom"]

SMALL = 100  # problems: one more right answer of 30 is 3.3 points, so a benchmark below this wants more samples

PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    # arXiv 2503.16219, section 3.1; max_model_len: as the authors set it; the second BOS: their token hashes
    "paper": {
        "samples": 1,
        "samples_small": None,
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 32768,
        "max_model_len": 32768,
        "double_bos": True,
        "seed": 1234,
    },
    # arXiv 2504.07086: ten seeds on AIME and AMC, three on the others
    "sober": {
        "samples": 3,
        "samples_small": 10,
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 32768,
        "max_model_len": None,
        "double_bos": False,
        "seed": 1234,
    },
}


def samples_of(settings: Evaluation, benchmark: Benchmark) -> int:
    """k: completions of each problem of a benchmark."""
    return (settings.samples_small if benchmark.rows < SMALL else None) or settings.samples


def chosen(settings: Evaluation, protocol: str | None, options: Mapping[str, Any]) -> Evaluation:
    """Settings of a recipe (or the defaults), then of a protocol, then of single options, each over the one before.

    `samples` as an option means as many everywhere. Raises UserError naming an option that cannot be.
    """
    everywhere = {"samples_small": None} if "samples" in options else {}
    return with_changes(settings, {**PROTOCOLS.get(protocol or "custom", {}), **everywhere, **options})


def name_of(settings: Evaluation) -> Name:
    """The protocol that these settings are. `sober` with more samples than it asks for is still sober."""
    drawn = settings.model_dump(include=set(PROTOCOLS["paper"]))
    if drawn == dict(PROTOCOLS["paper"]):
        return "paper"
    sober = PROTOCOLS["sober"]
    enough = settings.samples >= sober["samples"] and (settings.samples_small or settings.samples) >= 10
    same = {*sober} - {"samples", "samples_small", "seed"}
    return "sober" if enough and all(drawn[key] == sober[key] for key in same) else "custom"


def described(settings: Evaluation, engine: str, bos: int) -> str:
    """One line for people."""
    few = f", {settings.samples_small} on benchmarks of fewer than {SMALL}" if settings.samples_small else ""
    front = {0: "no BOS in front", 1: "one BOS in front", 2: "two BOS in front, as the authors' harness fed them"}
    return (
        f"protocol {name_of(settings)}: {settings.samples} sample{'s' if settings.samples > 1 else ''} a problem{few},"
        f" temperature {settings.temperature:g}, top-p {settings.top_p:g}, at most"
        f" {min(settings.max_tokens, settings.max_model_len or settings.max_tokens):,} tokens,"
        f" seed {settings.seed}, {engine}, {front.get(bos, f'{bos} BOS in front')}"
    )
