"""`openrs curate`: sources -> stages, one after another -> train.parquet, removed.parquet, the card, the manifest.

Rows stream through in parts, so memory does not grow with the source; what a stage has finished is on disk, so a killed
chain resumes where it was. The same input, recipe and seed give the same bytes.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from openrs.config.schema import Evaluation, Settings
from openrs.curation import decontaminate, draw, duplicates, sources
from openrs.curation.pool import Pool
from openrs.curation.references import ReferenceJudge, reference_answer
from openrs.curation.rows import PART_BYTES, PART_ROWS, Out, Row, read_rows
from openrs.curation.settings import (
    Curation,
    Decontaminate,
    Difficulty,
    Draw,
    Duplicates,
    Form,
    Length,
    Rewrite,
    Sampling,
    Verify,
    kind_of,
    to_yaml,
)  # fmt: skip
from openrs.curation.stages import check_of
from openrs.curation.steps import Chain, Step, counts, made_from
from openrs.curation.text import digest
from openrs.errors import UserError
from openrs.evaluation.engines import layout_of
from openrs.evaluation.shards import Shard
from openrs.hub.models import local_model
from openrs.rewards.kinds import reference_kinds
from openrs.run import signals
from openrs.run.directory import Lock, Run
from openrs.run.disk_faults import faults_explained
from openrs.run.files import write_text
from openrs.run.progress import Progress


def curate(recipe: Curation, out: Path, workers: int, shard: Shard | None = None) -> Path | None:
    """Run the chain into the folder `out`; returns the dataset's path, None for a shard (which ends with its samples).

    Raises UserError for sources, benchmarks and models that cannot be used and when no row is left, Interrupted for
    Ctrl-C and SIGTERM, RunFailure for a full disk; the same command resumes from what is done.
    """
    from openrs.curation.card import write_output
    from openrs.run.libraries import quiet

    with _launched(out, wait=shard is not None) as (lock, progress), Pool(workers) as pool:
        quiet(out / "work" / "libraries.log")
        write_text(out / "recipe.yaml", to_yaml(recipe))
        chain = Chain(recipe, out, pool, progress, shard, lock)
        identities = {name: dict(sources.identity(source)) for name, source in recipe.sources.items()}
        _foresee(chain)
        steps = [_read(chain, identities)]
        for index, (name, settings) in enumerate(recipe.stages.items(), start=1):
            step = _stage(chain, index, name, settings, steps[-1])
            if step is None:
                return None
            steps.append(step)
        data = write_output(recipe, identities, steps, out=out, progress=progress)
        _refuse_nothing_left(steps, data)
        return data


def _refuse_nothing_left(steps: Sequence[Step], data: Path) -> None:
    """Raises UserError for a dataset without a row, naming the stage that took the last ones and its reasons."""
    if any(counts(path) for path in steps[-1].parts()):
        return
    last = next(step for step in steps if not any(counts(path) for path in step.parts()))
    reasons = Counter(gone.reason for gone in last.gone()).most_common(3)
    raise UserError(
        f"no row is left: {data} is empty",
        f"{last.name} took the last {sum(n for _, n in reasons):,}: " + ", ".join(f"{r} ({n:,})" for r, n in reasons),
        f"look at removed/removed.parquet, and change stages.{last.name}, or the source's columns",
    )


@contextmanager
def _launched(out: Path, *, wait: bool) -> Iterator[tuple[Lock, Progress]]:
    said = faults_explained(out, "resumes from what is complete")
    with said, signals.install_handlers(), _locked(out, wait=wait) as lock:
        (out / "work").mkdir(exist_ok=True)
        with closing(Progress(out / "work" / "log")) as progress:
            yield lock, progress


def _locked(out: Path, *, wait: bool) -> Lock:
    """The folder's lock. Shards of one folder start together: one does the stages before, the others wait for it."""
    while True:
        try:
            return Lock(Run(out), "--out")
        except UserError as error:
            if not wait or "in use" not in error.what:
                raise
            time.sleep(2)


