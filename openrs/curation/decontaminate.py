"""Questions of the benchmarks that stand in the data: the same text, or most of its word n-grams with the same numbers.

The paper describes no decontamination. What is found here is a text that was copied, perhaps with other typing, a few
other words, or more text around it; a question told in wholly other words is not found. A question with other numbers
is another question (most textbooks are made of those) and stays, unless `same_numbers: false`.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.curation.rows import Out, Row
from openrs.curation.settings import Decontaminate
from openrs.curation.text import fingerprint, numbers, shingles, tokens
from openrs.errors import UserError
from openrs.run.files import write_json

SHORT, LONG = 20, 60  # n-grams of a question


@dataclass(frozen=True, slots=True)
class Questions:
    """All questions of the benchmarks. found: n-gram -> the questions that have it."""

    ids: list[tuple[str, str]]
    exact: dict[str, int]
    found: dict[str, list[int]]
    sizes: list[int]
    numbers: list[Counter[str]]


def gather(settings: Decontaminate, folder: Path) -> Path:
    """Load the benchmarks and write their questions to a file in `folder`, for the processes that look rows up.

    Raises UserError for a benchmark that is unknown or cannot be loaded.
    """
    from openrs.evaluation import benchmarks as bench

    data = Path(settings.data).expanduser() if settings.data is not None else None
    rows: list[tuple[str, str, str]] = []
    for one in bench.resolve(settings.benchmarks):
        try:
            rows += [(one.name, row.id, row.question) for row in bench.load_problems(one, data, any_count=True)]
        except UserError as error:
            raise UserError(
                f"decontamination: {error.what}",
                error.why,
                "give the folder of the benchmark files (--set stages.decontaminate.data=DIR), or leave the benchmark"
                " out (--set stages.decontaminate.benchmarks=[...])",
            ) from None
    path = folder / f"questions-{fingerprint(*(text for row in rows for text in row))}.json"
    if not path.is_file():
        write_json(path, rows)
    return path


def decontaminate(settings: Decontaminate, questions: Path | None) -> Callable[[Row], Row | Out]:
    if questions is None:
        raise ValueError("the questions have not been gathered")
    asked = load(str(questions), settings.ngram)

    def check(row: Row) -> Row | Out:
        found = match(row.problem, asked, settings)
        if found is None:
            return row
        (benchmark, id_), share = found
        if share is None:
            return Out(f"a question of {benchmark}", "the same text", id_)
        return Out(f"much of a question of {benchmark}", f"{share:.0%} of its {settings.ngram}-grams", id_)

    return check


def match(problem: str, asked: Questions, settings: Decontaminate) -> tuple[tuple[str, str], float | None] | None:
    """The benchmark question that a problem contains, as ((benchmark, id), share of n-grams; None for all of it)."""
    words = tokens(problem)
    same = asked.exact.get(" ".join(words))
    if same is not None:
        return asked.ids[same], None
    shared: Counter[int] = Counter()
    for gram in shingles(words, settings.ngram):
        for index in asked.found.get(gram, ()):
            shared[index] += 1
    if not shared:
        return None
    own = Counter(numbers(words))
    best: tuple[float, int] | None = None
    for index, count in shared.items():
        size = asked.sizes[index]
        least = settings.overlap_short if size < SHORT else settings.overlap_long if size >= LONG else settings.overlap
        share = count / size
        if share < least or (settings.same_numbers and asked.numbers[index] - own):
            continue
        best = max(best or (0.0, 0), (share, -index))
    return None if best is None else (asked.ids[-best[1]], best[0])


@functools.lru_cache(maxsize=2)
def load(path: str, ngram: int) -> Questions:
    rows: list[list[Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    asked = Questions([], {}, {}, [], [])
    for index, (benchmark, id_, question) in enumerate(rows):
        words = tokens(question)
        grams = shingles(words, ngram)
        asked.ids.append((benchmark, id_))
        asked.exact.setdefault(" ".join(words), index)
        asked.sizes.append(len(grams))
        asked.numbers.append(Counter(numbers(words)))
        for gram in grams:
            asked.found.setdefault(gram, []).append(index)
    return asked
