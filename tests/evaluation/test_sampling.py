"""Requests, seeds, units, the journal; and the transformers engine against its own model's probabilities."""

import json
import platform
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from openrs.errors import UserError
from openrs.evaluation.engines import load, stop_token_ids
from openrs.evaluation.sampling import (
    EngineSettings,
    Request,
    Samples,
    batch_seed,
    finished,
    key_of,
    make_batches,
    seed_of,
)
from openrs.evaluation.transformers_engine import nucleus


def request(problem="a/1", sample=0, *, benchmark="a", seed=1, limit=8, ids=(1, 2, 3)):
    return Request(benchmark, problem, sample, seed, limit, tuple(ids))


def row(one, **changes):
    return {
        "benchmark": one.benchmark, "problem": one.problem, "sample": one.sample, "seed": one.seed, "tokens": 1,
        "tokens_hash": "0", "finish": "stop", "text": "", "verdict": "correct", "answer": "", **changes,
    }  # fmt: skip


def test_seeds_are_the_same_everywhere_and_all_different():
    assert seed_of(1234, "aime24", "aime24/60", 0) == 1223481877
    seeds = {seed_of(s, b, p, n) for s in (1, 2) for b in "ab" for p in "xyz" for n in range(50)}
    assert len(seeds) == 2 * 2 * 3 * 50
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_unit_has_another_seed_as_soon_as_one_request_changes():
    unit = [request(seed=n) for n in range(4)]
    assert batch_seed(unit) == batch_seed(list(unit))
    others = [unit[:3], unit[::-1], [*unit[:3], request(seed=9)]]
    assert len({batch_seed(other) for other in [unit, *others]}) == 4


def test_long_completions_come_first_and_every_request_once():
    requests = [
        request(f"{name}/{n}", s, benchmark=name, ids=range(n + 1)) for name in "xyz" for n in range(5) for s in (0, 1)
    ]
    units = make_batches(requests, 4, {"x": 10, "y": 30, "z": 20})
    flat = [one for unit in units for one in unit]
    assert sorted(flat, key=lambda r: r.key) == sorted(requests, key=lambda r: r.key)
    assert [one.benchmark for one in flat] == ["y"] * 10 + ["z"] * 10 + ["x"] * 10
    assert [len(one.ids) for one in flat[:10]] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert [len(unit) for unit in units] == [4] * 7 + [2]
    assert make_batches(requests[::-1], 4, {"x": 10, "y": 30, "z": 20}) == units


# --- the journal ------------------------------------------------------------------------------------------------------


def test_a_sample_counts_once_whatever_happens(tmp_path):
    path = tmp_path / "samples.jsonl"
    one = finished(request(), [5, 6], "stop", "four")
    with Samples(path) as samples:
        samples.add(one, verdict="correct", answer="4")
        samples.add(one, verdict="incorrect", answer="5")
    with Samples(path) as samples:
        samples.add(one, verdict="incorrect", answer="5")
        assert [r["verdict"] for r in samples.rows.values()] == ["correct"]
    path.write_text(path.read_text() * 2)
    with Samples(path) as samples:
        assert len(samples.rows) == 1


def test_a_line_torn_by_a_kill_is_cut_off_and_drawn_again(tmp_path):
    path = tmp_path / "samples.jsonl"
    first, second = request("a/1"), request("a/2")
    whole = json.dumps(row(first)) + "\n"
    path.write_text(whole + json.dumps(row(second))[:40])
    with Samples(path) as samples:
        assert list(samples.rows) == [first.key]
        assert samples.missing([[first], [second]]) == [[second]]
        samples.add(finished(second, [1], "stop", "x"), verdict="correct", answer="")
    lines = path.read_text().splitlines()
    assert lines[0] + "\n" == whole
    assert len(lines) == 2
    assert json.loads(lines[1])["problem"] == "a/2"


def test_a_unit_is_missing_when_one_of_its_samples_is(tmp_path):
    path = tmp_path / "samples.jsonl"
    units = [[request("a/1"), request("a/2")], [request("a/3"), request("a/4")]]
    path.write_text("".join(json.dumps(row(one)) + "\n" for one in [*units[0], units[1][0]]))
    with Samples(path) as samples:
        assert samples.missing(units) == [units[1]]


