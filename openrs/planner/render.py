"""A plan as a person reads it: plain columns, no colours, 100 characters wide."""

import textwrap
from collections.abc import Sequence
from json import dumps

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.planner.calibrate import calibrate, summary
from openrs.planner.fit import Fit
from openrs.planner.fit import fit as find_fit
from openrs.planner.gpus import find
from openrs.planner.memory import peak
from openrs.planner.plan import ResourcePlan, enough, other_gpus, other_layouts, parse_assumptions, plan, plan_workload
from openrs.planner.times import ASSUMED, FAVOURABLE, PARTS, REASONS, tokens_of
from openrs.run.units import GIB, format_bytes, format_duration

WIDTH = 100


def answer(
    recipe: Recipe,
    *,
    gpu: str | None,
    gpus: int | None,
    layout: Layout | None,
    price: float | None,
    node_memory: float | None,
    assume: Sequence[str],
    run: str | None,
    fit: bool,
    json: bool,
) -> str:
    """What `openrs plan` prints. Raises UserError for GPUs, assumptions or a run that cannot be planned with."""
    chosen = find(gpu if gpu is not None else recipe.hardware.gpu)
    calibration = calibrate(run) if run is not None else None
    assumed = parse_assumptions(
        assume, calibration.on(chosen, recipe.data.source) if calibration is not None else ASSUMED
    )
    measured = calibration is not None and calibration.gpu.measured_only == chosen.measured_only
    mine = plan(
        recipe, gpu=gpu, gpus=gpus, layout=layout, price=price, node_memory=node_memory, assumed=assumed,
        measured=measured,
    )  # fmt: skip
    if fit:
        found = find_fit(mine.workload)
        after = plan_workload(mine.title, found.workload, mine.price, node_memory, assumed, measured=measured)
        if json:
            return dumps({**after.to_dict(), "set": {c.setting: c.value for c in found.changes}}, indent=1) + "\n"
        more = None if found.found else enough(recipe, mine.workload)
        return "\n".join(head(mine)) + "\n\n" + memory(mine) + "\n\n" + fitted(found, mine, after, more)
    if json:
        return dumps(mine.to_dict(), indent=1) + "\n"
    others = [] if chosen.measured_only else other_gpus(recipe, mine)
    layouts = [] if chosen.measured_only else other_layouts(recipe, mine)
    return render(
        mine, others, layouts, summary(calibration, chosen, recipe.data.source) if calibration is not None else []
    )


