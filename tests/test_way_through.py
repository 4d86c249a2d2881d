"""The whole way on small sizes, for real: GRPO teaches, equal seeds give equal digits, real problems go through."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrs.config.load import load
from openrs.config.schema import Recipe
from openrs.evaluation import statistics
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl


def trained(run: Run, recipe: Recipe) -> list[dict[str, Any]]:
    """Train in this process; returns the metrics."""
    with attempt(recipe, run, ["test"]) as progress:
        from openrs.training.launch import train

        train(recipe, run, progress)
    return list(read_jsonl(run.metrics))


def small(base: Path, steps: int, *overrides: str) -> Recipe:
    """The demo from a model that is there, for a few steps."""
    return load(
        "demo",
        [
            f"model={{name: {base}, toy: null, dtype: float32, context: 4096}}",
            f"grpo.max_steps={steps}",
            f"grpo.save_steps={steps}",
            f"grpo.warmup_steps={min(5, steps)}",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory, taught_model: Path) -> Run:
    """`openrs reproduce demo`, with 50 steps instead of 200."""
    from openrs.reproduce import reproduce

    recipe = small(taught_model, 50, "training.completions_every=10")
    run = Run(tmp_path_factory.mktemp("way") / "run")
    with attempt(recipe, run, ["test"]) as progress:
        reproduce(recipe, run, progress)
    return run


def scores(run: Run, step: int) -> dict[str, Any]:
    text = (run.evaluation(f"step-{step:06d}") / "scores.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def test_grpo_teaches(reproduced: Run) -> None:
    """Held-out accuracy rises by far more than chance: paired over the 512 problems, p < 1e-6, at least 20 points."""
    before, after = (scores(reproduced, step)["benchmarks"]["demo"] for step in (0, 50))
    assert before["n"] == after["n"] == 512
    assert 0.25 < before["accuracy"] < 0.50
    ids = list(before["per_problem"])
    assert set(ids) == set(after["per_problem"])
    gain = statistics.paired_difference(
        [after["per_problem"][i] for i in ids], [before["per_problem"][i] for i in ids], resamples=1000
    )
    assert gain.difference > 0.20
    assert gain.p_value < 1e-6


def test_the_run_directory_is_whole(reproduced: Run) -> None:
    metrics = list(read_jsonl(reproduced.metrics))
    assert [row["step"] for row in metrics] == list(range(1, 51))
    for row in metrics:
        assert {"loss", "reward", "accuracy", "kl", "learning_rate", "completions/mean_length"} <= set(row)
        assert len(row["problems"]) == 12
        assert row["judge/completions"] == 72
        assert row["accuracy"] == row["judge/correct"] / 72
        assert row["reward"] == pytest.approx(row["rewards/format/mean"] + 2 * row["rewards/accuracy/mean"], abs=1e-5)
    assert (reproduced.path / "report.html").stat().st_size > 10_000
    assert (reproduced.path / "report.md").is_file()
    assert (reproduced.path / "report.json").is_file()
    manifest = json.loads(reproduced.manifest.read_text(encoding="utf-8"))
    assert manifest["attempts"][0]["exit_code"] == 0
    assert manifest["recipe"]["sha256"] == load(str(reproduced.recipe)).hash
    assert manifest["packages"]["trl"] == "1.16.0"
    checkpoint = reproduced.checkpoints / "step-000050"
    listed = json.loads((checkpoint / "checkpoint.json").read_text(encoding="utf-8"))["files"]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(listed)
    assert not list(checkpoint.glob("*.bin")) or list(checkpoint.glob("*.bin")) == [checkpoint / "training_args.bin"]


def test_completions_are_kept(reproduced: Run) -> None:
    import pyarrow.parquet as pq

    files = sorted(reproduced.completions.glob("step-*.parquet"))
    assert [file.stem for file in files] == [f"step-{step:06d}" for step in range(10, 51, 10)]
    rows = pq.read_table(files[-1]).to_pylist()
    assert len(rows) == 8
    for row in rows:
        a, b = map(int, row["id"].split("+"))
        assert row["gold"] == f"${a + b}$"
        assert row["reward/accuracy"] == float(f"\\boxed{{{a + b}}}" in row["completion"])
        assert row["reward/accuracy"] == float(row["verdict"] == "correct")
        assert row["prompt"].endswith("<think>\n")


def test_lighteval_form_and_samples_agree(reproduced: Run) -> None:
    folder = reproduced.evaluation("step-000050")
    samples = list(read_jsonl(folder / "samples.jsonl"))
    assert len(samples) == len({(s["benchmark"], s["problem"], s["sample"]) for s in samples}) == 512
    right = sum(sample["verdict"] == "correct" for sample in samples)
    assert scores(reproduced, 50)["benchmarks"]["demo"]["accuracy"] == right / 512
    (results,) = folder.glob("results_*.json")
    document = json.loads(results.read_text(encoding="utf-8"))
    assert {"config_general", "results", "versions", "config_tasks", "summary_tasks", "summary_general"} == set(
        document
    )
    assert right / 512 in document["results"]["demo|0"].values()


def test_the_same_command_again_does_nothing(reproduced: Run) -> None:
    from openrs.reproduce import reproduce

    before = {p: p.read_bytes() for p in (reproduced.metrics, reproduced.evaluation("step-000050") / "samples.jsonl")}
    recipe = load(str(reproduced.recipe))
    with attempt(recipe, reproduced, ["test"]) as progress:
        reproduce(recipe, reproduced, progress)
    assert {path: path.read_bytes() for path in before} == before


def test_another_recipe_on_the_same_run_is_refused(reproduced: Run, taught_model: Path) -> None:
    from openrs.errors import UserError

    other = small(taught_model, 50, "training.completions_every=10", "grpo.beta=0.1")
    with pytest.raises(UserError, match=r"grpo.beta: 0.04 -> 0.1"), attempt(other, reproduced, ["test"]):
        pass


def test_same_seed_same_digits(tmp_path: Path, made_model: Path) -> None:
    recipe = small(made_model, 4, "grpo.per_device_train_batch_size=24")
    first, second = (trained(Run(tmp_path / name), recipe) for name in ("a", "b"))
    exact = ("loss", "reward", "kl", "grad_norm", "learning_rate", "entropy", "completions/mean_length", "problems")
    assert [[row[key] for key in exact] for row in first] == [[row[key] for key in exact] for row in second]
    other = trained(Run(tmp_path / "c"), small(made_model, 1, "grpo.per_device_train_batch_size=24", "grpo.seed=43"))
    assert other[0]["problems"] != first[0]["problems"]


@pytest.mark.soak
def test_real_problems_end_honestly_near_zero(tmp_path: Path, shared_data: Path, taught_model: Path) -> None:
    """Three steps on DeepScaleR's rows and an evaluation on AMC23: a model of sums knows no competition mathematics."""
    from openrs.config.schema import Evaluation
    from openrs.evaluation.run import Target, evaluate
    from openrs.rewards.grading import Judge
    from openrs.run.progress import Progress

    recipe = small(
        taught_model,
        3,
        f"data.source={shared_data / 'training' / 'deepscaler_subset_1209.parquet'}",
        "data.problem_column=prompt.0.content",
        "data.answer_column=reward_model.ground_truth",
        "data.strip_suffix=' Let''s think step by step and output the final answer within \\boxed{}.'",
        "data.answer_template=${answer}$",
        "data.missing_answer=drop",
        "prompt.max_tokens=200",
        "prompt.too_long=drop",
        "grpo.max_completion_length=24",
    )
    run = Run(tmp_path / "run")
    metrics = trained(run, recipe)
    assert len(metrics) == 3
    assert sum(row["accuracy"] for row in metrics) / 3 < 0.10
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    assert manifest["data"]["rows"] == 1209
    assert manifest["data"]["too_long"] > 300
    target = Target("step-000003", str(run.checkpoints / "step-000003"), None, 3, "float32")
    settings = Evaluation(
        benchmarks=["amc23"], data=str(shared_data / "benchmarks"), temperature=0.7, top_p=1.0, max_tokens=24
    )
    with Judge() as judge:
        found = evaluate(target, settings, run.evaluation("step-000003"), Progress(), judge)
    amc = found["benchmarks"]["amc23"]
    assert (amc["n"], amc["k"]) == (40, 1)
    assert amc["accuracy"] <= 0.10
