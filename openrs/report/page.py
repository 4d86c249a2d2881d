"""report.html, report.md and report.json of a run: one tree of numbers (document.py), shown three times."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from openrs.errors import Refusal
from openrs.report import figures, values
from openrs.report.collect import RunData, collect
from openrs.report.document import TRAINING, document
from openrs.report.markdown import markdown
from openrs.rundir import Run, run_at, write_json, write_text

PARTS = Path(__file__).parent


def write_report(run: Run) -> Path:
    """Write report.json, report.md and report.html into the run directory; returns the page's path.

    Works on whatever part of a run is there and never fails for what files hold: what is missing is said in the report.
    """
    data = collect(run)
    tree = document(data)
    write_json(run.path / "report.json", tree)
    write_text(run.path / "report.md", markdown(tree))
    path = run.path / "report.html"
    write_text(path, html(tree, data))
    return path


def report_on(name: str) -> Path:
    """The report of the run called `name` or at that path. Raises Refusal when no such folder is there."""
    run = run_at(name)
    if not run.path.is_dir():
        raise Refusal(f"there is no folder {run.path}", mend="give the name of a folder in runs/, or its path")
    return write_report(run)


def html(tree: dict[str, Any], data: RunData) -> str:
    """The page: one file that asks the network for nothing and runs no script but its own (its CSP says so)."""
    style = (PARTS / "style.css").read_text(encoding="utf-8")
    script = (PARTS / "script.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("template.html")
        .render(
            r=tree,
            data=data,
            plots=figures.curves(data.metrics) if data.metrics.steps else [],
            words=TRAINING,
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> Environment:
    """Everything put into the page is escaped, unless it is our own SVG, style or script."""
    environment = Environment(
        loader=PackageLoader("openrs.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shows = (
        values.percent,
        values.points,
        values.span,
        values.point_span,
        values.short,
        values.probability,
        values.duration,
    )
    environment.filters |= {show.__name__: show for show in (*shows, values.dollars)}
    environment.filters["ours"] = Markup  # only for what this package made: plots, style, script
    return environment