@pytest.mark.parametrize("name", ["benchmark", "sample", "tokens", "text", "verdict"])
def test_a_line_that_is_no_sample_is_refused(tmp_path, name):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row(request(), **{name: None})) + "\n")
    with pytest.raises(UserError, match=f"without {name}"):
        Samples(path)
    with pytest.raises(UserError, match="without benchmark and problem"):
        key_of(row(request(), benchmark=1, problem=None), path)


def test_tokens_are_hashed_as_lighteval_does():
    import xxhash

    sample = finished(request(), (5, 6), "stop", "")
    assert sample.tokens_hash == xxhash.xxh64("[[5, 6]]").hexdigest()
    assert sample.tokens == 2


# --- the transformers engine ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(made_model):
    from openrs.data.tokenizer import ChatEncoder

    return tuple(ChatEncoder.from_folder(made_model).ids("What is 27+58?"))


def engine_of(folder, **changes):
    usual = {
        "engine": "transformers", "model": str(folder), "dtype": "float32", "temperature": 0.7, "top_p": 0.9,
        "max_model_len": 128, "gpu_memory": 0.9, "trust_remote_code": False,
    }  # fmt: skip
    return load(EngineSettings(**(usual | changes)))


def draw(engine, *units):
    """Also: every token is counted once, while it is generated."""
    waiting, counted = list(units), []
    batches = engine.generate(lambda: waiting.pop(0) if waiting else None, counted.append)
    samples = [one for batch in batches for one in batch]
    assert sum(counted) == sum(one.tokens for one in samples)
    return samples


def test_samples_follow_the_models_own_probabilities(made_model, encoded):
    """2,000 first tokens against softmax(logits / 0.7) cut at top-p 0.9: chi-square, at a level of 1e-4."""
    import torch
    from scipy import stats

    engine = engine_of(made_model)
    with torch.no_grad():
        logits = engine._model(torch.tensor([encoded])).logits[0, -1]
    order = torch.argsort(logits, descending=True)
    chances = torch.softmax(logits.double() / 0.7, 0)[order]
    kept = int((chances.cumsum(0) - chances < 0.9).sum())
    expected = (chances[:kept] / chances[:kept].sum()).tolist()
    unit = [request("a/1", n, seed=n, limit=1, ids=encoded) for n in range(2000)]
    hashes = Counter(one.tokens_hash for one in draw(engine, unit))
    seen = [hashes[finished(request(), [token], "stop", "").tokens_hash] for token in order[:kept].tolist()]
    assert sum(seen) == 2000
    assert kept > 2
    assert stats.chisquare(seen, [2000 * chance for chance in expected]).pvalue > 1e-4


def test_equal_units_give_equal_samples_and_leave_the_callers_random_numbers_alone(made_model, encoded):
    import torch

    units = [
        [request(f"a/{n}", s, seed=10 * n + s, ids=encoded[: len(encoded) - n]) for s in range(4)] for n in range(2)
    ]
    torch.manual_seed(7)
    untouched = torch.rand(3).tolist()
    engine = engine_of(made_model)
    torch.manual_seed(7)
    first = draw(engine, *units)
    assert torch.rand(3).tolist() == untouched
    again = draw(engine_of(made_model), units[1])
    assert first[4:] == again
    assert len({one.tokens_hash for one in first}) > 4
    other = draw(engine, [request(f"a/{n}", 0, seed=99 + n, ids=encoded) for n in range(4)])
    assert [one.tokens_hash for one in other] != [one.tokens_hash for one in first[:4]]


def test_every_request_has_its_own_limit(made_model, encoded):
    unit = [request(f"a/{n}", limit=n, seed=n, ids=encoded) for n in (1, 3, 9)]
    samples = draw(engine_of(made_model), unit)
    for one, wanted in zip(samples, (1, 3, 9), strict=True):
        assert one.tokens == wanted if one.finish == "length" else one.tokens <= wanted
    assert {one.finish for one in samples} <= {"stop", "length"}