def _foresee(chain: Chain) -> None:
    """What the last stages need is refused before the first has worked: benchmarks, tokenizers, models, engines."""
    for settings in chain.recipe.stages.values():
        if isinstance(settings, Decontaminate):
            decontaminate.gather(settings, chain.work)
        if isinstance(settings, Length) and settings.tokenizer is not None:
            local_model(settings.tokenizer, settings.revision)
        asked = settings.llm if isinstance(settings, Form) else settings
        if isinstance(asked, Sampling):
            layout_of(Evaluation(engine=asked.engine, processes=asked.processes))
            local_model(asked.model, asked.revision)


def _read(chain: Chain, identities: dict[str, Any]) -> Step:
    """Sources into parts. A source is read again whole when a kill cut it short: that takes seconds."""
    recipe = chain.recipe
    facts = {name: [source.model_dump(exclude={"path"}), identities[name]] for name, source in recipe.sources.items()}
    step = Step("read", chain.work / "00-read", made_from("", {"sources": facts, "boxed": recipe.boxed}))
    step.begin()
    if step.done() is not None:
        return step
    chain.progress.start(0)
    reader, index, rows, size = sources.Reader(recipe), 0, 0, 0
    part: list[sources.Read] = []

    def put() -> None:
        nonlocal index, rows, size
        outcome = [Out(one.reason, one.detail) if one.reason else one.row for one in part]
        rows += step.put(index, [one.row for one in part], outcome)
        index, size = index + 1, 0
        part.clear()

    for read in reader.rows():
        part.append(read)
        size += len(read.row.problem) + len(read.row.solution or "")
        if len(part) == PART_ROWS or size > PART_BYTES:
            put()
            if index % 20 == 0:
                chain.progress.say(f"read: {rows:,} rows")
    if part or index == 0:
        put()
    rows, kept = step.finish({"sources": reader.counts, "sha256": reader.hashes})
    for line in reader.read_as():
        chain.progress.say(line)
    chain.progress.say(f"read: {rows:,} rows, {kept:,} to go on with")
    return step


def _stage(chain: Chain, index: int, name: str, settings: Settings, before: Step) -> Step | None:
    """Run one stage, or take it as it is where it is finished. None: only a shard's samples were generated."""
    facts: dict[str, Any] = {"name": name, "settings": {"kind": kind_of(settings), **settings.model_dump()}}
    if isinstance(settings, Draw | Difficulty | Form):
        facts["seed"] = chain.recipe.seed
    questions: Path | None = None
    if isinstance(settings, Decontaminate):
        questions = decontaminate.gather(settings, chain.work)
        facts["questions"] = questions.name
    if isinstance(settings, Length) and settings.tokenizer is not None:
        settings = settings.model_copy(update={"tokenizer": str(local_model(settings.tokenizer, settings.revision))})
    step = Step(name, chain.work / f"{index:02d}-{name}", made_from(before.made_from, facts))
    step.begin()
    if (done := step.done()) is not None:
        chain.progress.say(f"{name}: {done['kept']:,} of {done['rows']:,} rows stay (done before)")
        return step
    if isinstance(settings, Difficulty) or (isinstance(settings, Form) and settings.llm is not None):
        from openrs.curation.difficulty import ask

        if chain.shard is not None:
            chain.lock.__exit__()  # each shard has a folder of its own for its samples, and locks that
        answer = ask(chain, settings, before)
        if answer is None:
            return None
        decide, found = answer
        _put_all(step, before, decide)
    else:
        chain.progress.start(0)
        runners: dict[type[Settings], Callable[..., dict[str, Any]]]
        runners = {Verify: _verify, Duplicates: _duplicates, Draw: _draw}
        found = runners.get(type(settings), partial(_each_row, questions=questions))(chain, settings, step, before)
    rows, kept = step.finish(found)
    more = "".join(f"; {fact}: {value:,}" for fact, value in found.items() if isinstance(value, int))
    chain.progress.say(f"{name}: {kept:,} of {rows:,} rows stay{more}")
    return step


