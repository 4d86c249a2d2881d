"""Dealing out micro-batches by length, the processes played one after the other; two real ones: test_distributed.py."""

from types import SimpleNamespace

import pytest
import torch

from openrs.config.load import load
from openrs.errors import UserError
from openrs.training import balance
from openrs.training.balance import Batch, deal_by_length, tokens_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("processes", "steps"), [(4, 3), (3, 4), (2, 1), (12, 1)])
def test_every_micro_batch_is_dealt_once_as_it_is_and_nobody_waits_longer(
    processes: int, steps: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(seed)

    def part(number: int) -> Batch:
        mask = (torch.rand(6, 40, generator=random) < torch.rand((), generator=random)).long()
        return {
            "prompt_mask": mask[:, :8],
            "completion_mask": mask[:, 8:],
            "number": torch.tensor(number),
            "none": None,
        }

    before = [[part(process * steps + step) for step in range(steps)] for process in range(processes)]
    monkeypatch.setattr(balance, "gather_object", lambda _: [part for parts in before for part in parts])
    after = [
        deal_by_length(before[rank], SimpleNamespace(num_processes=processes, process_index=rank, device="cpu"))
        for rank in range(processes)
    ]
    assert [len(parts) for parts in after] == [steps] * processes
    dealt = {int(part["number"]): part for parts in after for part in parts}
    assert sorted(dealt) == list(range(processes * steps))
    for number, part in dealt.items():
        old = before[number // steps][number % steps]
        assert part["none"] is None
        assert all(torch.equal(part[name], old[name]) for name in ("prompt_mask", "completion_mask"))

    def waited(parts: list[list[Batch]]) -> int:
        """Tokens of the longest micro-batch of each turn."""
        return sum(max(map(tokens_of, turn)) for turn in zip(*parts, strict=True))

    def busiest(parts: list[list[Batch]]) -> int:
        return max(sum(map(tokens_of, own)) for own in parts)

    assert waited(after) <= waited(before)
    assert busiest(after) <= busiest(before) or steps == 1


def test_back_and_forth_makes_sums_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(tokens: int) -> Batch:
        return {"prompt_mask": torch.ones(1, 1), "completion_mask": torch.ones(1, tokens - 1)}

    every = [part(tokens) for tokens in range(1, 9)]
    monkeypatch.setattr(balance, "gather_object", lambda _: every)
    for rank in range(4):
        dealt = deal_by_length(every[:2], SimpleNamespace(num_processes=4, process_index=rank, device="cpu"))
        assert sum(map(tokens_of, dealt)) == 9


@pytest.mark.parametrize(
    ("setting", "with_what"),
    [
        ("grpo.steps_per_generation=6", "a generation of 6 micro-batches that one step of 3 does not hold"),
        ("grpo.steps_per_generation=2", "a generation of 2 micro-batches that one step of 3 does not hold"),
        ("grpo.top_entropy_quantile=0.2", "grpo.top_entropy_quantile"),
    ],
)
def test_refused_where_it_would_change_the_gradient(setting: str, with_what: str) -> None:
    with pytest.raises(UserError, match=f"with {with_what}, hardware.deal_by_length would change"):
        load("exp3-fast", [setting])
    load("exp3-fast", [setting, "hardware.deal_by_length=false"])
    load("exp3-fast", ["grpo.steps_per_generation=1"])
