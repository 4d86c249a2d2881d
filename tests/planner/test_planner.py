"""The planner against the paper's facts (paper.md sections 1, 3 and 5) and against itself. Never needs torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml

from openrs.config.load import load, to_yaml
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.errors import EXIT_DONE, EXIT_REFUSED, UserError
from openrs.planner.calibrate import calibrate
from openrs.planner.fit import fit
from openrs.planner.gpus import CPU, find, known
from openrs.planner.memory import (
    disk,
    engine,
    engine_of,
    fits,
    generator_parts,
    largest,
    logits_bytes,
    peak,
    trainer_parts,
)
from openrs.planner.plan import enough, other_gpus, other_layouts, parse_assumptions, plan
from openrs.planner.shapes import shape_of
from openrs.planner.times import ASSUMED, REASONS, generation_seconds, step_seconds, tokens_of, useful_flops
from openrs.planner.workload import Workload, as_the_authors_ran, workload_of
from openrs.run.units import GIB

SKETCH = Path(__file__).parents[1] / "exp3_sketch.yaml"
A40 = find("A40")


def sketch(*overrides: str) -> Recipe:
    return load(str(SKETCH), overrides)


def job(*overrides: str, gpu: str = "A40", gpus: int | None = None, layout: str | None = None) -> Workload:
    return workload_of(sketch(*overrides), find(gpu), gpus, layout)


# --- facts of the paper -----------------------------------------------------------------------------------------------


def test_kv_blocks_on_the_authors_a40() -> None:
    """vLLM 0.7.2's own log at utilisation 0.8 and 32,768 tokens: 70,316 blocks, 30.0 GiB, activations 2.0 GiB."""
    vllm = engine(shape_of(sketch().model), 44.34, 0.8, batched_tokens=32_768)
    assert vllm.kv_tokens // 16 == pytest.approx(70_316, rel=0.005)
    assert vllm.kv / GIB == pytest.approx(30.0, rel=0.01)
    assert vllm.activations / GIB == pytest.approx(2.0, rel=0.02)
    assert vllm.weights / GIB == pytest.approx(3.3, rel=0.01)


def test_whole_logits_are_the_papers_6_5_gb_and_again_for_the_gradient() -> None:
    assert logits_bytes(as_the_authors_ran(job())) == pytest.approx(2 * 6.5e9, rel=0.01)
    assert logits_bytes(job()) < 2e9  # TRL 1.16 never holds them all


def test_flops_of_a_step() -> None:
    assert useful_flops(as_the_authors_ran(job())) == pytest.approx(3.6e15, rel=0.10)


def test_the_papers_24_hours_for_42_dollars() -> None:
    """Three trainers and one generator, a generation call of 18 completions per micro-step: 172.8 s a step."""
    recipe = sketch()
    rows = dict(other_layouts(recipe, plan(recipe)))
    theirs = rows["split on 4, as the authors ran it"]
    assert theirs.workload.trainers == 3
    assert theirs.workload.calls == 4
    assert theirs.workload.completions == 72
    assert theirs.hours == pytest.approx(24, rel=0.30)
    assert theirs.step == pytest.approx(172.8, rel=0.30)
    assert theirs.dollars == pytest.approx(42, rel=0.30)
    ours = plan(recipe)
    assert ours.step is not None
    assert 40 < ours.step < 75  # "ideal step about 40 s"
    assert theirs.step is not None
    assert theirs.step > 2 * ours.step


@pytest.mark.parametrize(
    ("problems", "tokens", "seconds"),
    [  # paper.yaml: exp1@100 and exp3@50 on AIME24 and AMC23, exp2@50 on AIME24; 160 s of start-up taken off
        (30, 14_580, 701.0), (40, 9_512, 631.2), (30, 12_922, 613.0), (40, 7_744, 539.4), (30, 13_876, 673.0),
    ],
)  # fmt: skip
def test_decoding_against_the_authors_logs_on_an_a40(problems: int, tokens: int, seconds: float) -> None:
    there = replace(
        job(), gpus=1, trainers=1, micro=problems, accumulation=1, calls=1, completion_cap=32_768, utilisation=0.8
    )
    predicted = generation_seconds(there, replace(ASSUMED, length=tokens / 32_768, prompt=100))
    assert predicted == pytest.approx(seconds - 160, rel=0.16)


