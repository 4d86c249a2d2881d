"""Which completions the page carries: a few of each place, within a budget, and how many were left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Text

TEXTS = 120
BYTES = 1_600_000  # of UTF-8, all texts together


@dataclass(frozen=True, slots=True)
class Browser:
    """Texts to look at; places and verdicts to choose from; note: what is shown of what there is."""

    texts: tuple[Text, ...]
    places: tuple[str, ...]
    verdicts: tuple[str, ...]
    note: str


def browser(run: RunData) -> Browser:
    """Completions of the training, then of the base and the final checkpoint, then of the other evaluations."""
    first = [one for one in (run.base, run.final) if one is not None]
    rest = [one for one in run.evaluations if one not in first]
    groups = [run.texts, *(list(one.texts) for one in [*first, *rest])]
    every = [text for group in groups for text in group]
    kept, used = [], 0
    for text in every[:TEXTS]:
        used += len((text.completion + text.prompt).encode())
        if used > BYTES:
            break
        kept.append(text)
    samples = sum(one.samples for one in run.evaluations)
    note = f"{len(kept)} completions, drawn at random"
    note += f" from {samples:,} evaluation samples and the steps that were saved" if samples else ""
    return Browser(tuple(kept), _distinct([t.place for t in kept]), _distinct([t.verdict for t in kept]), note)


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