def test_a_completion_ends_at_any_of_the_models_stops(made_model, encoded, tmp_path):
    """generation_config.json may name several; whichever comes first ends it, and is counted."""
    import torch

    folder = shutil.copytree(made_model, tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    usual = engine_of(folder, temperature=0.0)
    (whole,) = draw(usual, [request(limit=12, ids=encoded)])
    with torch.no_grad():
        first = int(usual._model(torch.tensor([encoded])).logits[0, -1].argmax())
    (folder / "generation_config.json").write_text(
        json.dumps(config | {"eos_token_id": [config["eos_token_id"], first]})
    )
    (cut,) = draw(engine_of(folder, temperature=0.0), [request(limit=12, ids=encoded)])
    assert (cut.tokens, cut.finish) == (1, "stop")
    assert whole.tokens > 1
    assert stop_token_ids(usual._encoder, folder) == {config["eos_token_id"], first}


def test_the_models_own_sampling_habits_do_not_slip_in(made_model, encoded, tmp_path):
    """generation_config.json with a penalty and top_k, and config.json with use_cache: false, as Open-RS has it."""
    folder = shutil.copytree(made_model, tmp_path / "model")
    for name, habits in (
        ("generation_config.json", {"repetition_penalty": 5.0, "top_k": 1, "temperature": 0.1, "min_p": 0.5}),
        ("config.json", {"use_cache": False}),
    ):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | habits))
    unit = [request(f"a/{n}", seed=n, limit=12, ids=encoded) for n in range(8)]
    engine = engine_of(folder)
    assert draw(engine, unit) == draw(engine_of(made_model), unit)
    assert engine._model.config.use_cache
    assert engine._model.generation_config.use_cache


def test_temperature_zero_is_greedy(made_model, encoded):
    import torch

    engine = engine_of(made_model, temperature=0.0)
    (sample,) = draw(engine, [request(limit=5, ids=encoded)])
    ids = list(encoded)
    with torch.no_grad():
        for _ in range(5):
            ids.append(int(engine._model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert sample.text == engine._encoder.decode(ids[len(encoded) :])


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "not a tokenizer|cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused(made_model, tmp_path, break_it, said):
    folder = shutil.copytree(made_model, tmp_path / "model")
    break_it(folder)
    with pytest.raises(UserError, match=said):
        engine_of(folder)


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("top_p", [0.05, 0.9, 0.95])
def test_top_p_keeps_what_transformers_keeps(spread, top_p):
    """From a nearly flat distribution, of which most tokens stay, to one sure token. A vocabulary of 5,000."""
    import torch
    from transformers import TopPLogitsWarper

    torch.manual_seed(5)
    logits = torch.randn(24, 5000) * spread
    logits[0, 7] += 500.0
    found, theirs = nucleus(logits, top_p), TopPLogitsWarper(top_p)(None, logits)
    kept = found > -torch.inf
    # sums of floats in two orders: where thousands are kept, the one at the border may stand on either side
    assert (kept != (theirs > -torch.inf)).sum(-1).max() <= (5 if spread < 1 else 0)
    assert torch.equal(found[kept], logits[kept])
    assert kept.sum(-1).min() >= 1
    assert kept[0].nonzero().tolist() == [[7]]
    assert torch.equal(nucleus(logits, 1.0), logits)


def test_stops_stand_in_the_config_where_nothing_else_names_them(made_model, tmp_path):
    from openrs.data.tokenizer import ChatEncoder

    folder = shutil.copytree(made_model, tmp_path / "model")
    encoder = ChatEncoder.from_folder(folder)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": [3, 4]}))
    assert stop_token_ids(encoder, folder) == {encoder.token_id("eos_token"), 3, 4}
    (folder / "config.json").write_text("[]")
    assert stop_token_ids(encoder, folder) == {encoder.token_id("eos_token")}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc maps so eagerly")
def test_memory_is_kept_from_one_step_to_the_next():
    """Pages touched for the first time while 64 MiB are taken and freed 20 times: once for all, not 20 times."""
    program = """
import resource, sys
from openrs.evaluation.transformers_engine import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    taken = b"x" * (64 << 20)
    del taken
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""
    told = {}
    for how in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True)
        told[how] = int(done.stdout)
    assert told["keep"] < 100
    assert told["leave"] > 1000 or told["leave"] < 10  # huge pages are counted once each
