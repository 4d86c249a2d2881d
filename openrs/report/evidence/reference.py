"""reference.yaml: the paper's figures, those of its logs and of its re-evaluations, and its claims, as typed data."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("reference.yaml")
TABLE_BENCHMARKS = ("aime24", "math_500", "amc23", "minerva", "olympiadbench")
NAMES = {
    "aime24": "AIME24",
    "aime25": "AIME25",
    "math_500": "MATH-500",
    "amc23": "AMC23",
    "minerva": "Minerva",
    "olympiadbench": "OlympiadBench",
    "gpqa_diamond": "GPQA-Diamond",
    "demo": "Demo sums",
}


@dataclass(frozen=True, slots=True)
class Logged:
    """One evaluation in the authors' logs: one sample a problem. accuracy in [0, 1]; tokens: mean output, if known."""

    experiment: str
    step: int
    revision: str | None
    benchmark: str
    accuracy: float
    n: int
    tokens: float | None
    hash_cont_tokens: str

    @property
    def model(self) -> str | None:
        """Open-RS1, 2 or 3 when this checkpoint is the released one."""
        return released_from(self.experiment, self.step)


@functools.cache
def tree() -> Mapping[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def released() -> Mapping[str, Mapping[str, Any]]:
    """Open-RS1 ... Open-RS3 -> experiment, step, revision_prefix."""
    return dict(tree()["released"])


@functools.cache
def logs() -> tuple[Logged, ...]:
    """All evaluations of the authors' logs, experiment by experiment, step by step."""
    return tuple(
        Logged(
            experiment=row["experiment"],
            step=row["step"],
            revision=row["revision"],
            benchmark=benchmark,
            accuracy=result["accuracy"],
            n=result["problems"],
            tokens=result["tokens"],
            hash_cont_tokens=result["hash_cont_tokens"],
        )
        for row in tree()["checkpoints"]
        for benchmark, result in row["results"].items()
    )


def log_of(hash_cont_tokens: str | None) -> Logged | None:
    """The authors' evaluation that generated exactly these tokens."""
    return next((one for one in logs() if one.hash_cont_tokens == hash_cont_tokens), None)


def row(model: str) -> Mapping[str, Any]:
    """The model's row of the main results table; empty for a model that is not in it."""
    return next((one for one in tree()["table"] if one["model"] == model), {})


def published(model: str | None, benchmark: str) -> float | None:
    """The score that the paper's table has, as a proportion."""
    value = row(model or "").get(benchmark)
    return None if value is None else float(value) / 100


def reevaluation(model: str | None, benchmark: str) -> tuple[float, float, int] | None:
    """Mean and standard deviation over seeds (proportions) and the number of seeds, in arXiv 2504.07086."""
    study = tree()["reevaluations"][0]
    found = next((one.get(benchmark) for one in study["rows"] if one["model"] == model), None)
    return (found[0] / 100, found[1] / 100, study["seeds"][benchmark]) if found else None


def model_named(name: str, revision: str | None = None) -> str | None:
    """The reference's model that a hub name, folder or revision means: the base or Open-RS1 ... 3, else None."""
    last = name.split("@", maxsplit=1)[0].rstrip("/").rpartition("/")[2].lower()
    named = next((model for model in (str(tree()["base"]), *released()) if last == model.lower()), None)
    return named or released_from(*(checkpoint_named(name, revision) or (None, None)))


def checkpoint_named(name: str, revision: str | None = None) -> tuple[str, int] | None:
    """Experiment and step of the authors' checkpoint that a revision, given or in `name@revision`, means."""
    revision = revision or (name.partition("@")[2] or None)
    if not revision or len(revision) < 12:
        return None
    every = (one for one in tree()["checkpoints"] if one["revision"])
    found = next((one for one in every if one["revision"].startswith(revision[:12])), None)
    return (found["experiment"], found["step"]) if found else None


def released_from(experiment: str | None, step: int | None) -> str | None:
    """Open-RS1 ... 3 when this is the released step of the experiment."""
    return next((m for m, r in released().items() if (r["experiment"], r["step"]) == (experiment, step)), None)


def name(benchmark: str) -> str:
    return NAMES.get(benchmark, benchmark)


def arithmetic() -> dict[str, Any]:
    """What 500 steps, and the released steps, really are in prompts, completions, hours and dollars."""
    facts = tree()["training"]
    group = facts["prompts_per_step"] * facts["completions_per_prompt"]
    return {
        "steps": facts["steps"],
        "prompts": facts["steps"] * facts["prompts_per_step"],
        "completions_per_step": group,
        "completions": facts["steps"] * group,
        "completions_published": 42000,
        "usd_per_gpu_hour": facts["usd"] / facts["hours"] / facts["gpus"],
        "seconds_per_step": 3600 * facts["hours"] / facts["steps"],
        "released": [
            {
                "model": model,
                "step": row["step"],
                "prompts": row["step"] * facts["prompts_per_step"],
                "completions": row["step"] * group,
                "hours": facts["hours"] * row["step"] / facts["steps"],
                "usd": facts["usd"] * row["step"] / facts["steps"],
            }
            for model, row in released().items()
        ],
    }
