"""All five benchmarks of the paper, n = 4, by command: 6,068 samples, killed at random and resumed. Minutes each."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from waiting import until

from openrs.evaluation.benchmarks import known
from openrs.run.files import read_jsonl

FIVE = {benchmark.name: benchmark.rows for benchmark in known().values() if benchmark.hashes}
SAMPLES = int(os.environ.get("OPENRS_FIVE_SAMPLES", "4"))  # 1: the short form


def command(model: Path, data: Path, run: str, engine: str) -> list[str]:
    words = ["evaluate", str(model), "--benchmarks", ",".join(FIVE), "--data", str(data), "--run", run]
    words += ["--protocol", "paper", "--samples", str(SAMPLES), "--max-tokens", "3", "--top-p", "1.0"]
    return [sys.executable, "-m", "openrs.cli", *words, "--engine", engine, "--dtype", "float32", "--batch-size", "64"]


def finished(words: list[str], cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def killed_at_random(words: list[str], cwd: Path, path: Path, kills: int) -> None:
    """Kill the command as soon as it has written so many bytes more, `kills` times, at places drawn at random."""
    draw = random.Random(11)
    for _ in range(kills):
        goal = (path.stat().st_size if path.exists() else 0) + draw.randrange(1_000, 60_000 * SAMPLES)
        with subprocess.Popen(words, cwd=cwd, env=environment(), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (path.exists() and path.stat().st_size >= goal):
                time.sleep(0.01)
            assert process.poll() is None, "it was done before it could be killed"
            process.send_signal(signal.SIGKILL)
        until(lambda: not engines_in(cwd))


def engines_in(cwd: Path) -> list[str]:
    """Processes of engines that were started there and are alive."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (process / "cwd").resolve() == cwd and b"engine_process" in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def rows(folder: Path) -> dict[tuple[str, str, int], dict]:
    found = {}
    for row in read_jsonl(folder / "samples.jsonl"):
        key = (row["benchmark"], row["problem"], row["sample"])
        assert key not in found, "a sample was counted twice"
        found[key] = row
    return found


def both(model: Path, data: Path, cwd: Path, engine: str, kills: int) -> tuple[dict, dict, dict, str]:
    """Samples of the undisturbed evaluation and of the killed one, the latter's scores, the former's output."""
    said = finished(command(model, data, "whole", engine), cwd)
    folder = cwd / "runs" / "killed" / "eval" / model.name
    killed_at_random(command(model, data, "killed", engine), cwd, folder / "samples.jsonl", kills)
    path = folder / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-5])  # and in mid-line
    finished(command(model, data, "killed", engine), cwd)
    scores = json.loads((folder / "scores.json").read_text())
    return rows(cwd / "runs" / "whole" / "eval" / model.name), rows(folder), scores, said


def check_counts(samples: dict, scores: dict) -> None:
    assert Counter((benchmark, n) for benchmark, _, n in samples) == {
        (name, n): count for name, count in FIVE.items() for n in range(SAMPLES)
    }
    for name, count in FIVE.items():
        score = scores["benchmarks"][name]
        assert (score["n"], score["k"], sum(score["verdicts"].values())) == (count, SAMPLES, SAMPLES * count)
        mine = [row for (benchmark, _, _), row in samples.items() if benchmark == name]
        assert score["accuracy"] == pytest.approx(sum(row["verdict"] == "correct" for row in mine) / len(mine))
        assert score["truncated"] == sum(row["finish"] == "length" for row in mine)
    assert scores["inputs"]["proven"]
    assert scores["inputs"]["equal"] == 15
    assert scores["protocol"]["bos"] == 2


@pytest.mark.soak
@pytest.mark.limits(processor=1800)
def test_transformers_killed_and_resumed_is_the_undisturbed_one(papers_model, shared_data, tmp_path):
    whole, killed, scores, said = both(papers_model, shared_data / "benchmarks", tmp_path, "transformers", 4)
    print(said)
    check_counts(killed, scores)
    assert killed == whole


@pytest.mark.vllm
@pytest.mark.limits(processor=1800)
def test_vllm_killed_and_resumed(papers_model, shared_data, tmp_path):
    """Counts are exact. Texts: nearly all are equal; where what runs beside a request changes its last bits, one in
    thousands takes another token."""
    pytest.importorskip("vllm")
    whole, killed, scores, said = both(papers_model, shared_data / "benchmarks", tmp_path, "vllm", 3)
    print(said)
    check_counts(killed, scores)
    assert set(killed) == set(whole)
    assert all(killed[key]["seed"] == whole[key]["seed"] for key in whole)
    equal = sum(killed[key]["tokens_hash"] == whole[key]["tokens_hash"] for key in whole)
    print(f"vllm: {equal} of {len(whole)} samples equal after three kills")
    assert equal >= 0.99 * len(whole)


@pytest.mark.vllm
@pytest.mark.limits(processor=600)
def test_two_vllm_engines_share_the_work(papers_model, shared_data, tmp_path):
    pytest.importorskip("vllm")
    words = command(papers_model, shared_data / "benchmarks", "two", "vllm")
    words[words.index("--benchmarks") + 1] = "aime24,amc23"
    said = finished([*words, "--processes", "2"], tmp_path)
    folder = tmp_path / "runs" / "two" / "eval" / papers_model.name
    assert "2 vllm engines" in said
    assert Counter(benchmark for benchmark, _, _ in rows(folder)) == {"aime24": 30 * SAMPLES, "amc23": 40 * SAMPLES}
    logs = [path.read_text() for path in sorted(folder.glob("engine-*.log"))]
    assert len(logs) == 2
    assert not any("Traceback" in log for log in logs)


@pytest.mark.vllm
@pytest.mark.limits(processor=300)
def test_vllm_follows_the_models_own_probabilities(papers_model, tmp_path):
    """Greedy tokens are the arg max of transformers' logits, and each request stops at its own limit."""
    pytest.importorskip("vllm")
    import torch
    from transformers import AutoModelForCausalLM

    from openrs.evaluation.engine_pool import EnginePool
    from openrs.evaluation.engines import EngineLayout
    from openrs.evaluation.sampling import EngineSettings, Request
    from openrs.evaluation.sampling import finished as sample_of

    ids = tuple(range(1000, 1040))
    settings = EngineSettings("vllm", str(papers_model), "float32", 0.0, 1.0, 64, 0.9, False)
    requests = [Request("b", f"b/{n}", 0, n, limit, ids[n:]) for n, limit in enumerate((1, 4, 8))]
    pool = EnginePool(EngineLayout("vllm", (None,)))
    waiting = [[request] for request in requests]
    try:
        pool.load(settings, 8, tmp_path)
        samples = {
            one.problem: one
            for batch in pool.generate(lambda: waiting.pop() if waiting else None, lambda _: None)
            for one in batch
        }
    finally:
        pool.close()
    model = AutoModelForCausalLM.from_pretrained(papers_model, dtype=torch.float32)
    for request in requests:
        tokens = list(request.ids)
        with torch.no_grad():
            for _ in range(request.max_new_tokens):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        wanted = sample_of(request, tokens[len(request.ids) :], "length", "")
        assert samples[request.problem].tokens_hash == wanted.tokens_hash
        assert (samples[request.problem].finish, samples[request.problem].tokens) == ("length", request.max_new_tokens)
