"""Five benchmarks, one sample a problem: one `openrs evaluate` against five lighteval processes, as the authors ran it.

    python benchmarks/evaluation.py --data DIR --tokenizer DIR [--repeats N] [--keep DIR] [--json FILE]

Both sides: the same made model (one layer, the real tokenizer), transformers, greedy, 8 tokens, batches of 64, float32,
one thread, no network. One after the other, --repeats times. Prints wall clock and processor seconds of each process,
their ratios (wanted: at least 4 in wall clock), and whether the scores are equal. DIR holds the five NAME.jsonl; the
tokenizer's folder has tokenizer.json and a chat template.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

from openrs.evaluation.benchmarks import known

FIVE = [benchmark.name for benchmark in known().values() if benchmark.hashes]
TOKENS, BATCH = 8, 64
TASKS = """\
import sys
from pathlib import Path
sys.path.append({tests!r})
from lighteval_tasks import task_config
from openrs.evaluation.benchmarks import known

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


Seconds = tuple[float, float]
"""Wall clock, and processor seconds of the process and all its children."""


def timed(words: list[str], cwd: Path, log: Path) -> Seconds:
    began, used = time.monotonic(), common.child_seconds()
    with log.open("wb") as out:
        done = subprocess.run(words, cwd=cwd, stdout=out, stderr=out, env=common.environment(), check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nended with {done.returncode}:\n{log.read_text()[-3000:]}")
    return time.monotonic() - began, common.child_seconds() - used


def ours(model: Path, data: Path, cwd: Path) -> tuple[Seconds, dict[str, float], dict[str, float]]:
    """Seconds, scores, and the time split that scores.json tells."""
    words = ["evaluate", str(model), "--benchmarks", ",".join(FIVE), "--data", str(data), "--engine", "transformers"]
    words += ["--temperature", "0", "--max-tokens", str(TOKENS), "--batch-size", str(BATCH), "--dtype", "float32"]
    seconds = timed([sys.executable, "-m", "openrs.cli", *words, "--run", "ours"], cwd, cwd / "ours.log")
    scores = json.loads((cwd / "runs" / "ours" / "eval" / model.name / "scores.json").read_text())
    return seconds, {name: one["accuracy"] for name, one in scores["benchmarks"].items()}, scores["seconds"]


def theirs(model: Path, data: Path, cwd: Path) -> tuple[dict[str, Seconds], dict[str, float]]:
    """Seconds of each process, and scores."""
    for name in FIVE:
        (cwd / "data" / name).mkdir(parents=True)
        shutil.copyfile(data / f"{name}.jsonl", cwd / "data" / name / "train.jsonl")
    (cwd / "tasks.py").write_text(
        TASKS.format(names=FIVE, tokens=TOKENS, data=str(cwd / "data"), tests=str(common.ROOT / "tests" / "evaluation"))
    )
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
    parser = common.arguments(__doc__)
    parser.add_argument("--data", type=Path, default=common.shared_data() / "benchmarks", metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, default=common.shared_data() / "tokenizer", metavar="DIR")
    parser.add_argument("--repeats", type=int, default=1, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here, and leave logs and results")
    args = parser.parse_args()
    found: dict[str, list[Seconds]] = {}
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        place = (args.keep or Path(scratch)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        model = make_model(place / "model", args.tokenizer)
        for number in range(args.repeats):
            cwd = place / f"round-{number + 1}"
            cwd.mkdir()
            one, ours_scores, split = ours(model, args.data.resolve(), cwd)
            each, their_scores = theirs(model, args.data.resolve(), cwd)
            five = (sum(wall for wall, _ in each.values()), sum(cpu for _, cpu in each.values()))
            for name, seconds in (("openrs evaluate", one), *each.items(), ("lighteval, all five", five)):
                found.setdefault(name, []).append(seconds)
            told = ", ".join(f"{name} {value:.1f}" for name, value in split.items())
            print(f"round {number + 1}: {one[0]:.1f} s ({told}) against {five[0]:.1f} s", flush=True)
            equal &= all(abs(ours_scores[name] - their_scores[name]) < 1e-12 for name in FIVE)
    rows: list[list[object]] = [["process", "s", "CPU s"]]
    for name, done in found.items():
        called = f"lighteval, {name}" if name in FIVE else name
        rows.append([called, *(str(common.spread([one[i] for one in done])) for i in (0, 1))])
    pair = [found["openrs evaluate"], found["lighteval, all five"]]
    ratios = {
        f"evaluation/five_benchmarks/{key}": common.paired(*([one[i] for one in side] for side in pair))
        for i, key in enumerate(("wall", "cpu"))
    }
    common.finish("evaluation", args.json, ratios, rows, scores_equal=equal)
    print(f"scores: {'equal' if equal else 'DIFFER'} in all rounds")


if __name__ == "__main__":
    main()
