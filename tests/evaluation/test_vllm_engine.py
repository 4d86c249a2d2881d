"""How many requests vLLM gets together. The engine itself: test_five_benchmarks.py, marked `vllm`."""

from types import SimpleNamespace

import pytest

from openrs.evaluation.sampling import Request
from openrs.evaluation.vllm_engine import VllmEngine, requests_at_once


@pytest.mark.parametrize(
    ("cache_tokens", "max_model_len", "count"),
    [
        (1_340_000, 32_768, 167),  # an A40 with the paper's model
        (4_000_000, 32_768, 256),
        (79_999, 32_768, 9),
        (33_000, 32_768, 4),
        (5_000, 32_768, 1),  # vLLM itself refuses such a cache
        (60_000, 500, 120),  # short answers take less than 8,000
        (0, 1, 1),
    ],
)
def test_it_follows_from_the_cache(cache_tokens, max_model_len, count):
    assert requests_at_once(cache_tokens, max_model_len) == count


def test_a_finished_one_is_replaced_and_there_are_never_more(monkeypatch):
    """A stand-in for vLLM ends the oldest request at every step."""
    engine, seen, done = VllmEngine.__new__(VllmEngine), [], []
    engine._at_once, engine._under_way = 3, {}

    def step():
        seen.append(len(engine._under_way))
        return [SimpleNamespace(finished=True, request_id=next(iter(engine._under_way)))]

    engine._engine = SimpleNamespace(step=step)
    monkeypatch.setattr(engine, "_add", lambda request: engine._under_way.update({request.problem: request}))
    monkeypatch.setattr(
        engine, "_sample", lambda output: engine._under_way.pop(output.request_id) and SimpleNamespace(tokens=1)
    )
    waiting = [[Request("b", f"b/{n}", 0, n, 8, (1,))] for n in range(7)]
    for samples in engine.generate(lambda: waiting.pop() if waiting else None, lambda _: None):
        done += samples
    assert (len(done), seen) == (7, [3, 3, 3, 3, 3, 2, 1])
