"""The canary's rules on made numbers, and the trainer's side of it on a real model. With real vLLM: test_vllm.py."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrs.config.schema import CanaryConfig as Settings
from openrs.errors import RunFailure
from openrs.training import canary
from openrs.training.canary import FROZEN, Canary, Compare, Reading


def test_the_gap_is_a_mean_and_a_largest() -> None:
    reading = Compare().update([-1.0, -2.0, -3.0, -4.0], [-1.1, -2.0, -2.7, -4.0])
    assert reading.gap == pytest.approx(0.1)
    assert reading.largest == pytest.approx(0.3)
    assert reading.moved_alone == 0.0


def test_moving_alone_is_counted_from_the_samplers_last_change() -> None:
    compare = Compare()
    compare.update([-1.0, -2.0], [-1.0, -2.0])
    assert compare.update([-1.0, -2.0], [-1.001, -2.001]).moved_alone == pytest.approx(0.001)
    assert compare.update([-1.0, -2.0], [-1.004, -2.002]).moved_alone == pytest.approx(0.003)  # adds up over the steps
    assert compare.update([-1.003, -2.0], [-1.004, -2.002]).moved_alone == 0.0  # a digit of one token is enough
    assert compare.update([-1.003, -2.0], [-1.005, -2.002]).moved_alone == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        (Reading(0.1001, 0.5, 0.0), r"0.1 nats apart on average, limit 0.1 \(max_gap\)"),
        (Reading(float("nan"), 0.5, 0.0), "nan nats apart"),
        (Reading(0.004, 0.01, FROZEN * 1.2), "the trainer has moved by 0.006 nats on average, vLLM not by a digit"),
    ],
)
def test_the_worst_process_ends_the_run(reading: Reading, says: str) -> None:
    good = Reading(0.004, 0.02, 0.0)
    with pytest.raises(RunFailure, match=says) as caught:
        Canary([[1]], Settings())._judge([good, reading, good], 12)
    assert "after the weight sync of step 12" in caught.value.what
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("floor", "limit", "of"),
    [(1e-5, 0.005, "5 x 1e-05 of equal weights"), (0.01, 0.05, "5 x 0.01 of equal weights"), (0.09, 0.1, "max_gap")],
)
def test_the_limit_follows_the_floor_and_is_never_above_max_gap(floor: float, limit: float, of: str) -> None:
    one = Canary([[1]], Settings())
    one.floor = floor
    assert one.limit == pytest.approx(limit)
    one._judge([Reading(limit, 1.0, 0.0)], 1)
    with pytest.raises(RunFailure, match=rf"limit {limit:g} \({of}\)") as caught:
        one._judge([Reading(limit * 1.01, 1.0, 0.0)], 1)
    assert ("canary.max_gap" if of == "max_gap" else "canary.times") in str(caught.value)


def test_what_is_near_the_limits_goes_on() -> None:
    Canary([[1]], Settings())._judge([Reading(0.1, 3.0, FROZEN)], 1)


class StaleSampler:
    """Stands in for vLLM: answers with what the trainer's own weights gave when it was made, plus a shift."""

    shift = 0.0
    frozen: list[float] | None = None

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def complete(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        return [[7 + place for place in range(tokens)] for _ in prompts]

    def score(self, texts: list[tuple[list[int], int]]) -> list[float]:
        values = canary.score(self._trainer, texts)
        if StaleSampler.frozen is not None:
            return StaleSampler.frozen
        return [value + StaleSampler.shift for value in values]


@pytest.fixture
def trainer(made_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As much of a trainer as the canary asks: a real model on the CPU, in training mode."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made_model)
    model.train()
    accelerator = SimpleNamespace(
        unwrap_model=lambda m: m, autocast=nullcontext, device="cpu", is_main_process=True, num_processes=1
    )
    monkeypatch.setattr(canary, "_Local", StaleSampler)
    monkeypatch.setattr(StaleSampler, "shift", 0.0)
    monkeypatch.setattr(StaleSampler, "frozen", None)
    return SimpleNamespace(
        model=model, accelerator=accelerator, vllm_mode="colocate", state=SimpleNamespace(global_step=3)
    )


def test_the_trainers_side_is_the_log_softmax_of_the_models_logits(trainer: Any) -> None:
    import torch

    texts = [([5, 6, 7, 8, 9], 2), ([10, 11, 12], 1)]
    with torch.no_grad():
        expected = [
            float(trainer.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)[place - 1, ids[place]])
            for ids, begin in texts
            for place in range(begin, len(ids))
        ]
    assert canary.score(trainer, texts) == pytest.approx(expected, abs=1e-5)
    assert trainer.model.training


def test_with_lora_the_adapters_count_and_dropout_does_not(trainer: Any) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    texts = [([5, 6, 7, 8, 9], 2)]
    plain = canary.score(trainer, texts)
    trainer.model = get_peft_model(trainer.model, LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear"))
    trainer.model.train()
    assert canary.score(trainer, texts) == pytest.approx(plain, abs=1e-6)  # B is zero at the start
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    moved = canary.score(trainer, texts)
    assert max(abs(a - b) for a, b in zip(moved, plain, strict=True)) > 0.01
    assert canary.score(trainer, texts) == moved


def test_a_check_gives_the_metrics(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StaleSampler, "shift", 0.03)
    found = Canary([[5, 6, 7], [8, 9], [10]], Settings(prompts=2, tokens=4)).check(trainer)
    near = pytest.approx(0.03, abs=1e-6)
    assert found == {"canary/gap": near, "canary/gap_max": near, "canary/limit": 0.1}  # step 3: no floor to go by


class RoundingSampler(StaleSampler):
    """Stands in for vLLM in bfloat16: rounded values of weights that follow the trainer's, or of which one layer does
    not."""

    stale: dict[str, Any] | None = None

    def score(self, texts: list[tuple[list[int], int]]) -> list[float]:
        import copy

        import torch

        trainer = copy.copy(self._trainer)
        trainer.model = copy.deepcopy(trainer.model)
        trainer.model.load_state_dict(RoundingSampler.stale or {}, strict=False)
        values = canary.score(trainer, texts)
        return torch.tensor(values).bfloat16().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("follows", [True, False])
def test_the_floor_of_equal_weights_sets_the_limit(
    follows: bool, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that leaves a layer out gives a gap that is below max_gap, and vLLM does move: only the floor tells."""
    import torch

    monkeypatch.setattr(canary, "_Local", RoundingSampler)
    monkeypatch.setattr(RoundingSampler, "stale", None)
    trainer.state.global_step = 0
    one = Canary([[5, 6, 7], [8, 9]], Settings(tokens=16))
    first = one.check(trainer)
    assert one.floor == first["canary/gap"] > 1e-3
    assert first["canary/limit"] == pytest.approx(5 * first["canary/gap"])
    left_out = {k: v.clone() for k, v in trainer.model.state_dict().items() if ".layers.1." in k}
    monkeypatch.setattr(RoundingSampler, "stale", None if follows else left_out)
    torch.manual_seed(0)
    for step in range(1, 4):
        trainer.state.global_step = step
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.add_(0.004 * torch.randn_like(parameter))
        if follows:
            assert one.check(trainer)["canary/gap"] < 2 * one.floor
    if not follows:
        with pytest.raises(RunFailure, match=r"apart on average, limit 0.0\d+ \(5 x 0.0\d+ of equal"):
            one.check(trainer)


def test_no_prompts_no_canary(trainer: Any) -> None:
    assert Canary([[5, 6]], Settings(prompts=0)).check(trainer) == {}


def test_a_sampler_that_stays_behind_ends_the_run(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights move by little, as at a learning rate of 1e-6: under the gap's limit, and seen all the same."""
    import torch

    check = Canary([[5, 6, 7]], Settings(tokens=8)).check
    check(trainer)
    monkeypatch.setattr(StaleSampler, "frozen", canary.score(trainer, [([5, 6, 7, *range(7, 15)], 3)]))
    check(trainer)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.002 * torch.randn_like(parameter))
    with pytest.raises(RunFailure, match=r"the trainer has moved by 0\.0\d+ nats on average, vLLM not by a digit"):
        check(trainer)
