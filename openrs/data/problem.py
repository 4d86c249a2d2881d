"""One training problem."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `id` names it in metrics and samples; `answer` is the reference answer as the judge gets it."""

    id: str
    problem: str
    answer: str
