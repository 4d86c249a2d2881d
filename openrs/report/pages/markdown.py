"""report.md: the same tree in plain Markdown, for terminals, model cards and pull requests (markdown.txt)."""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from openrs.evaluation.scores import e_notation
from openrs.report.evidence import reference, values
from openrs.report.evidence.values import ABSENT
from openrs.report.pages import words
from openrs.report.verdicts.claims import NO_EVIDENCE

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(tree: dict[str, Any]) -> str:
    """The whole report as Markdown; texts of strangers are escaped."""
    from openrs.report.pages.document import TRAINING

    tested = any(claim["verdict"] not in NO_EVIDENCE for claim in tree["claims"])
    page = _environment().get_template("markdown.txt")
    return page.render(r=tree, headline=words.headline(tree), tested=tested, training_words=TRAINING) + "\n"


@functools.cache
def _environment() -> Environment:
    """Everything put into the report is escaped for Markdown, unless it is a number in words of ours: < 0.001."""

    def finalize(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escaped(value))  # noqa: S704 - escaped, not for HTML

    made = environment(finalize=finalize)
    made.filters["probability"] = lambda value: Markup(values.probability(value))  # noqa: S704 - a number
    made.filters["dollars"] = lambda value: Markup(values.dollars(value))  # noqa: S704 - a number
    made.globals["e_notation"] = e_notation
    return made


def environment(**options: Any) -> Environment:
    """Templates of the report's pages, with what they show numbers by. What is put in is escaped."""
    made = Environment(
        loader=PackageLoader("openrs.report.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    numbers = ("percent", "points", "span", "point_span", "short", "probability", "duration", "dollars")
    made.filters |= {name: getattr(values, name) for name in numbers}
    made.filters |= {"sampling": sampling, "benchmark": reference.name}
    return made


def escaped(text: Any) -> str:
    """Text in a cell or a line of Markdown: no markup, no HTML, no line break of its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 1) -> Iterator[str]:
    """A table of cells that are escaped already; columns from number `right` on are set flush right."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "|".join(" --- " if i < right else " ---: " for i in range(len(head))) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def sampling(protocol: dict[str, Any]) -> str:
    """How completions were drawn, in a few words."""
    names = {"temperature": "temperature", "top_p": "top-p", "max_tokens": "cap", "seed": "seed", "engine": ""}
    return (
        ", ".join(f"{word} {protocol[key]}".strip() for key, word in names.items() if protocol.get(key) is not None)
        or ABSENT
    )
