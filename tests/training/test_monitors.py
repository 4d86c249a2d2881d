"""Monitors: numbers on made inputs, one alarm a crossing, stop rules that end a real run; hostile text."""

import json
import time
from pathlib import Path

import pytest

from openrs.config.load import load
from openrs.config.schema import MonitorsConfig as Settings
from openrs.config.schema import Watch
from openrs.data.scripts import letters
from openrs.errors import UserError
from openrs.training.monitors import METRICS, Monitors

pytestmark = pytest.mark.slow


def only(**watches: Watch) -> Monitors:
    """Monitors of which only these have limits."""
    return Monitors(Settings(**{name: watches.get(name, Watch()) for name in METRICS}))


def raised(monitors: Monitors, metric: str, values: list[float | None]) -> list[int]:
    """Steps at which an alarm was raised."""
    return [step for step, value in enumerate(values, 1) if monitors.update({"step": step, metric: value}).raised]


def test_every_monitor_has_settings_and_every_setting_a_monitor() -> None:
    assert set(METRICS) | {"canary"} == set(Settings.model_fields)


def test_no_recipe_stops_a_run_by_itself() -> None:
    assert not Monitors(load("exp3").monitors).can_stop
    assert not Monitors(load("demo").monitors).can_stop


@pytest.mark.parametrize("name", METRICS)
def test_each_monitor_reads_its_metric(name: str) -> None:
    found = only(**{name: Watch(above=0.25, steps=1)}).update({"step": 7, METRICS[name][0]: 0.5})
    assert found.raised == [name]
    assert found.lines == [f"alarm at step 7: {METRICS[name][0]} 0.5 is above 0.25 ({METRICS[name][1]})"]


def test_one_alarm_a_crossing_and_again_after_it_was_over() -> None:
    values = [0.1, 0.6, 0.6, 0.6, 0.6, 0.1, 0.6, 0.6]
    assert raised(only(kl=Watch(above=0.5, steps=1)), "kl", values) == [2, 7]


def test_steps_must_follow_each_other() -> None:
    assert raised(only(kl=Watch(above=0.5, steps=3)), "kl", [0.6, 0.6, 0.1, 0.6, 0.6, 0.6, 0.6]) == [6]


def test_the_limit_itself_is_not_beyond() -> None:
    assert raised(only(kl=Watch(above=0.5, steps=1)), "kl", [0.5, 0.5000001]) == [2]


def test_below() -> None:
    assert raised(only(length=Watch(below=100, steps=2)), "completions/mean_length", [300, 90, 80, 70]) == [3]


def test_a_missing_value_changes_nothing() -> None:
    assert raised(only(kl=Watch(above=0.5, steps=2)), "kl", [0.6, None, 0.6]) == [3]


def test_the_end_of_an_alarm_is_told() -> None:
    monitors = only(kl=Watch(above=0.5, steps=1))
    found = [monitors.update({"step": step, "kl": kl}).lines for step, kl in enumerate([0.6, 0.4, 0.4], 1)]
    assert found[1:] == [["step 2: kl 0.4 is no longer above 0.5"], []]


def test_a_resumed_run_does_not_tell_an_old_alarm_again() -> None:
    monitors = only(kl=Watch(above=0.5, steps=1))
    monitors.update({"step": 1, "kl": 0.6})
    assert not monitors.update({"step": 2, "kl": 0.7}).raised


def test_a_stop_rule_gives_its_reason() -> None:
    monitors = only(kl_max=Watch(stop_above=10, steps=2))
    assert monitors.can_stop
    assert monitors.update({"step": 1, "kl/max": 11.0}).stop is None
    found = monitors.update({"step": 2, "kl/max": 12.5})
    assert (
        found.stop == "monitors.kl_max.stop_above: kl/max 12.5 is above 10 (largest KL (k3) of one token), for 2 steps"
    )


# --- letters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", (5, 0)),
        ("naïve Ünïcode", (12, 0)),
        ("答案是 yes", (6, 3)),
        ("Ответ: 42", (5, 5)),
        ("한국어", (3, 3)),
        ("α + β = π, x ∈ ℝ, 𝔸", (6, 0)),  # symbols of mathematics
        ("x² ½ ５ 123", (1, 0)),  # digits of any kind are no letters
        (r"so $中文$ and \(中\) and \[中\] end", (11, 0)),
        (r"\begin{align}中\\x\end{align} ok", (2, 0)),
        (r"\text{中}", (1, 1)),  # only formulas are left out
        ("costs $5, 中", (6, 1)),  # one dollar opens nothing
        ("", (0, 0)),
    ],
)
def test_letters_outside_latex(text: str, expected: tuple[int, int]) -> None:
    assert letters(text) == expected