# --- the job ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "layout", "trainers", "accumulation"),
    [(4, "colocate", 4, 3), (4, "split", 3, 4), (1, "colocate", 1, 12), (12, "colocate", 12, 1), (13, "split", 12, 1)],
)
def test_other_layouts_keep_completions_and_micro_batch(
    gpus: int, layout: str, trainers: int, accumulation: int
) -> None:
    other = job(gpus=gpus, layout=Layout(layout))
    assert (other.trainers, other.accumulation, other.micro, other.completions) == (trainers, accumulation, 6, 72)
    assert other.calls == 1


def test_gpus_that_would_change_the_gradient_are_refused() -> None:
    with pytest.raises(UserError, match="72 completions a step cannot be shared by 5 trainers"):
        plan(sketch(), gpus=5)
    with pytest.raises(UserError, match="1, 2, 3, 4, 6, 12 GPUs, and one more that generates"):
        plan(sketch(), gpus=1, layout=Layout.SPLIT)


def test_lora_trains_adapters_and_holds_no_reference() -> None:
    full, lora = job(), job("model.lora={rank: 32}")
    names = {part.name: part.bytes for part in trainer_parts(lora)}
    assert names["reference model"] == 0
    assert lora.trained < 0.03 * full.trained
    assert disk(lora).checkpoint < 0.03 * disk(full).checkpoint
    assert peak(trainer_parts(lora)) < peak(trainer_parts(full)) - 8 * GIB


def test_beta_zero_needs_no_reference() -> None:
    saved = peak(trainer_parts(job())) - peak(trainer_parts(job("grpo.beta=0.0")))
    assert saved == shape_of(sketch().model).parameters * 2


def test_zero_2_shares_out_the_optimizer() -> None:
    parts = {part.name: part.bytes for part in trainer_parts(job())}
    assert parts["optimizer (shard)"] == 12 * 1_777_088_000 / 4
    one = {part.name: part.bytes for part in trainer_parts(job(gpus=1))}
    assert one["optimizer (shard)"] == 12 * 1_777_088_000


def test_sleeping_vllm_leaves_the_room_to_the_update() -> None:
    awake, asleep = job(), job("grpo.vllm_enable_sleep_mode=true")
    assert peak(trainer_parts(asleep)) < peak(trainer_parts(awake)) - 8 * GIB
    assert sum(p.bytes for p in trainer_parts(asleep)) == sum(p.bytes for p in trainer_parts(awake))


def test_disk_at_its_fullest() -> None:
    """save_steps 50 of 500 steps: the last two, one being written, and kept ones; 16 bytes a weight under ZeRO-2."""
    checkpoint = 16 * 1_777_088_000
    assert disk(job()).checkpoint == checkpoint
    assert disk(job()).run == pytest.approx(3 * checkpoint, rel=0.01)
    assert disk(job("training.keep_every=100")).run == pytest.approx((4 + 1 + 1 + 1) * checkpoint, rel=0.01)
    weights = 2 * 1_777_088_000
    thrifty = disk(job("training.keep_every=100", "training.old_weights_only=true")).run
    assert thrifty == pytest.approx((2 + 1) * checkpoint + 4 * weights, rel=0.01)
    assert disk(job("training.stop_after=50")).run == pytest.approx(2 * checkpoint, rel=0.01)


def test_the_plan_of_the_disk_counts_checkpoints_that_wait_for_their_evaluation() -> None:
    """exp3 evaluates all ten: without keep_every they stay all the same until they have their scores."""
    gib = [
        disk(workload_of(load("exp3", ["training.keep_every=null", *more]), A40)).run / GIB
        for more in ([], ["training.old_weights_only=false"], ["evaluation.checkpoints=last"])
    ]
    assert gib == pytest.approx([106, 291, 79.5], rel=0.01)


# --- fit --------------------------------------------------------------------------------------------------------------


def test_largest_is_the_border() -> None:
    here = job()
    micro, longest = largest(here)
    assert micro >= 6
    assert fits(replace(here, micro=micro))
    assert not fits(replace(here, micro=micro + 1))
    assert fits(replace(here, completion_cap=longest, window=max(here.window, 512 + longest)))
    assert not fits(replace(here, completion_cap=longest + 1, window=max(here.window, 512 + longest + 1)))


