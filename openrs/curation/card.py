"""What a chain leaves: train.parquet, removed/removed.parquet, README.md with its picture, manifest.json.

removed.parquet lies in a folder of its own because training reads every parquet file of the folder that it is given.
Nothing here has a date in it: the same rows give the same bytes.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from openrs.config.yaml_lines import dump_yaml
from openrs.curation.picture import funnel
from openrs.curation.references import reference_answer
from openrs.curation.rows import Gone, Row, read_gone, read_rows
from openrs.curation.settings import Curation, Decontaminate, tree_of
from openrs.curation.steps import Step
from openrs.curation.text import fingerprint, shortened
from openrs.run.confined import make_folder, replacing
from openrs.run.files import sha256, write_json, write_text
from openrs.run.manifest import code_version
from openrs.run.progress import Progress

EXAMPLES = 3  # removed rows shown for each reason
PACKAGES = ("datasketch", "lighteval", "math-verify", "numpy", "pyarrow", "tokenizers", "vllm", "transformers")
KEPT = {
    "id": "string", "source": "string", "problem": "string", "solution": "string", "answer": "string",
    "level": "string", "tokens": "int32", "pass_rate": "float64", "samples": "int32",
}  # fmt: skip
HEAD: tuple[str, ...] = ("---", "configs:", "- config_name: default", "  data_files:", "  - split: train")
HEAD += ("    path: train.parquet", "---")
REMOVED = {"id": "string", "place": "string", "stage": "string", "reason": "string", "detail": "string"}
REMOVED |= {"other": "string", **{name: kind for name, kind in KEPT.items() if name != "id"}}


@dataclass(slots=True)
class Stage:
    """One line of the card. examples: reason -> removed rows, drawn by their digest."""

    name: str
    rows: int
    kept: int
    facts: Mapping[str, Any]
    reasons: Counter[str] = field(default_factory=Counter)
    others: dict[str, set[str]] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, Gone]]] = field(default_factory=dict)

    def count(self, gone: Gone) -> None:
        self.reasons[gone.reason] += 1
        if gone.other:
            self.others.setdefault(gone.reason, set()).add(gone.other)
        drawn = self.examples.setdefault(gone.reason, [])
        drawn.append((fingerprint(gone.row.id, gone.reason), gone))
        drawn.sort(key=lambda one: one[0])
        del drawn[EXAMPLES:]


def write_output(
    recipe: Curation, identities: Mapping[str, Any], steps: Sequence[Step], *, out: Path, progress: Progress
) -> Path:
    """Write everything from the finished steps; returns the path of train.parquet."""
    progress.say("writing the dataset")
    tree, stages = tree_of(recipe), [Stage(step.name, **(step.done() or {})) for step in steps]
    make_folder(out / "removed")
    data, removed = out / "train.parquet", out / "removed" / "removed.parquet"
    rows = _write(data, KEPT, ([_kept(row) for row in read_rows(path)] for path in steps[-1].parts()))
    _write(removed, REMOVED, _all_gone(steps, stages))
    bars = [(stage.name, stage.rows, stage.kept) for stage in stages]
    write_text(out / "card.svg", funnel(f"{recipe.title}: rows left after each stage", bars))
    write_text(out / "README.md", markdown(recipe, tree, identities, stages, rows))
    files = {
        path.relative_to(out).as_posix(): sha256(path) for path in (data, removed, out / "card.svg", out / "README.md")
    }
    write_json(out / "manifest.json", _manifest(recipe, tree, identities, stages, files))
    counts = ", ".join(f"{stage.name} {stage.kept:,}" for stage in stages)
    progress.say(f"{counts}\n{rows:,} rows: {data}  (card: {out / 'README.md'}, removed rows: {removed})")
    return data


def _kept(row: Row) -> dict[str, Any]:
    rate = row.right / row.samples if row.samples and row.right is not None else None
    return {
        "id": row.id, "source": row.source, "problem": row.problem, "solution": reference_answer(row),
        "answer": row.answer, "level": row.level, "tokens": row.tokens, "pass_rate": rate, "samples": row.samples,
    }  # fmt: skip


def _all_gone(steps: Sequence[Step], stages: Sequence[Stage]) -> Iterator[list[dict[str, Any]]]:
    for step, stage in zip(steps, stages, strict=True):
        for path in sorted(step.path.glob("removed-*.parquet")):
            gone = read_gone(path)
            for one in gone:
                stage.count(one)
            yield [
                {**_kept(one.row), "solution": one.row.solution, "place": one.row.place, "stage": one.stage,
                 "reason": one.reason, "detail": one.detail, "other": one.other}
                for one in gone
            ]  # fmt: skip


def _write(path: Path, columns: Mapping[str, str], batches: Iterable[list[dict[str, Any]]]) -> int:
    """Parquet, part by part, whole or not at all. Returns the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])
    rows = 0
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                rows += len(batch)
    return rows


