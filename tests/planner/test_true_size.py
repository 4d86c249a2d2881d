"""The planner against exp3's update as it is really executed, at its true size, with fake tensors (true_size.py)."""

from dataclasses import replace

import pytest
from true_size import Executed, execute

from openrs.config.load import load
from openrs.planner.gpus import find
from openrs.planner.memory import Part, kept_layers, trainer_parts
from openrs.planner.times import exchanged_bytes
from openrs.planner.workload import Workload, workload_of

pytestmark = pytest.mark.slow

EXP3 = workload_of(load("exp3"), find("A40"))
CAPS = (EXP3.prompt_cap, EXP3.completion_cap)
FULL = ([512] * 6, [3584] * 6)
MIXED = ([100, 187, 300, 187, 512, 150], [3584, 2900, 1500, 2796, 3584, 2100])
COMES_AND_GOES = ("activations", "kept of layers", "backward of a layer or head")


def planned(workload: Workload) -> list[Part]:
    return [part for part in trainer_parts(workload) if part.name in COMES_AND_GOES]


def scratch(workload: Workload, tokens: int) -> int:
    """Of flash attention's backward, inside its kernel: fp32 gradients of the queries, keys and values of all heads."""
    return tokens * workload.shape.query_width * (4 + 2 + 2)


def compare(workload: Workload, rows: tuple[list[int], list[int]], executed: Executed, *, packed: bool) -> None:
    prompts, completions = rows
    lengths = [sum(row) for row in zip(*rows, strict=True)]
    if packed:  # all rows follow each other: to the planner, one row of as many tokens as are real
        workload = replace(workload, micro=1, prompt_cap=sum(prompts), completion_cap=sum(completions))
    bytes_ = sum(part.bytes for part in planned(workload))
    beside = executed.peak + (
        scratch(workload, max(lengths) if packed else sum(lengths)) if workload.checkpointing else 0
    )
    assert bytes_ == pytest.approx(beside, rel=0.10)
    assert executed.models == 2 * workload.shape.parameters * workload.element
    flops = workload.shape.training_flops(
        sum(lengths),
        sum(length**2 for length in lengths) / 2 / sum(lengths),
        sum(completions),
        checkpointing=workload.checkpointing,
        reference=True,
        fused=True,
        kept=kept_layers(workload, sum(lengths)) / workload.shape.layers,
    )
    assert flops == pytest.approx(executed.flops, rel=0.02)
    assert executed.at == "backward"


@pytest.mark.limits(processor=300)
def test_exp3_at_its_true_size() -> None:
    """The figures of docs/planning.md; the whole plan, with what is held, within 10 % as well."""
    assert EXP3.shape.parameters == 1_777_088_000
    assert EXP3.flash
    executed = execute(EXP3.shape, *FULL, CAPS, packing=False, checkpointing=True)
    compare(EXP3, FULL, executed, packed=False)
    assert executed.peak / 2**30 == pytest.approx(5.23, abs=0.02)
    assert executed.flops / 1e12 == pytest.approx(400.9, abs=0.2)


@pytest.mark.limits(processor=300)
@pytest.mark.parametrize(
    ("layers", "packed", "checkpointing", "recompute"),
    [
        (28, True, True, "all"),
        (4, False, True, "all"),
        (4, False, False, "all"),
        (4, True, False, "all"),
        (4, False, True, "none"),
        (4, True, True, 1),
    ],
)
def test_packed_and_unpacked_with_and_without_recomputation(
    layers: int, packed: bool, checkpointing: bool, recompute: int | str
) -> None:
    """Four layers of the true width where that shows it: the peak is linear in the layers."""
    shape = replace(EXP3.shape, layers=layers)
    workload = replace(EXP3, shape=shape, trained=shape.parameters, checkpointing=checkpointing, recompute=recompute)
    rows = MIXED if packed else FULL
    executed = execute(workload.shape, *rows, CAPS, packing=packed, checkpointing=checkpointing, recompute=recompute)
    compare(workload, rows, executed, packed=packed)


def test_zero_2_all_reduces_every_bucket_of_every_micro_batch_and_stage_1_once_a_step() -> None:
    assert exchanged_bytes(EXP3) == pytest.approx(18.7e9, rel=0.01)
    assert exchanged_bytes(replace(EXP3, zero=1)) == pytest.approx(8.0e9, rel=0.01)
