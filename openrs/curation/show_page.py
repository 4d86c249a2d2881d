"""What `openrs data show` prints, and its page. Rows are hostile: everything of theirs is escaped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from openrs.curation.picture import histogram
from openrs.curation.references import reference_answer
from openrs.curation.show import SHOWN_TEXT, Finding, Shown
from openrs.curation.text import shortened
from openrs.rewards.grading import printable
from openrs.run.disk_faults import written_to
from openrs.run.files import write_text

BAR = 40


def lines(shown: Shown) -> Iterator[str]:
    """For a terminal."""
    yield f"{printable(shown.path)}: {shown.rows:,} rows, {shown.readable:,} readable, {shown.unique:,} unique prompts"
    if shown.read_as:
        yield printable(shown.read_as)
    for name, counted in (
        ("source", shown.sources),
        ("level", shown.levels),
        ("answer", shown.answers),
        ("hard to judge", shown.kinds),
    ):
        if any(key != "-" for key in counted):
            yield f"{name:8s} " + ", ".join(f"{printable(key)} {count:,}" for key, count in counted.most_common(10))
    yield "characters " + ", ".join(f"{name} {value:,}" for name, value in shown.length_quantiles.items())
    yield from _bars("problem length in characters", shown.lengths)
    yield from _bars("pass rate", shown.rates)
    for title, findings in sections(shown):
        yield f"{title}:" + ("" if findings else " none")
        for reason, finding in findings:
            yield f"  {printable(reason)}: {finding.count:,}"
            for place, problem, detail in finding.examples:
                yield f"    {printable(place)}  {_line(problem, 90)}" + (f"  ({_line(detail, 80)})" if detail else "")
    if shown.unchecked:
        yield f"benchmarks not compared: {printable(shown.unchecked)}"
    yield "some rows:"
    for row in shown.examples:
        yield f"  {printable(row.place)}  {_line(row.problem, 150)}  ->  {_line(row.answer, 50)}"


def sections(shown: Shown) -> list[tuple[str, Sequence[tuple[str, Finding]]]]:
    """The findings with their titles, the most frequent first."""
    compared = f"questions of {', '.join(shown.benchmarks)}" if shown.benchmarks else ""
    parts = [
        ("rows that cannot be used", shown.unreadable),
        ("copies", shown.copies),
        (f"bad reference answers among {shown.judged:,} judged" if shown.judged else "", shown.references),
        (compared, shown.overlap),
    ]
    return [(title, sorted(f.items(), key=lambda one: -one[1].count)) for title, f in parts if title]


def write_page(shown: Shown, path: Path) -> None:
    """One HTML file that asks the network for nothing and runs no script. Raises UserError where it cannot be
    written."""
    environment = Environment(
        loader=PackageLoader("openrs.curation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pictures = [Markup(histogram("Problem length in characters", shown.lengths))] if shown.lengths else []  # noqa: S704 - ours
    if shown.rates:
        pictures.append(Markup(histogram("Pass rate", shown.rates)))  # noqa: S704
    page = environment.get_template("show.html").render(
        s=shown,
        sections=sections(shown),
        pictures=pictures,
        reference_answer=reference_answer,
        most=SHOWN_TEXT,
        readable=readable,
    )
    with written_to(path, "--html"):
        write_text(path, page)


def readable(text: str) -> str:
    """Text for the page: its lines as they are, what cannot be seen made visible."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _line(text: str, most: int) -> str:
    return shortened(printable(" ".join(text.split())), most)


def _bars(title: str, counted: Sequence[tuple[str, int]]) -> Iterator[str]:
    if not counted:
        return
    most = max(count for _, count in counted) or 1
    wide = max(len(label) for label, _ in counted)
    yield f"{title}:"
    for label, count in counted:
        yield f"  {label:>{wide}} {'█' * round(BAR * count / most):<{BAR}} {count:,}"
