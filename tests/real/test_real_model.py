"""The whole way with a real pretrained model (marker real): another family than the demo's, ChatML, no BOS, tied
embeddings, weights stored in bfloat16."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import runs

from openrs.run import checkpoints
from openrs.run.files import read_jsonl

pytestmark = [pytest.mark.real, pytest.mark.limits(processor=300, silence=600)]

LIGHTEVAL = Path(__file__).parents[1] / "rewards" / "lighteval_reference.py"
RECIPE = """
extends: own
title: a real model on chat rows
model: {{name: {model}, dtype: float32}}
prompt: {{user: "{{problem}}", max_tokens: 64}}
data: {{source: {data}, keep_system: true}}
rewards:
  workers: 1
  functions: [{{name: accuracy}}, {{name: "toy_rewards:spread", weight: 0.1}}]
grpo:
  max_steps: 4
  warmup_steps: 0
  learning_rate: 1.0e-5
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 1
  num_generations: 2
  max_completion_length: 6
  save_steps: 2
  bf16: false
  gradient_checkpointing: false
  use_vllm: false
training: {{trackers: [], keep_last: 1}}
hardware: {{gpu: none, gpus: 0, layout: single, zero_stage: 0}}
"""
QUESTION = "What is 7+5?"


@pytest.fixture(scope="module")
def recipe(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of two chats, two completions each."""
    folder = tmp_path_factory.mktemp("real")
    with (folder / "chats.jsonl").open("w") as file:
        for n in range(8):
            chat = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": f"What is {n}+5?"}]
            row = {"prompt": chat, "reward_model": {"ground_truth": str(n + 5)}}
            file.write(json.dumps(row) + "\n")
    (folder / "real.yaml").write_text(RECIPE.format(model=real_model, data=folder / "chats.jsonl"))
    return folder / "real.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    code, said = runs.openrs(["train", recipe, "--run", recipe.parent / "undisturbed"])
    assert code == 0, said
    assert "read as: verl chat rows, answer from reward_model.ground_truth" in said
    return recipe.parent / "undisturbed"


def die_in_step_4() -> None:
    from openrs.training.trainer import Trainer

    judge = Trainer._calculate_rewards

    def dying(self: Trainer, *args: Any) -> Any:
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(self, *args)

    Trainer._calculate_rewards = dying  # type: ignore[method-assign]


def test_killed_and_resumed_the_weights_are_the_same_to_the_last_bit(recipe: Path, undisturbed: Path) -> None:
    run = recipe.parent / "killed"
    code, _ = runs.openrs(["train", recipe, "--run", run], die_in_step_4)
    assert code == -signal.SIGKILL
    assert checkpoints.list_complete(run / "checkpoints")[-1].name == "step-000002"
    code, said = runs.openrs(["train", recipe, "--run", run])
    assert code == 0, said
    assert runs.attempts(run)[-1]["from_step"] == 2
    assert runs.everything(run) == runs.everything(undisturbed)
    assert all(row["grad_norm"] > 0 for row in runs.rows(run))


GREEDY = f"""
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
assert not any(name.startswith("openrs") for name in sys.modules)
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
chat = [{{"role": "user", "content": "{QUESTION}"}}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.float().generate(**prompt, max_new_tokens=16, do_sample=False)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""


def greedy_of(folder: Path) -> str:
    """What plain transformers writes, without openrs."""
    words = [sys.executable, "-P", "-c", GREEDY, str(folder)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": ""}
    )
    return done.stdout


def test_an_export_writes_in_plain_transformers_what_openrs_writes(undisturbed: Path, tmp_path: Path) -> None:
    """openrs's side: the evaluation of the checkpoint, at temperature 0."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"problem": QUESTION, "answer": "12"}) + "\n")
    (tmp_path / "one.yaml").write_text(
        "one: {rows: 1, question: problem, gold: [answer], gold_kind: expr, prompt: null}\n"
    )
    checkpoint = checkpoints.list_complete(undisturbed / "checkpoints")[-1]
    words = ["evaluate", checkpoint, "--benchmarks", tmp_path / "one.yaml", "--data", tmp_path, "--samples", "1"]
    words += ["--temperature", "0", "--top-p", "1", "--max-tokens", "16", "--engine", "transformers"]
    code, said = runs.openrs([*words, "--run", tmp_path / "eval"])
    assert code == 0, said
    (sample,) = [row for path in tmp_path.rglob("samples.jsonl") for row in read_jsonl(path)]
    code, said = runs.openrs(["export", undisturbed, "--to", tmp_path / "exported"])
    assert code == 0, said
    text = greedy_of(tmp_path / "exported")
    assert len(text) > 10
    assert text == sample["text"]


def test_a_merged_adapter_has_the_values_of_base_plus_adapter(recipe: Path, real_model: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from openrs.hub import adapters

    sets = ["model.lora={rank: 8, alpha: 16, dropout: 0.0}", "grpo.max_steps=2", "grpo.learning_rate=1e-3"]
    words = [word for setting in sets for word in ("--set", setting)]
    code, said = runs.openrs(["train", recipe, "--run", tmp_path / "run", *words])
    assert code == 0, said
    adapter = checkpoints.list_complete(tmp_path / "run" / "checkpoints")[-1]
    assert adapters.is_adapter(adapter)
    base = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32).eval()
    ids = torch.arange(1000, 1020)[None]
    with torch.no_grad():
        untouched = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, adapter).eval()(input_ids=ids).logits
        folder = adapters.merge(real_model, adapter, tmp_path / "merged", dtype="float32", trust_remote_code=False)
        merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits
    assert (merged - adapted).abs().max() < 1e-3
    assert (merged - untouched).abs().max() > 1e-2


def test_every_verdict_on_amc23_is_that_of_lightevals_own_metric(
    real_model: Path, shared_data: Path, tmp_path: Path
) -> None:
    """Eight problems; four end with their answer, since nothing of this size gets one right."""
    lines = (shared_data / "benchmarks" / "amc23.jsonl").read_text().splitlines()[:8]
    problems = [json.loads(line) for line in lines]
    for row in problems[4:]:
        row["problem"] += f" Hint: the answer is $\\boxed{{{row['answer']:g}}}$. Repeat it."
    (tmp_path / "amc8.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    (tmp_path / "amc8.yaml").write_text(
        "amc8: {rows: 8, id: id, question: problem, gold: [answer], gold_kind: expr, prompt: null}\n"
    )
    words = ["evaluate", real_model, "--benchmarks", tmp_path / "amc8.yaml", "--data", tmp_path, "--samples", "1"]
    words += ["--temperature", "0.6", "--top-p", "0.95", "--max-tokens", "48", "--engine", "transformers"]
    code, said = runs.openrs([*words, "--run", tmp_path / "eval"])
    assert code == 0, said
    samples = [row for path in tmp_path.rglob("samples.jsonl") for row in read_jsonl(path)]
    golds = {f"amc8/{row['id']}": str(row["answer"]) for row in problems}
    asked = [[golds[row["problem"]], row["text"], "expr-gold"] for row in samples]
    lighteval = subprocess.run(
        [sys.executable, LIGHTEVAL], input=json.dumps(asked) + "\n", capture_output=True, text=True, check=True
    )
    scores = json.loads(lighteval.stdout.splitlines()[-1])
    assert [float(row["verdict"] == "correct") for row in samples] == scores
    assert len(scores) == 8
    assert {0.0, 1.0} == set(scores)
