"""A study's plan as a page: one file, with the frontier of dollars against claims decided."""

from pathlib import Path

from openrs.report.pages import plots
from openrs.report.pages.page import rendered
from openrs.run.disk_faults import written_to
from openrs.run.files import write_text
from openrs.study import render
from openrs.study.plan import StudyPlan


def write_page(plan: StudyPlan, path: Path) -> Path:
    """Write the page; returns its path. Raises UserError where nothing can be written."""
    points = plan.frontier()
    total = plan.rows[-1].total if plan.rows else None
    page = rendered(
        "study_plan.html",
        plan=plan,
        headline=render.headline(plan),
        frontier=plots.frontier(points, total.expected if total else 0.0, len(plan.decidable))
        if len(points) > 1
        else None,
        notes=[" ".join(note.split()) for note in render.notes(plan)],
    )
    with written_to(path, "--page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    return path
