"""Everything about an evaluation that is known before the model is loaded: problems, token ids, seeds, what is proven.

Most of what can be wrong with an evaluation is found here, in seconds, and refused in one message.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openrs.config.load import with_changes
from openrs.config.schema import Evaluation, Prompt
from openrs.data.tokenizer import ChatEncoder, Encoded
from openrs.errors import UserError
from openrs.evaluation import benchmarks as bench
from openrs.evaluation.benchmarks import Benchmark, EvalProblem, digest
from openrs.evaluation.engines import EngineLayout, layout_of
from openrs.evaluation.inputs import InputsReport, check_encoded, combined, encode_benchmark
from openrs.evaluation.protocols import name_of, samples_of
from openrs.evaluation.sampling import EngineSettings, Request, make_batches, seed_of
from openrs.hub.models import commit_of, context_of, local_model, weights
from openrs.outside import read_shape
from openrs.rewards.extraction import opens_thought
from openrs.run.files import write_json

RECORD = "settings.json"
RECORD_SHAPE: dict[str, Any] = {  # what is read of it again
    "model": {"name": str},
    "protocol": {},
    "benchmarks": {"*": {"n": int, "k": int, "problems": str}},
    "inputs": {},
    "evaluation": {},
}


@dataclass(frozen=True, slots=True)
class Target:
    """The model to evaluate: a folder or hub name. `step` is the training step it comes from, 0 for a run's base.

    name: what it is called in results. called: what its folder in eval/ is called, where that is something else.
    dtype: of the weights on a GPU. cpu_dtype: without one, where bfloat16 takes four to five times as long.
    """

    name: str
    path: str
    revision: str | None = None
    step: int | None = None
    dtype: str = "bfloat16"
    trust_remote_code: bool = False
    called: str | None = None
    cpu_dtype: str = "float32"

    @property
    def label(self) -> str:
        """Its folder in eval/, and it itself in what is said."""
        return self.called or self.name


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """One evaluation. record: what settings.json holds, see `record_of`.

    notes: what fits the model and the machine in place of what was asked, a line each."""

    target: Target
    settings: Evaluation
    model: Path
    benchmarks: Sequence[Benchmark]
    problems: Mapping[str, Sequence[EvalProblem]]
    requests: Sequence[Request]
    inputs: InputsReport
    layout: EngineLayout
    record: dict[str, Any]
    notes: Sequence[str] = ()

    def batches(self) -> list[list[Request]]:
        """The work, long completions first."""
        size = self.settings.batch_size if self.layout.engine == "transformers" else 1
        return make_batches(self.requests, size, {one.name: one.tokens for one in self.benchmarks})

    def engine(self) -> EngineSettings:
        return EngineSettings(
            engine=self.layout.engine,
            model=str(self.model),
            dtype=self.target.dtype,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            max_model_len=max(len(request.ids) + request.max_new_tokens for request in self.requests),
            gpu_memory=self.settings.gpu_memory,
            trust_remote_code=self.target.trust_remote_code,
        )


def prepare(target: Target, settings: Evaluation, layout: EngineLayout | None = None) -> EvalPlan:
    """`layout`: what `layout_of` said of these settings, for a caller who has asked: it starts nvidia-smi.

    Raises UserError for unusable models, benchmarks and settings: a folder without chat template, changed questions,
    prompts that do not fit into the model's window, an engine that is not there."""
    chosen = bench.resolve(settings.benchmarks)
    if not chosen:
        known = ", ".join(bench.known())
        fix = (
            f"name some in evaluation.benchmarks of the recipe, or with openrs evaluate --benchmarks: {known}, or a"
            " YAML file with your own (openrs recipe new --hold-out writes one; docs/own-model.md)"
        )
        raise UserError("no benchmark to evaluate on", fix=fix)
    data = Path(settings.data).expanduser() if settings.data is not None else None
    layout = layout or layout_of(settings)
    notes = []
    if None in layout.devices and target.dtype != target.cpu_dtype:
        notes.append(f"{target.cpu_dtype} weights: without a GPU, {target.dtype} would take several times as long")
        target = replace(target, dtype=target.cpu_dtype)
    folder = local_model(target.path, target.revision)
    encoder = ChatEncoder.from_folder(folder)
    encoder.check_template(Prompt())
    questions = {one.name: encode_benchmark(one, data, encoder) for one in chosen}
    inputs = check_encoded(chosen, questions, encoder)
    refuse_changed_questions(inputs)
    problems = {name: rows for name, (rows, _) in questions.items()}
    encoded = {name: texts for name, (_, texts) in questions.items()}
    samples = {one.name: samples_of(settings, one) for one in chosen}
    if settings.temperature == 0 and max(samples.values()) > 1:
        raise UserError(
            f"{max(samples.values())} samples at temperature 0 are {max(samples.values())} copies of one",
            fix="--samples 1, or a temperature above 0",
        )
    ids = {name: [e.double if settings.double_bos else e.ids for e in some] for name, some in encoded.items()}
    longest = max((len(row) for rows in ids.values() for row in rows), default=0)
    settings, departures = fit_to_window(settings, longest, context_of(folder))
    requests = requests_for(problems, ids, samples, settings)
    refuse_long(requests, settings)
    record = record_of(
        target,
        settings,
        folder,
        engine=layout.engine,
        bos=max(encoder.leading_bos(rows[0]) for rows in ids.values()),
        benchmarks={
            name: {"n": len(rows), "k": samples[name], **hashes_of(rows, encoded[name], ids[name])}
            for name, rows in problems.items()
        },
        inputs=inputs.as_json(),
        departures=departures,
        thinking=any(opens_thought(one.text) for some in encoded.values() for one in some[:1]),
    )
    notes += departures
    return EvalPlan(target, settings, folder, chosen, problems, requests, inputs, layout, record, notes)