def test_vllm_without_room_for_one_sequence_does_not_fit() -> None:
    tight = sketch("grpo.vllm_gpu_memory_utilization=0.08")
    assert plan(tight).fits is False
    assert "vLLM would not start" in plan(tight).notes[0]
    assert engine_of(job("grpo.vllm_gpu_memory_utilization=0.08")).kv < 0  # type: ignore[union-attr]


def test_fit_proposes_what_keeps_the_gradient() -> None:
    small = job(gpu="RTX-5090")
    assert not fits(small)
    found = fit(small)
    assert found.found
    assert fits(found.workload)
    assert [change.setting for change in found.changes] == ["grpo.vllm_enable_sleep_mode"]
    assert (found.workload.completions, found.workload.micro) == (72, 6)


@pytest.mark.parametrize("name", sorted(known()))
@pytest.mark.parametrize("loss", ["bnpo", "dapo"])
def test_fit_proposals_can_be_set_and_then_fit(name: str, loss: str) -> None:
    """What --fit prints is taken by --set, and the recipe then fits by the same arithmetic."""
    overrides = [
        "grpo.gradient_checkpointing=false", "hardware.zero_stage=0", f"grpo.loss_type={loss}",
        "grpo.vllm_gpu_memory_utilization=0.6", "model.context=131072", "grpo.vllm_max_model_length=null",
    ]  # fmt: skip
    found = fit(job(*overrides, gpu=name))
    if found.found:
        changed = job(*overrides, *(f"{change.setting}={change.value}" for change in found.changes), gpu=name)
        assert fits(changed)
        assert changed.completions == 72
        assert changed.micro == 6 or loss == "dapo"


def test_the_split_layout_is_proposed_where_vllm_leaves_no_room() -> None:
    """LoRA on a 7B model with 24 GB: the weights fit once, not twice, so vLLM gets a GPU of its own."""
    overrides = [
        "model.name=Qwen/Qwen2.5-7B", "model.allow_unpinned=true", "model.lora={rank: 32}",
        "grpo.max_completion_length=1024", "grpo.vllm_max_model_length=1536",
    ]  # fmt: skip
    found = fit(job(*overrides, gpu="RTX-4090"))
    assert [(change.setting, change.value) for change in found.changes] == [
        ("hardware.layout", "split"), ("grpo.gradient_accumulation_steps", "4"),
    ]  # fmt: skip
    overrides += [f"{change.setting}={change.value}" for change in found.changes]
    server = job(*overrides, gpu="RTX-4090")
    assert fits(server)
    assert (server.trainers, server.utilisation, server.sleep, server.completions) == (3, 0.9, False, 72)


def test_fit_makes_micro_batches_smaller_only_where_the_loss_allows() -> None:
    longer = ("grpo.max_completion_length=6000", "grpo.vllm_max_model_length=7000")
    assert not fit(job(*longer, gpu="RTX-4090")).found
    assert "divides by the tokens of a micro-batch" in fit(job(*longer, gpu="RTX-4090")).notes[0]
    found = fit(job("grpo.loss_type=dapo", *longer, gpu="RTX-4090"))
    assert found.found
    assert found.workload.completions == 72
    assert found.workload.micro < 6
    assert enough(sketch(*longer), job(*longer, gpu="RTX-4090")) == 12


def test_fit_of_what_fits_changes_nothing() -> None:
    assert fit(job()).changes == []
    assert fit(job()).found


@pytest.mark.parametrize("name", sorted(known()))
def test_every_fit_found_keeps_the_step(name: str) -> None:
    found = fit(job(gpu=name))
    assert found.workload.completions == 72
    assert found.workload.micro == 6
    assert found.found == fits(found.workload)


# --- time and money ---------------------------------------------------------------------------------------------------


def test_times_move_as_they_must() -> None:
    base = step_seconds(job())
    assert base is not None
    assert step_seconds(job(gpu="H100"))["generation"] < base["generation"]  # type: ignore[index]
    assert step_seconds(job(gpu="H100"))["update"] < base["update"] / 3  # type: ignore[index]
    longer = step_seconds(job("grpo.max_completion_length=4096"))
    assert longer["generation"] == pytest.approx(base["generation"] * 4096 / 3584, rel=0.05)  # type: ignore[index]
    assert useful_flops(job("grpo.gradient_checkpointing=false")) < 0.9 * useful_flops(job())