def test_hostile_text_costs_no_square_time() -> None:
    """At 12,000 characters each of these took 0.1 to 0.4 s when openings could look through the whole rest."""
    spent = 0.0
    for part in ("\\begin{", "\\[", "\\(", "$$", "$", "\\(\\[\\begin{"):
        text = part * (400_000 // len(part))
        before = time.process_time()
        letters(text)
        spent += time.process_time() - before
    assert spent < 10  # square time would be minutes


# --- what the trainer measures ----------------------------------------------------------------------------------------


class OneProcess:
    """Stands in for accelerate's Accelerator in one process."""

    device = "cpu"

    def reduce(self, tensor: object, reduction: str) -> object:
        return tensor

    def gather(self, tensor: object) -> object:
        return tensor


def test_measures() -> None:
    torch = pytest.importorskip("torch")
    from openrs.rewards.functions import RewardStats
    from openrs.training.measures import Measures

    stats = RewardStats(completions=8, correct=2, unparseable_golds=4, cosine_wraps=1)
    measures = Measures(stats)
    measures.texts(["abc", "中"])
    measures.kl(torch.tensor([[0.0, -1.0]]), torch.tensor([[0.0, -3.0]]), torch.tensor([[1, 1]]))
    measures.kl(
        torch.tensor([[-5.0, -9.0]]), torch.tensor([[-4.0, 900.0]]), torch.tensor([[1, 0]])
    )  # the second is padding
    row = measures.drain(OneProcess())
    assert row["accuracy"] == 0.25
    assert row["judge/unparseable_share"] == 0.5
    assert row["judge/wraps_share"] == 0.125
    assert row["completions/non_latin"] == 0.25
    assert row["kl/max"] == pytest.approx(1.1353352832, abs=1e-6)  # e^-2 + 2 - 1; the other is e - 2
    assert "kl/max" not in measures.drain(OneProcess())


def test_a_stop_rule_ends_a_real_run_after_a_checkpoint(tmp_path: Path, made_model: Path) -> None:
    """The untaught model runs into its cap of 40 tokens: mean length above 20, from the first step on."""
    from openrs.run.attempt import attempt
    from openrs.run.directory import Run
    from openrs.run.files import read_jsonl
    from openrs.training import launch

    recipe = load(
        "demo",
        [
            f"model.name={made_model}", "model.toy=null", "data.limit=24", "grpo.max_steps=6", "grpo.save_steps=6",
            "grpo.warmup_steps=0",
            "grpo.per_device_train_batch_size=12", "monitors.length.above=20", "monitors.length.stop_above=20",
            "monitors.length.steps=2",
        ],
    )  # fmt: skip
    run = Run(tmp_path / "run")
    words = "the recipe's own rule ended the training at step 2: monitors.length.stop_above"
    with pytest.raises(UserError, match=words), attempt(recipe, run) as progress:
        launch.train(recipe, run, progress)
    rows = list(read_jsonl(run.metrics))
    assert [row.get("alarms", []) for row in rows] == [[], ["length"]]
    assert all(row["completions/mean_length"] > 20 for row in rows)
    assert (run.checkpoints / "step-000002" / "checkpoint.json").is_file()
    log = (run.path / "attempts" / "01" / "log").read_text()
    assert log.count("alarm at step 2: completions/mean_length") == 1
    assert json.loads(run.manifest.read_text())["attempts"][0]["exit_code"] == 2


def test_each_monitor_is_a_metric_an_alarm_and_in_the_report(tmp_path: Path, made_model: Path) -> None:
    """One real step in which each is beyond its limit. The two that vLLM has to measure are in test_vllm.py:
    here they are written into the line afterwards, for the report."""
    from openrs.report.evidence.collect import collect
    from openrs.report.pages.figures import panels
    from openrs.report.pages.page import report_on
    from openrs.run.attempt import attempt
    from openrs.run.directory import Run
    from openrs.run.files import read_jsonl
    from openrs.training import launch

    of_vllm = ["gap", "sync_seconds"]
    limits = [f"monitors.{name}={{below: 1e9, steps: 1}}" for name in METRICS]
    rewards = "rewards={mode: paper, workers: 1, functions: [{name: cosine, args: {max_len: 8}}]}"
    recipe = load(
        "demo",
        [
            f"model.name={made_model}", "model.toy=null", "data.limit=12", "grpo.max_steps=1", "grpo.warmup_steps=0",
            "grpo.per_device_train_batch_size=12", rewards, *limits,
        ],
    )  # fmt: skip
    run = Run(tmp_path / "run")
    with attempt(recipe, run) as progress:
        launch.train(recipe, run, progress)
    (row,) = read_jsonl(run.metrics)
    measured = [name for name in METRICS if name not in of_vllm]
    assert row["alarms"] == measured
    assert all(isinstance(row[METRICS[name][0]], float) for name in measured)
    log = (run.attempts()[0] / "log").read_text()
    assert [f"alarm at step 1: {METRICS[name][0]} " in log for name in measured] == [True] * len(measured)

    row |= {METRICS[name][0]: 0.5 for name in of_vllm} | {"alarms": list(METRICS)}
    run.metrics.write_text(json.dumps(row) + "\n")
    page = report_on([str(run.path)], None, None).read_text()
    assert [f"{name}</bdi> 1 time, first at step 1" in page for name in METRICS] == [True] * len(METRICS)
    drawn = {name for panel in panels(collect(run).metrics) for name, _ in panel.names}
    assert {METRICS[name][0] for name in METRICS if not name.endswith("_seconds")} <= drawn