def record_of(
    target: Target,
    settings: Evaluation,
    folder: Path,
    *,
    engine: str,
    bos: int,
    benchmarks: Mapping[str, Any],
    inputs: Mapping[str, Any],
    departures: Sequence[str],
    thinking: bool,
) -> dict[str, Any]:
    """What settings.json holds. folder: the model's. bos: BOS tokens in front. benchmarks: name -> n, k, hashes.
    departures: from the protocol that was asked, in words. thinking: whether the prompt opens a thought that the
    completion has to end."""
    return {
        "schema": 1,
        "called": target.label,
        "model": {
            "name": target.name,
            "revision": commit_of(folder) or target.revision,
            "step": target.step,
            "sha256": weights(folder),
        },
        "protocol": protocol_of(settings, engine, bos, target.dtype)
        | ({"departures": list(departures)} if departures else {}),
        "benchmarks": benchmarks,
        "inputs": inputs,
        "thinking": thinking,
        "evaluation": settings.model_dump(),
    }


def requests_for(
    problems: Mapping[str, Sequence[EvalProblem]],
    ids: Mapping[str, Sequence[Sequence[int]]],
    samples: Mapping[str, int],
    settings: Evaluation,
) -> list[Request]:
    """Every completion that is wanted, with its token ids, its seed and its limit."""
    return [
        Request(
            benchmark=name,
            problem=problem.id,
            sample=sample,
            seed=seed_of(settings.seed, name, problem.id, sample),
            max_new_tokens=min(
                settings.max_tokens, (settings.max_model_len or len(prompt) + settings.max_tokens) - len(prompt)
            ),
            ids=tuple(prompt),
        )
        for name, rows in problems.items()
        for problem, prompt in zip(rows, ids[name], strict=True)
        for sample in range(samples[name])
    ]


def hashes_of(rows: Sequence[EvalProblem], encoded: Sequence[Encoded], ids: Sequence[Sequence[int]]) -> dict[str, str]:
    """What was asked, as lighteval 0.13 hashes it (`hash_full_prompts` as up to 0.12); `problems` has answers too.

    The token ids are those that the model gets: one BOS or two.
    """
    return {
        "problems": problems_digest(rows),
        "hash_examples": combined(digest(row.prompt) for row in rows),
        "hash_full_prompts": combined(digest(one.text) for one in encoded),
        "hash_input_tokens": combined(digest(str(list(prompt))) for prompt in ids),
    }


def problems_digest(rows: Sequence[EvalProblem]) -> str:
    """Changes with every id, every prompt and every reference answer."""
    return digest(json.dumps([[row.id, row.prompt, row.gold] for row in rows]))


def protocol_of(settings: Evaluation, engine: str, bos: int, dtype: str) -> dict[str, Any]:
    drawn = settings.model_dump(
        include={"samples", "samples_small", "temperature", "top_p", "max_tokens", "max_model_len", "seed"}
    )
    batch = {"batch_size": settings.batch_size} if engine == "transformers" else {}
    return {"name": name_of(settings), **drawn, "engine": engine, "bos": bos, "dtype": dtype, **batch}


