"""report.html, report.md and report.json: one tree of numbers (document.py), shown three times."""

import base64
import functools
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from openrs.config.yaml_lines import dump_yaml
from openrs.errors import UserError
from openrs.report.evidence import reference, values
from openrs.report.evidence.collect import collect
from openrs.report.evidence.sources import Sources, gather
from openrs.report.pages import figures, grid, plots
from openrs.report.pages.document import TRAINING, document
from openrs.report.pages.markdown import environment, headline, markdown
from openrs.run.directory import Run, run_at
from openrs.run.disk_faults import written_to
from openrs.run.files import write_json, write_text
from openrs.run.terminal import say
from openrs.run.watch import has_ended
from openrs.secrets import redact, redact_tree

PARTS = Path(__file__).parent
TONES = {
    "reproduced": "good",
    "compatible": "warn",
    "cannot tell": "none",
    "smaller than the margin": "warn",
    "not reproduced": "bad",
    "by construction": "none",
    "not tested": "none",
}
MATRIX = ("score", "average")  # kinds of claims that stand in one table, model by model


def write_report(run: Run, price: float | None = None) -> Path:
    """Write report.json, report.md and report.html into the run directory; returns the page's path.

    Works on whatever part of a run is there and never fails for what files hold: what is missing is said in the report.
    price: dollars per GPU-hour, over the recipe's.
    """
    sources = Sources((collect(run),))
    return write(sources, run.path, document(sources, price))


def report_on(
    names: Sequence[str],
    out: str | None = None,
    price: float | None = None,
    *,
    paper: bool = False,
    refresh: int | None = None,
) -> Path:
    """The report on runs, single evaluations and result files; without any, on the published figures alone.

    A single run's report goes into the run, every other into `out` (default: the folder `report`). paper: lead with the
    paper's claims whatever the runs are. refresh: seconds after which a browser loads the page again.
    Raises UserError for a path that is not there, and for result files of which none can be read.
    """
    if price is not None and not 0 <= price < values.LARGEST:
        raise UserError(f"--price {price} is no price", fix="give dollars per GPU-hour, e.g. --price 0.4375")
    sources = gather(names)
    alone = len(sources.runs) == 1 and sources.results is None
    folder = Path(out) if out else sources.runs[0].path if alone else Path("report")
    return write(sources, folder, document(sources, price, paper=paper), refresh)


def keep_fresh(names: Sequence[str], out: str | None, price: float | None, *, paper: bool, every: int) -> None:
    """Write the report every `every` seconds as long as one of the runs goes on; the page loads itself again as often.

    Raises UserError as `report_on`, and for less than a second or more than a day.
    """
    if not 1 <= every <= 86_400:
        raise UserError(f"--watch {every} is not from 1 to 86400", fix="give seconds, e.g. --watch 60")
    while not all(has_ended(run_at(name)) for name in names):
        page = report_on(names, out, price, paper=paper, refresh=every)
        say(f"report: {page} (again in {every} s)")
        time.sleep(every)


def write(sources: Sources, folder: Path, tree: dict[str, Any], refresh: int | None = None) -> Path:
    """Write the three files into `folder`; returns the page's path. Raises UserError where nothing can be written, and
    RunFailure for a disk that fails."""
    path = folder / "report.html"
    page = html(tree, sources, refresh)
    with written_to(folder, "--out"):
        write_json(folder / "report.json", redact_tree(tree))
        write_text(folder / "report.md", redact(markdown(tree)))
        write_text(path, redact(page))
    return path


def html(tree: dict[str, Any], sources: Sources, refresh: int | None = None) -> str:
    """The page: one file that asks the network for nothing and runs no script but its own (its CSP says so)."""
    return rendered(
        "template.html",
        r=tree,
        view=view(tree, sources),
        training_words=TRAINING,
        headline=headline(tree),
        tones=TONES,
        refresh=refresh,
    )


def rendered(template: str, **values: Any) -> str:
    """A page of ours with its own style and script in it."""
    style, script = ((PARTS / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template(template).render(style=style, script=script, script_hash=digest, **values)


def view(tree: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """What the page shows beside the numbers: plots, grids of problems, completions, the claims in their tables.

    Grids and completions are shown of a single run; curves of several share their plots.
    """
    runs = sources.runs
    alone = runs[0] if len(runs) == 1 else None
    selections = [one["selection"] for one in tree["runs"]]
    over = [plots.checkpoints(run, one, named=alone is None) for run, one in zip(runs, selections, strict=True)]
    length = plots.accuracy_against_length(runs)
    paper = tree["focus"] == "paper"
    texts, note = grid.completions(alone) if alone else ([], "")
    published = (
        (plots.published_checkpoints(), plots.published_length(), *plots.published_benchmarks()) if paper else ()
    )
    return {
        "scores": plots.benchmarks(runs),
        "checkpoints": [plot for plot in (*over, length) if plot is not None],
        "training": figures.curves(alone.metrics) if alone and alone.metrics.steps else plots.overlay(runs),
        "zeros": figures.zeros(alone.metrics) if alone else (),
        "recipes": [values.text(dump_yaml(run.recipe, width=110), 40_000) if run.recipe else "" for run in runs],
        "published": published,
        "cost": [plots.cost_against_score(_own_costs(tree))] if paper else (),
        "grids": grid.grids(alone) if alone else (),
        "texts": texts,
        "texts_note": note,
        "changes": alone.changes if alone else (),
        "matrix": _matrix(tree),
        "groups": _groups(tree),
    }


def _own_costs(tree: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Runs with a price and all five benchmarks: name, dollars of training, average in percent."""
    found = []
    for run in tree["runs"]:
        final = next((one for one in run["evaluations"] if one["step"] == run["run"]["final_step"]), None)
        scores = final["benchmarks"] if final else {}
        spent = run["cost"]["training_dollars"] if run["cost"] else None
        if spent and all(name in scores for name in reference.TABLE_BENCHMARKS):
            mean = sum(scores[name]["accuracy"] for name in reference.TABLE_BENCHMARKS) / 5
            found.append((run["run"]["name"], spent, round(100 * mean, 1)))
    return found


def _matrix(tree: dict[str, Any]) -> list[tuple[str, Sequence[dict[str, Any]]]]:
    """The table's claims, model by model: five scores and the average."""
    return [
        (model, own)
        for model in reference.released()
        if (own := [claim for claim in tree["claims"] if claim["kind"] in MATRIX and claim["model"] == model])
    ]


def _groups(tree: dict[str, Any]) -> list[tuple[str, Sequence[dict[str, Any]]]]:
    """The other claims, question by question."""
    return [
        (question, [claim for claim in tree["claims"] if claim["kind"] in kinds])
        for question, kinds in tree["questions"].items()
        if not set(kinds) & set(MATRIX)
    ]


@functools.cache
def _environment() -> Environment:
    """Everything put into the page is escaped, unless it is our own SVG, style or script."""
    made = environment()
    made.filters |= {"tally": grid.tally, "ours": Markup}  # `ours` only for what this package made
    return made
