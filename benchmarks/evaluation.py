"""Five benchmarks, one sample a problem: one `openrs evaluate` against five lighteval processes, as the authors ran it.

    python benchmarks/evaluation.py --data DIR --tokenizer DIR [--keep DIR]

Both sides: the same made model (one layer, the real tokenizer), transformers, greedy, 8 tokens, batches of 64, float32,
no network. Prints the wall clock of each process, the ratio, and whether the scores are equal. DIR holds the five
NAME.jsonl; the tokenizer's folder has tokenizer.json and a chat template.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openrs.evaluation.benchmarks import known

FIVE = [benchmark.name for benchmark in known().values() if benchmark.hashes]
TOKENS, BATCH = 8, 64
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
TASKS = """\
from pathlib import Path
from openrs.evaluation.benchmarks import known
from openrs.evaluation.lighteval_tasks import task_config

TASKS_TABLE = []
for name in {names!r}:  # another name, because lighteval has an aime24 of its own
    config = task_config(known()[name].model_copy(update={{"name": "openrs_" + name}}), 1, {tokens})
    config.hf_repo, config.hf_subset, config.hf_revision = str(Path({data!r}) / name), "default", None
    config.hf_avail_splits = config.evaluation_splits = ("train",)
    TASKS_TABLE.append(config)
"""


def make_model(folder: Path, tokenizer: Path) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.3,
            bos_token_id=151646, eos_token_id=151643,
        )
    ).save_pretrained(folder)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


def timed(words: list[str], cwd: Path, log: Path) -> float:
    began = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(words, cwd=cwd, stdout=out, stderr=out, env={**os.environ, **QUIET}, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nended with {done.returncode}:\n{log.read_text()[-3000:]}")
    return time.monotonic() - began


def ours(model: Path, data: Path, cwd: Path) -> tuple[float, dict[str, float], dict[str, float]]:
    """Seconds, scores, and the time split that scores.json tells."""
    words = ["evaluate", str(model), "--benchmarks", ",".join(FIVE), "--data", str(data), "--engine", "transformers"]
    words += ["--temperature", "0", "--max-tokens", str(TOKENS), "--batch-size", str(BATCH), "--dtype", "float32"]
    seconds = timed([sys.executable, "-m", "openrs.cli", *words, "--run", "ours"], cwd, cwd / "ours.log")
    scores = json.loads((cwd / "runs" / "ours" / "eval" / model.name / "scores.json").read_text())
    return seconds, {name: one["accuracy"] for name, one in scores["benchmarks"].items()}, scores["seconds"]


def theirs(model: Path, data: Path, cwd: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each process, and scores."""
    for name in FIVE:
        (cwd / "data" / name).mkdir(parents=True)
        shutil.copyfile(data / f"{name}.jsonl", cwd / "data" / name / "train.jsonl")
    (cwd / "tasks.py").write_text(TASKS.format(names=FIVE, tokens=TOKENS, data=str(cwd / "data")))
    seconds, scores = {}, {}
    for name in FIVE:
        out = cwd / f"lighteval-{name}"
        arguments = f"model_name={model},dtype=float32,batch_size={BATCH},cache_dir={out}/cache"
        arguments += f",generation_parameters={{temperature:0,max_new_tokens:{TOKENS}}}"
        words = ["accelerate", arguments, f"openrs_{name}|0", "--custom-tasks", str(cwd / "tasks.py")]
        words += ["--output-dir", str(out), "--no-save-details"]
        lighteval = Path(sys.executable).with_name("lighteval")
        seconds[name] = timed([str(lighteval), *words], cwd, cwd / f"lighteval-{name}.log")
        (found,) = (out / "results").rglob("results_*.json")
        scores[name] = json.loads(found.read_text())["results"][f"openrs_{name}|0"]["extractive_match"]
    return seconds, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="work here, and leave logs and results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cwd = (args.keep or Path(scratch)).resolve()
        cwd.mkdir(parents=True, exist_ok=True)
        model = make_model(cwd / "model", args.tokenizer)
        one, ours_scores, split = ours(model, args.data.resolve(), cwd)
        told = ", ".join(f"{name} {value:.1f}" for name, value in split.items())
        print(f"openrs evaluate, one process: {one:.1f} s ({told})", flush=True)
        each, their_scores = theirs(model, args.data.resolve(), cwd)
        for name, seconds in each.items():
            print(f"lighteval accelerate, {name}: {seconds:.1f} s", flush=True)
        five = sum(each.values())
        print(f"lighteval, five processes: {five:.1f} s")
        print(f"ratio: {five / one:.2f} (wanted: at least 4)")
        same = all(abs(ours_scores[name] - their_scores[name]) < 1e-12 for name in FIVE)
        print(f"scores: {'equal' if same else f'differ: {ours_scores} and {their_scores}'}")


if __name__ == "__main__":
    main()