def refuse_changed_questions(inputs: InputsReport) -> None:
    """Scores over other questions are no scores of this benchmark. Answers that differ are said, and in the results."""
    asked = [change for change in inputs.changes if change.what in ("question", "missing", "added")]
    differs = [check.benchmark for check in inputs.differs if check.hash == "hash_examples"]
    if asked or differs:
        first = "; ".join(str(change) for change in asked[:3]) or f"{differs[0]}: other questions or another prompt"
        more = f" and {len(asked) - 3} more" if len(asked) > 3 else ""
        raise UserError(
            f"the questions are not the published ones: {first}{more}",
            "its score could not be compared with anybody's",
            "take the published file (openrs inputs --data DIR names all rows), or define a benchmark of your own",
        )


def fit_to_window(settings: Evaluation, prompt: int, window: int | None) -> tuple[Evaluation, list[str]]:
    """The settings cut to the model's window, and a line for the record where that changes them.

    prompt: tokens of the longest one. Raises UserError when it leaves no room for a completion."""
    allowed = min(prompt + settings.max_tokens, settings.max_model_len or prompt + settings.max_tokens)
    if window is None or allowed <= window:
        return settings, []
    if prompt >= window:
        raise UserError(
            f"a prompt of {prompt} tokens does not fit into the model's window of {window}",
            "the model was never trained beyond its window",
            "take a model with a larger window",
        )
    asked = name_of(settings)
    line = (
        f"prompt and completion have at most {window:,} tokens, the model's window, where"
        f" {'these settings' if asked == 'custom' else f'protocol {asked}'} would allow {allowed:,}"
    )
    return with_changes(settings, {"max_model_len": window, "max_tokens": min(settings.max_tokens, window)}), [line]


def refuse_long(requests: Sequence[Request], settings: Evaluation) -> None:
    short = min(requests, key=lambda request: request.max_new_tokens)
    if short.max_new_tokens < 1:
        raise UserError(
            f"the prompt of {short.problem} has {len(short.ids)} tokens, max_model_len is {settings.max_model_len}",
            fix="set a larger evaluation.max_model_len",
        )


def keep_record(folder: Path, record: Mapping[str, Any], *, kept: bool) -> None:
    """Write settings.json. A folder holds one model under one sampling; benchmarks and samples may be added to it, but
    not to a shard, which is a part of a whole that was cut once. kept: whether it holds any sample or score yet; an
    empty one may be asked for anything.

    Raises UserError when it holds another: samples of two would be counted together.
    """
    path = folder / RECORD
    before = read_record(folder) if kept else None
    if before is not None:
        changed = differences(before, record)
        if not changed and "shard" in record and before["benchmarks"] != record["benchmarks"]:
            changed = ["other benchmarks or samples"]
        if changed:
            raise UserError(
                f"{folder} holds another evaluation: {'; '.join(changed)}",
                "its samples and new ones would be counted together",
                "give another --run, or remove the folder",
            )
        record = {**record, "benchmarks": {**before["benchmarks"], **record["benchmarks"]}}
        if "departures" in before["protocol"]:  # a cut to the window that the benchmarks of this visit do not need
            record |= {key: before[key] | record[key] | _window(before[key]) for key in ("protocol", "evaluation")}
    write_json(path, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    record = read_shape(path, RECORD_SHAPE, "remove the folder to evaluate anew")
    try:
        Evaluation.model_validate(record["evaluation"])
    except ValidationError as error:
        fault = error.errors()[0]
        what = f"{path}: evaluation.{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        raise UserError(what, fix="remove the folder to evaluate anew") from None
    return record


# They may differ between two visits to one folder.
MUTABLE_KEYS = ("name", "samples", "samples_small", "batch_size", "departures")


def _window(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("max_model_len", "departures") if key in settings}


def _same_lengths(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two protocols differ in max_model_len only because one was cut to the model's window, which prompts and
    completions of the other did not reach: the samples are the same."""
    cut, whole = (one, other) if "departures" in one else (other, one)
    if "departures" not in cut or "departures" in whole:
        return False
    return (whole["max_model_len"] or math.inf) >= (cut["max_model_len"] or math.inf)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps the samples of two records from being counted together, in words."""
    found = [
        f"another model ({key})" for key in ("name", "step", "sha256") if before["model"].get(key) != now["model"][key]
    ]
    found += [
        f"{key} {before['protocol'].get(key)} instead of {value}"
        for key, value in now["protocol"].items()
        if key not in MUTABLE_KEYS
        and before["protocol"].get(key) != value
        and not (key == "max_model_len" and _same_lengths(before["protocol"], now["protocol"]))
    ]
    return found + [
        f"other {name} problems or prompts"
        for name, facts in now["benchmarks"].items()
        if (old := before["benchmarks"].get(name)) and any(old.get(key) != facts[key] for key in facts if key != "k")
    ]