def _manifest(
    recipe: Curation, tree: Mapping[str, Any], identities: Mapping[str, Any], stages: Sequence[Stage], files: Any
) -> dict[str, Any]:
    read = stages[0].facts
    return {
        "title": recipe.title,
        "openrs": code_version(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "recipe": {"sha256": recipe.hash, "settings": tree},
        "seed": recipe.seed,
        "sources": {
            name: {**identities[name], "rows": read["sources"][name], "rows_sha256": read["sha256"][name]}
            for name in identities
        },
        "stages": [
            {"name": one.name, "rows": one.rows, "kept": one.kept, "removed": dict(sorted(one.reasons.items())),
             "facts": one.facts}
            for one in stages
        ],
        "files": files,
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def markdown(
    recipe: Curation, tree: Mapping[str, Any], identities: Mapping[str, Any], stages: Sequence[Stage], rows: int
) -> str:
    lines = [
        *HEAD,
        f"# {code(recipe.title, bare=True)}", "",
        (
            f"{rows:,} problems of {stages[0].rows:,} raw ones, made by `openrs curate` (seed {recipe.seed}, recipe"
            f" `{recipe.hash[:12]}`). Every row that was taken out is in `removed/removed.parquet` with its reason."
        ), "",
        "![rows left after each stage](card.svg)", "",
        "| stage | rows in | taken out | rows left |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    lines += [f"| {code(one.name)} | {one.rows:,} | {one.rows - one.kept:,} | {one.kept:,} |" for one in stages]
    lines += ["", "## Sources", ""]
    for name, facts in identities.items():
        files = [f"{code(file)} (SHA-256 `{digest[:16]}…`)" for file, digest in facts.get("files", {}).items()]
        origin = (
            ", ".join(files)
            or f"{code(str(facts.get('hub')))} at {code(str(facts.get('commit') or facts.get('revision')))}"
        )
        lines.append(f"- {code(name)}: {stages[0].facts['sources'][name]:,} rows from {origin}")
    lines += ["", "## What was taken out, and why", ""]
    for one in stages:
        if one.reasons or one.facts:
            lines += _about(one)
    lines += _contamination(recipe, stages)
    settings = dump_yaml(dict(tree), width=110).replace("```", "'''").rstrip()
    return "\n".join([*lines, "## Settings", "", "```yaml", settings, "```", ""])


def _about(stage: Stage) -> list[str]:
    lines = [f"### {code(stage.name, bare=True)}", ""]
    facts = [f"{name}: {value:,}" for name, value in stage.facts.items() if isinstance(value, int) and value]
    if facts:
        lines += [f"Known besides: {'; '.join(facts)}.", ""]
    for reason, count in sorted(stage.reasons.items(), key=lambda one: (-one[1], one[0])):
        lines.append(f"- **{code(reason, bare=True)}**: {count:,}")
        for _, gone in stage.examples[reason]:
            why = " · ".join(part for part in (gone.detail, gone.other) if part)
            lines.append(
                f"  - {code(gone.row.place)} {code(gone.row.problem or '-')} → {code(gone.row.answer or '-', 60)}"
            )
            lines += [f"    {code(why)}"] if why else []
    return [*lines, ""]


def _contamination(recipe: Curation, stages: Sequence[Stage]) -> list[str]:
    lines: list[str] = []
    for stage in stages:
        settings = recipe.stages.get(stage.name)
        if not isinstance(settings, Decontaminate):
            continue
        head = "| benchmark | rows with the same text | rows with much of a question | questions |"
        lines += ["## Benchmarks", "", head, "|---|--:|--:|--:|"]
        for name in settings.benchmarks:
            same, much = f"a question of {name}", f"much of a question of {name}"
            questions = len(stage.others.get(same, set()) | stage.others.get(much, set()))
            lines.append(f"| {code(name)} | {stage.reasons[same]} | {stage.reasons[much]} | {questions} |")
        lines += ["", "Questions told in wholly other words are not found by comparing texts.", ""]
    return lines


def code(text: str, most: int = 160, *, bare: bool = False) -> str:
    """Text from anywhere as one line of Markdown that does nothing but stand there."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    line = shortened(line, most)
    if bare:
        return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~&" else c for c in line)
    return f"`{line.replace('`', chr(39)).replace('|', '¦')}`"