def _each_row(chain: Chain, settings: Settings, step: Step, before: Step, *, questions: Path | None) -> dict[str, Any]:
    missing = _missing(step, before)
    tasks = [(settings, step, before, index, questions) for index in missing]
    _advance(chain, step.name, before, missing, chain.pool.each(_row_task, tasks))
    return _rewritten(step, before) if isinstance(settings, Rewrite) else {}


def _row_task(settings: Settings, step: Step, before: Step, index: int, questions: Path | None) -> int:
    """One part through a row stage, in a process of the pool."""
    return step.make(before, index, check_of(settings, questions))


def _verify(chain: Chain, settings: Verify, step: Step, before: Step) -> dict[str, Any]:
    missing = _missing(step, before)
    with ReferenceJudge(settings, chain.pool.workers) as references:

        def make(index: int) -> int:
            rows = read_rows(before.part(index))
            return step.put(index, rows, references.check(rows))

        _advance(chain, step.name, before, missing, map(make, missing))
    before_, after = (dict(_answers(one)) for one in (before, step))
    return {"answers rewritten": sum(before_[number] != answer for number, answer in after.items())}


def _rewritten(step: Step, before: Step) -> dict[str, Any]:
    """How many answers were rewritten, by kind; each of them goes into rewritten.jsonl of the stage's folder."""
    lines: list[str] = []
    kinds: Counter[str] = Counter()
    for old_part, new_part in zip(before.parts(), step.parts(), strict=True):
        for old, new in zip(read_rows(old_part), read_rows(new_part), strict=True):
            if (reference_answer(old), old.answer) != (reference_answer(new), new.answer):
                found = reference_kinds(reference_answer(old))
                kinds.update(found)
                lines.append(json.dumps({"id": old.id, "kinds": found, "before": old.answer, "after": new.answer}))
    write_text(step.path / "rewritten.jsonl", "".join(line + "\n" for line in lines))
    return {"answers rewritten": len(lines), **{f"of kind {kind}": count for kind, count in kinds.items()}}


def _answers(step: Step) -> Iterator[tuple[int, int]]:
    """Row number -> a hash of its answer: little enough for any number of rows."""
    for path in step.parts():
        for row in read_rows(path):
            yield row.number, digest(row.answer)


def _duplicates(chain: Chain, settings: Duplicates, step: Step, before: Step) -> dict[str, Any]:
    keys = [step.path / f"keys-{index:05d}" for index in range(len(before.parts()))]
    missing = [index for index, key in enumerate(keys) if not key.with_suffix(".npz").is_file()]
    tasks = [(before.part(index), settings, keys[index]) for index in missing]
    _advance(chain, step.name, before, missing, chain.pool.each(duplicates.write_keys_of, tasks))
    with ReferenceJudge(Verify(), chain.pool.workers) as references:
        found = duplicates.find(before.parts(), keys, settings, references.same)
    _put_all(step, before, lambda row: found.gone.get(row.number, row))
    for key in keys:
        key.with_suffix(".npz").unlink(missing_ok=True)
        key.with_suffix(".npy").unlink(missing_ok=True)
    return dict(found.facts)


def _draw(chain: Chain, settings: Draw, step: Step, before: Step) -> dict[str, Any]:
    chosen = draw.choose((read_rows(path) for path in before.parts()), settings, chain.recipe.seed)

    def decide(row: Row) -> Row | Out:
        if row.number not in chosen:
            return draw.leaving(row, settings)
        label = chosen[row.number]
        return row if label is None else replace(row, level=label)

    _put_all(step, before, decide)
    return {}


def _missing(step: Step, before: Step) -> list[int]:
    return [index for index in range(len(before.parts())) if not step.part(index).is_file()]


def _advance(chain: Chain, name: str, before: Step, missing: Sequence[int], made: Iterator[int]) -> None:
    """Make the missing parts, with progress in rows; `made` makes them and yields how many rows each had."""
    total = sum(counts(path) for path in before.parts())
    done = total - sum(counts(before.part(index)) for index in missing)
    chain.progress.start(done)
    for rows in made:
        done += rows
        chain.progress.step(name, done, total, {})


def _put_all(step: Step, before: Step, decide: Callable[[Row], Row | Out]) -> None:
    for index in _missing(step, before):
        step.make(before, index, decide)