def test_a_small_cache_generates_in_waves() -> None:
    roomy, tight = job(), replace(job(), utilisation=0.1)
    assert engine_of(tight).kv_tokens < 18 * 2_983  # type: ignore[union-attr]
    assert generation_seconds(tight) > 1.8 * generation_seconds(roomy)
    assert any("in waves" in note for note in plan(sketch("grpo.vllm_gpu_memory_utilization=0.1")).notes)


def test_price_hours_and_node_memory() -> None:
    mine = plan(sketch(), price=1.0, node_memory=32)
    assert mine.hours is not None
    assert mine.dollars == pytest.approx(4 * mine.hours)
    assert any("RAM of 32 GiB is less than" in note for note in mine.notes)
    assert plan(sketch(), gpu="A6000").dollars is None
    with pytest.raises(UserError, match="makes no sense"):
        plan(sketch(), price=-1)


def test_other_gpus_are_compared_at_the_same_job() -> None:
    recipe = sketch()
    rows = other_gpus(recipe, plan(recipe))
    assert rows[0].workload.gpu == A40
    assert len({row.workload.gpu.name for row in rows}) == len(rows) == 9
    assert {row.workload.completions for row in rows} == {72}


def test_an_unknown_gpu_gives_memory_but_no_times() -> None:
    mine = plan(sketch(), gpu="Voodoo 5")
    assert mine.fits is None
    assert mine.seconds is None
    assert mine.hours is None
    assert peak(mine.trainer) > 15 * GIB
    assert "Voodoo 5 is not in the table" in mine.notes[0]


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("NVIDIA A40", "A40"), ("NVIDIA-A40", "A40"), ("NVIDIA A100-SXM4-80GB", "A100-80"), ("A100", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80-PCIe"), ("NVIDIA-A100-SXM4-40GB", "A100-40"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"), ("NVIDIA RTX A6000", "A6000"), ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("rtx 5090", "RTX-5090"),
        ("NVIDIA L40S", "L40S"), ("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-16GB"),
    ],
)  # fmt: skip
def test_gpus_by_the_names_that_tools_give(name: str, known_as: str) -> None:
    assert find(name).name == known_as


def test_no_gpu_is_a_cpu() -> None:
    assert find("none") is CPU
    mine = plan(load("demo"))
    assert mine.seconds is None
    assert mine.fits is None
    assert mine.workload.trainers == 1
    assert "only a run on it can say" in mine.notes[0]
    assert plan(load("demo"), gpu="A40").workload.gpus == 1


def test_assumptions_have_reasons_and_can_be_changed() -> None:
    assert set(REASONS) == set(type(ASSUMED).__slots__)
    assert parse_assumptions(["train_flops=0.7"]).train_flops == 0.7
    for bad, said in (("speed=1", "no assumption speed"), ("link=fast", "not a number"), ("link=0", "above 0")):
        with pytest.raises(UserError, match=said):
            parse_assumptions([bad])


# --- learning from a run ----------------------------------------------------------------------------------------------


def run_with(
    folder: Path, rows: list[dict[str, Any]], recipe: Recipe, gpu: str | None = "NVIDIA A40, 46068 MiB"
) -> str:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n + 1, **row}) + "\n" for n, row in enumerate(rows))
    )
    (folder / "manifest.json").write_text(json.dumps({"attempts": [], "machine": {"gpus": [gpu] if gpu else []}}))
    return f"{folder}/"


MEASURED = {
    "time/generation": 50.0, "time/reward": 1.5, "time/update": 30.0, "time/sync": 2.5,
    "completions/mean_length": 2000.0,
}  # fmt: skip


