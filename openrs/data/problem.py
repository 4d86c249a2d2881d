"""One training problem."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `id` names it in metrics and samples; `answer` is the reference answer as the judge gets it;
    `system` is its own system message, where the recipe keeps those of chat rows."""

    id: str
    problem: str
    answer: str
    system: str | None = None