def render(
    mine: ResourcePlan,
    others: Sequence[ResourcePlan],
    layouts: Sequence[tuple[str, ResourcePlan]],
    lines: Sequence[str],
) -> str:
    """The whole answer of `openrs plan`. lines: what was calibrated on a run, if one was named."""
    blocks = [
        "\n".join([*head(mine), *lines]),
        memory(mine),
        time(mine),
        storage(mine),
        table("the same recipe on other GPUs", [(other.workload.gpu.name, other) for other in others]),
        table("the same kind of GPU, other numbers and layouts (same completions a step, same gradient)", layouts),
        assumptions(mine),
        "formulas with units and sources: docs/planning.md",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def head(plan: ResourcePlan) -> list[str]:
    workload = plan.workload
    where = f"{workload.gpus} x {workload.gpu.name}, {workload.layout}" if workload.gpus else "no GPU"
    prompt, completion = tokens_of(workload, plan.assumed)
    group = grpo_value(workload.recipe, "num_generations")
    share = (
        f"on {where}: {count(workload.trainers, 'training process', 'es')}, {workload.completions} completions a step"
        f" ({workload.completions // group} prompts x {group}),"
        f" {count(workload.calls, 'generation call')} a step, {workload.recipe.last_step} steps"
    )
    tokens = (
        f"tokens: prompts of about {prompt:.0f} (at most {workload.prompt_cap}), completions of about {completion:.0f}"
        f" (at most {workload.completion_cap})"
    )
    cache = f"{workload.shape.kv_bytes(workload.element):,} bytes of KV cache a token"
    lines = [plan.title, share, f"model: {workload.shape.parameters:,} parameters, {cache}", tokens]
    return [wrapped(line, "  ") for line in lines] + [wrapped("note: " + note, "      ") for note in plan.notes]


def count(number: int, thing: str, plural: str = "s") -> str:
    return f"{number} {thing}{plural if number != 1 else ''}"


def memory(plan: ResourcePlan) -> str:
    """Memory of a training GPU by part, and of the generating one."""
    workload = plan.workload
    lines = [f"memory of {'a training GPU' if workload.gpus else 'a process'}, at the longest prompt and completion"]
    phases = {"always": "", "update": "while updating", "generation": "while generating"}
    lines += [
        f"  {part.name:26s} {format_bytes(part.bytes):>10s}  {phases[part.phase]}".rstrip()
        for part in plan.trainer
        if part.bytes
    ]
    room = f" of {workload.gpu.memory:.1f} GiB" if workload.gpu.memory is not None else ""
    lines.append(f"  {'at most':26s} {format_bytes(peak(plan.trainer)):>10s}{room}")
    if plan.generator:
        parts = ", ".join(f"{part.name.removeprefix('vLLM ')} {format_bytes(part.bytes)}" for part in plan.generator)
        lines.append(f"  the generating GPU: {format_bytes(peak(plan.generator))}{room} ({parts})")
    if plan.fits is not None:
        lines.append("  it fits" if plan.fits else "  IT DOES NOT FIT: see --fit")
    if plan.largest is not None:
        micro, longest = plan.largest
        lines.append(
            f"  largest that fits: micro-batch {micro} at {workload.completion_cap} tokens, or {longest:,} tokens at"
            f" micro-batch {workload.micro}"
        )
    return "\n".join(lines)


def time(plan: ResourcePlan) -> str:
    if plan.seconds is None or plan.step is None or plan.hours is None:
        return "time: unknown"
    lines = [f"time of a step ({plan.flops:.2g} FLOP without padding)"]
    lines += [f"  {part:26s} {plan.seconds[part]:8.1f} s" for part in PARTS]
    lines.append(f"  {'together':26s} {plan.step:8.1f} s")
    money = f", ${span(plan.dollars_least, plan.dollars, 2)} at ${plan.price:g} per GPU-hour" if plan.dollars else ""
    lines.append(f"  {plan.workload.recipe.last_step} steps: {span(plan.hours_least, plan.hours, 1)} h{money}")
    if plan.hours_least is not None and plan.hours_least < plan.hours:
        ends = ", ".join(f"{name} {value:g}" for name, value in FAVOURABLE.items())
        lines.append(wrapped(f"  (the seconds above are the cautious end; the other: {ends}, unmeasured)", "  "))
    return "\n".join(lines)


def span(least: float | None, most: float, digits: int) -> str:
    """Both ends of a range, or one number where nothing is left open."""
    texts = [f"{value:.{digits}f}" for value in (least, most) if value is not None]
    return " to ".join(dict.fromkeys(texts))


def storage(plan: ResourcePlan) -> str:
    return (
        f"disk: {format_bytes(plan.disk.run)} for the run at its fullest"
        f" (a checkpoint is {format_bytes(plan.disk.checkpoint)}),"
        f" {format_bytes(plan.disk.cache)} of cache for the model"
        f"\nRAM of the node: up to {format_bytes(plan.host)}"
    )


def table(title: str, rows: Sequence[tuple[str, ResourcePlan]]) -> str:
    if len(rows) < 2:
        return ""
    width = max(len(name) for name, _ in rows) + 2
    names = ((6, "fits"), (8, "GiB"), (7, "of"), (9, "gen. s"), (10, "update s"), (9, "step s"), (8, "hours"))
    lines = [title, " " * (2 + width) + "".join(f"{name:>{n}s}" for n, name in (*names, (9, "$/GPU-h"), (9, "$")))]
    for name, row in rows:
        yes = {True: "yes", False: "no", None: "?"}[row.fits]
        used = max(peak(row.trainer), peak(row.generator)) / GIB
        parts = row.seconds or {}
        cells = [
            _cell(used, 8, 1), _cell(row.workload.gpu.memory, 7, 1), _cell(parts.get("generation"), 9, 1),
            _cell(parts.get("update"), 10, 1), _cell(row.step, 9, 1), _cell(row.hours, 8, 1),
            _cell(row.price, 9, 2), _cell(row.dollars, 9, 2),
        ]  # fmt: skip
        lines.append(f"  {name:{width}s}{yes:>6s}{''.join(cells)}")
    return "\n".join(lines)


def assumptions(plan: ResourcePlan) -> str:
    lines = ["assumed (change with --assume NAME=NUMBER, or calibrate on a run with --from RUN)"]
    for name, reason in REASONS.items():
        value, usual = getattr(plan.assumed, name), getattr(ASSUMED, name)
        given = f"{value:.3g}" if value == usual else f"{value:.3g} instead of {usual:.3g}"
        lines.append(wrapped(f"  {name} {given}: {reason}", "      "))
    return "\n".join(lines)


def fitted(found: Fit, before: ResourcePlan, after: ResourcePlan, more: int | None) -> str:
    """What `--fit` proposes. more: how many of these GPUs it would take, where nothing else helps."""
    if before.fits:
        return "it fits as it is: nothing to change\n"
    lines = []
    if found.found:
        lines.append("it fits with these settings; the completions of a step and the gradient stay:")
        lines += [wrapped(f"  --set {c.setting}={c.value}  # {c.why}", "      ") for c in found.changes]
        lines.append(f"  then at most {format_bytes(peak(after.trainer))} of {after.workload.gpu.memory:.1f} GiB")
        if after.step is not None and after.hours is not None:
            money = f", ${after.dollars:.2f}" if after.dollars else ""
            whole = format_duration(3600 * after.hours)
            lines.append(f"  a step takes {after.step:.1f} s, {after.workload.recipe.last_step} steps {whole}{money}")
    else:
        lines.append("no settings were found under which it fits and the gradient stays")
        if more is not None:
            lines.append(f"  it takes {more} x {before.workload.gpu.name}: openrs plan ... --gpus {more} --fit")
        lines.append(
            "  or GPUs with more memory, or adapters instead of all weights (model.lora), which is another training"
        )
    return "\n".join([*lines, *(wrapped("note: " + note, "      ") for note in found.notes)]) + "\n"


def wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}s}" if value is None else f"{value:>{width}.{digits}f}"