@pytest.mark.parametrize("layout", ["colocate", "split"])
def test_a_learned_plan_gives_the_runs_own_times(tmp_path: Path, layout: str) -> None:
    changes = ["hardware.layout=split", "grpo.gradient_accumulation_steps=4"] if layout == "split" else []
    recipe = sketch(*changes)
    noise = [{**MEASURED, "time/generation": MEASURED["time/generation"] + n - 5} for n in range(11)]
    name = run_with(tmp_path / "run", [{**MEASURED, "time/update": 900.0}] * 2 + noise, recipe)
    calibration = calibrate(name)
    again = step_seconds(workload_of(recipe, A40), calibration.assumed)
    assert again is not None
    for part in ("generation", "reward", "update", "sync"):
        assert again[part] == pytest.approx(MEASURED[f"time/{part}"])
    assert tokens_of(workload_of(recipe, A40), calibration.assumed)[1] == pytest.approx(2000)
    assert calibration.steps == 11
    assert calibration.assumed.train_flops != ASSUMED.train_flops


def test_learning_says_what_is_missing(tmp_path: Path) -> None:
    rows = [{"time/generation": 50.0, "time/update": 30.0}] * 4
    lines = calibrate(run_with(tmp_path / "run", rows, sketch())).lines
    assert "time/sync is absent: assumed" in lines
    assert "time/reward is absent: assumed" in lines
    assert "completions/mean_length is absent: assumed" in lines


def test_learning_from_the_whole_step_alone(tmp_path: Path) -> None:
    calibration = calibrate(run_with(tmp_path / "run", [{"step_time": 120.0}] * 4, sketch()))
    again = step_seconds(workload_of(sketch(), A40), calibration.assumed)
    assert again is not None
    assert again["generation"] + again["update"] == pytest.approx(120.0, rel=0.05)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([], "has no steps yet"), ([{"loss": 1.0}], "has no times in it"), ([{"time/step": "x"}], "no times")],
)
def test_a_run_that_teaches_nothing_is_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        calibrate(run_with(tmp_path / "run", rows, sketch()))


def test_a_cpu_run_says_nothing_of_a_gpu_but_its_lengths(tmp_path: Path) -> None:
    rows = [{"time/generation": 0.4, "time/update": 0.5, "time/reward": 0.1, "completions/mean_length": 20.0}] * 5
    calibration = calibrate(run_with(tmp_path / "run", rows, load("demo"), gpu=None))
    assert calibration.on(A40, "toy-sums").train_flops == ASSUMED.train_flops
    assert calibration.on(A40, "toy-sums").length == pytest.approx(20 / workload_of(load("demo"), CPU).completion_cap)
    assert calibration.on(A40, "knoveleng/open-rs") == ASSUMED  # other problems, other lengths
    mine = plan(load("demo"), assumed=calibration.on(CPU, "toy-sums"), measured=True)
    assert mine.seconds is not None
    assert mine.seconds["generation"] == pytest.approx(0.4)
    assert mine.seconds["update"] == pytest.approx(0.5)


# --- the command ------------------------------------------------------------------------------------------------------


def openrs(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "openrs.cli", *words])


def test_plan_as_a_person_calls_it() -> None:
    done = openrs("plan", str(SKETCH), "--gpu", "A40", "--gpus", "4", "--price", "0.44", "--node-memory", "256")
    assert done.returncode == EXIT_DONE, done.stderr
    for said in (
        "1,777,088,000 parameters, 28,672 bytes of KV cache",
        "optimizer (shard)",
        "it fits",
        "H200",
        "train_flops 0.35",
    ):
        assert said in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 125
    done = openrs("plan", str(SKETCH), "--gpu", "RTX-5090", "--fit")
    assert "--set grpo.vllm_enable_sleep_mode=true" in done.stdout
    whole = json.loads(openrs("plan", str(SKETCH), "--json").stdout)
    assert whole["parameters"] == 1_777_088_000
    assert whole["usd"] == pytest.approx(whole["hours"] * 4 * 0.4375)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "7"], "cannot be shared by 7 trainers"),
        (["--from", "no/such/run"], "is not a run directory"),
        (["--assume", "x=1"], "no assumption x"),
        (["--set", "grpo.bogus=1"], "bogus"),
    ],
)
def test_plan_refuses_in_one_message(words: list[str], said: str) -> None:
    done = openrs("plan", str(SKETCH), *words)
    assert done.returncode == EXIT_REFUSED
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_planner_never_imports_torch() -> None:
    code = "import sys, openrs.planner.render, openrs.planner.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sketch_is_yaml_that_loads() -> None:
    assert yaml.safe_load(SKETCH.read_text())["hardware"]["gpus"] == 4
    assert generator_parts(job()) == []
