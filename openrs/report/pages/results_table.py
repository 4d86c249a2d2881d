"""`openrs results --format`: scores of result files for a spreadsheet (csv) or a pull request (md)."""

import csv
import io

from openrs.report.evidence.lighteval_logs import Reading, Result
from openrs.report.evidence.values import ABSENT, percent, text
from openrs.report.pages.markdown import escaped

COLUMNS = (
    "model", "benchmark", "metric", "n_problems", "k_samples",
    "score_percent", "stderr_points", "inputs", "date", "file",
)  # fmt: skip


def as_csv(reading: Reading) -> str:
    """A line for each score, with names in the first line; unknown numbers are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_unlike_a_formula(cell) for cell in _cells(result)] for result in reading.results)
    return out.getvalue().rstrip("\n")


def as_markdown(reading: Reading) -> str:
    head = ("model", "benchmark", "metric", "n", "k", "score, %", "stderr, points", "inputs", "date", "file")
    rows = ([escaped(cell) or ABSENT for cell in _cells(result)] for result in reading.results)
    rule = ["---"] * 3 + ["---:"] * 7
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _cells(one: Result) -> list[str]:
    numbers = ["" if value is None else str(value) for value in (one.n, one.k)]
    scores = ["" if one.score is None or value is None else percent(value, 2) for value in (one.score, one.stderr)]
    words = [text(word).replace("\n", " ") for word in (one.model, one.benchmark, one.metric)]
    return [*words, *numbers, *scores, one.inputs, text(one.date), text(one.files[0], 500)]


def _unlike_a_formula(cell: str) -> str:
    """A spreadsheet runs a cell that begins like a formula; names in result files are other people's."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell
