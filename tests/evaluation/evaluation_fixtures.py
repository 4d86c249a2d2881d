"""What the evaluation's tests share: small benchmarks with their data, an engine that answers at once, a real model."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrs.config.schema import Evaluation
from openrs.evaluation.plan import Target
from openrs.evaluation.sampling import EngineSettings, NextBatch, OnTokens, Sample, finished

SUMS = """\
sums:
  rows: 12
  id: id
  question: ask
  gold: [answer]
  gold_kind: expr
  prompt: null
  tokens: 20
more:
  rows: 5
  id: id
  question: ask
  gold: [answer]
  gold_kind: latex
  prompt: null
  tokens: 40
"""


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two benchmarks of sums (sums.yaml: `sums`, 12 problems, and `more`, 5) and their data."""
    folder = tmp_path_factory.mktemp("sums")
    (folder / "sums.yaml").write_text(SUMS)
    for name, count, wrap in (("sums", 12, "{}"), ("more", 5, "${}$")):
        rows = [
            {"id": f"{n}", "ask": f"What is {10 + n}+{20 + 3 * n}?", "answer": wrap.format(30 + 4 * n)}
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def settings(sums: Path) -> Callable[..., Evaluation]:
    """Evaluation settings on the two small benchmarks."""

    def make(**changes: object) -> Evaluation:
        usual = {
            "benchmarks": [str(sums / "sums.yaml")], "data": str(sums), "samples": 2, "temperature": 0.7, "top_p": 0.95,
            "max_tokens": 16, "batch_size": 4, "engine": "transformers", "processes": 1,
        }  # fmt: skip
        return Evaluation.model_validate(usual | changes)

    return make


@pytest.fixture
def target(made_model: Path) -> Target:
    return Target("made", str(made_model), dtype="float32")


class StandIn:
    """An engine that answers at once, without a model (a stand-in): the right sum in about half of its samples.

    What it says hangs on the request's seed only, so it is deterministic as the real ones are.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def generate(self, take: NextBatch, on_tokens: OnTokens) -> Iterator[list[Sample]]:
        while (unit := take()) is not None:
            answers = []
            for request in unit:
                draw = random.Random(request.seed)
                n = int(request.problem.rpartition("/")[2])
                said = 30 + 4 * n if draw.random() < 0.5 else draw.randrange(100)
                tokens = [draw.randrange(100) for _ in range(draw.randrange(1, request.max_new_tokens + 1))]
                finish = "length" if len(tokens) == request.max_new_tokens else "stop"
                answers.append(finished(request, tokens, finish, rf"so it is $\boxed{{{said}}}$"))
            on_tokens(sum(answer.tokens for answer in answers))
            yield answers

    def close(self) -> None: ...


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs.evaluation.run.load", StandIn)


@pytest.fixture(scope="session")
def papers_tokenizer(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A model folder with the real tokenizer and no weights to speak of: enough for everything before the load."""
    folder = tmp_path_factory.mktemp("paper") / "model"
    folder.mkdir()
    for file in (shared_data / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 131072}))
    (folder / "model.safetensors").write_bytes(b"not weights")
    return folder


def forked(work: Callable[[], None], kill_when: Callable[[], bool], number: int = signal.SIGKILL) -> int:
    """Run `work` in a forked child, signal it as soon as `kill_when` says so, and return its wait status.

    A fork starts at once, with torch imported; the kill is as real as one from outside.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child must never go on into pytest
            code = 75 if type(error).__name__ == "Interrupted" else 1
        finally:
            os._exit(code)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if kill_when():
            os.kill(pid, number)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.002)


@pytest.fixture(scope="session")
def papers_model(tmp_path_factory: pytest.TempPathFactory, papers_tokenizer: Path) -> Path:
    """A Qwen2 of one layer and 10 million random weights (nearly all embeddings) with the real tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("papers-model") / "model"
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=4096, tie_word_embeddings=True, initializer_range=0.3,
            bos_token_id=151646, eos_token_id=151643,
        )
    ).save_pretrained(folder)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(papers_tokenizer / name, folder / name)
    return folder
