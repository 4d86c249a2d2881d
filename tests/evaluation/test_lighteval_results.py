"""results_<time>.json against what lighteval itself makes of the same samples; and other tools read it."""

import json
import os
import random
import sys
from collections import defaultdict
from pathlib import Path

import forked
import pytest

from openrs.data.tokenizer import ChatEncoder
from openrs.evaluation.benchmarks import known, load_problems, resolve
from openrs.evaluation.inputs import combined
from openrs.evaluation.lighteval_results import HASHES, tree_of
from openrs.evaluation.run import evaluate
from openrs.evaluation.sampling import seed_of
from openrs.report.evidence.lighteval_logs import read
from openrs.rewards.grading import Item, Judge, Rule, Verdict
from openrs.run.files import read_jsonl
from openrs.run.progress import Progress

LETTERS = [
    "Answer: B", "so (B).", "Answer: A", "none", "**B**", "the final answer is: B. I hope", "B or C", "A\nB", "E", "b",
    "Answer: $B$", "I would say C, but B it is", "",
]  # fmt: skip
TOP = ["config_general", "results", "versions", "config_tasks", "summary_tasks", "summary_general"]


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=1) as one:
        yield one


@pytest.fixture
def drawn(target, settings, judge, tmp_path, stand_in):
    """The two small benchmarks with 1 and with 3 samples: [(k, settings, folder, results file)]."""
    found = []
    for k in (1, 3):
        asked, folder = settings(samples=k, double_bos=True), tmp_path / f"k{k}"
        evaluate(target, asked, folder, Progress(), judge)
        (path,) = folder.glob("results_*.json")
        found.append((k, asked, folder, path))
    return found


def tokens_of(seed, limit):
    """As the stand-in draws them."""
    draw = random.Random(seed)
    if draw.random() >= 0.5:
        draw.randrange(100)
    return [draw.randrange(100) for _ in range(draw.randrange(1, limit + 1))]


def asked_of_lighteval(k, asked, folder, model):
    texts = defaultdict(dict)
    for row in read_jsonl(folder / "samples.jsonl"):
        texts[row["problem"]][row["sample"]] = row["text"]
    encoder, by_problem = ChatEncoder.from_folder(model), {}
    for benchmark in resolve(asked.benchmarks):
        for problem in load_problems(benchmark, Path(asked.data)):
            seeds = [seed_of(asked.seed, benchmark.name, problem.id, n) for n in range(k)]
            tokens = [tokens_of(seed, asked.max_tokens) for seed in seeds]
            ids = encoder.ids(problem.prompt, double_bos=True)
            by_problem[problem.id] = [[texts[problem.id][n] for n in range(k)], tokens, ids]
    return {
        "definitions": asked.benchmarks, "data": asked.data, "samples": k, "max_tokens": asked.max_tokens,
        "by_problem": by_problem,
    }  # fmt: skip


def file_of(names, folder):
    """What a results file is made from: the settings, the scores and the samples of an evaluation's folder."""
    record, scores = (json.loads((folder / name).read_text()) for name in ("settings.json", "scores.json"))
    rows = [
        [[row[key] for key in ("benchmark", "problem", "sample")], row] for row in read_jsonl(folder / "samples.jsonl")
    ]
    return {"names": names, "record": record, "scores": scores, "rows": rows}


def odd_file(seed):
    """The same, made up: some of our benchmarks in any order, few problems or one, scores of every share, integers for
    the settings that lighteval has as floats."""
    dice = random.Random(seed)
    names = dice.sample(list(known()), dice.randint(1, len(known())))
    facts, scores, rows = {}, {}, []
    for name in names:
        k, n = dice.randint(1, 5), dice.randint(1, 30)
        facts[name] = {"k": k} | {key: dice.randbytes(8).hex() for key in HASHES[: dice.randint(0, 3)]}
        grid = {f"{name}/{problem}": [dice.randint(0, 1) for _ in range(k)] for problem in range(n)}
        scores[name] = {"per_problem": grid}
        rows += [[[name, p, i], {"tokens_hash": dice.randbytes(8).hex()}] for p in grid for i in range(k)]
    protocol = {"temperature": dice.choice([0, 1, 0.6]), "top_p": dice.choice([1, 0.95]), "max_tokens": 9, "seed": seed}
    model = {"name": "Müller/m\u2028", "revision": dice.choice([None, "ab12"]), "sha256": {}}
    scores = {"model": model, "seconds": {"load": 1 / 3}, "inputs": {"proven": False}, "benchmarks": scores}
    return {"names": names, "record": {"protocol": protocol, "benchmarks": facts}, "scores": scores, "rows": rows}


def text_of(given):
    rows = {tuple(key): row for key, row in given["rows"]}
    tree = tree_of(resolve(given["names"]), given["scores"], given["record"], rows)
    return tree["config_general"]["openrs"], json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def test_the_file_is_what_lighteval_itself_writes(drawn, made_model, judge):
    """Its values and hashes are those of lighteval's own run, its bytes those of its loggers and encoder."""
    files = [file_of(asked.benchmarks, folder) for _, asked, folder, _ in drawn] + [
        odd_file(seed) for seed in range(12)
    ]
    kinds = {one.gold_kind for given in files for one in resolve(given["names"])}
    assert kinds == {"expr", "latex", "index"}
    texts = [path.read_text() for _, _, _, path in drawn] + [text_of(given)[1] for given in files[len(drawn) :]]
    given = {
        "evaluations": [asked_of_lighteval(k, a, f, made_model) for k, a, f, _ in drawn],
        "letters": LETTERS,
        "files": [{**one, "openrs": text_of(one)[0]} for one in files],
    }
    script = Path(__file__).with_name("lighteval_own.py")
    own = forked.run([sys.executable, script], json.dumps(given), env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert own.returncode == 0, own.stderr[-3000:]
    truth = json.loads(own.stdout)
    assert texts == truth["files"]
    for (k, _, _, path), wanted in zip(drawn, truth["results"], strict=True):
        ours = json.loads(path.read_text())
        assert list(ours) == TOP == list(wanted)
        metric = "extractive_match" if k == 1 else "avg@n:n=3"
        assert set(ours["results"]) == set(wanted["results"])
        for name, values in wanted["results"].items():
            assert ours["results"][name] == pytest.approx(values, abs=1e-12)  # it sums in another order
        assert 0 < ours["results"]["sums|0"][metric] < 1
        assert set(ours["results"]) == {"sums|0", "more|0", "all"}
        assert ours["config_tasks"] == wanted["config_tasks"]
        for name, summary in wanted["summary_tasks"].items():
            hashes = {h: v for h, v in summary["hashes"].items() if h in ("hash_examples", "hash_input_tokens")}
            if k == 1:
                hashes["hash_cont_tokens"] = summary["hashes"]["hash_cont_tokens"]
            assert ours["summary_tasks"][name]["hashes"] | hashes == ours["summary_tasks"][name]["hashes"]
            assert set(ours["summary_tasks"][name]) == set(summary)
        assert set(ours["summary_general"]) == set(wanted["summary_general"])
        parts = {key for key in wanted["config_general"] if key != "model_config"}
        assert parts <= set(ours["config_general"])
    grades = judge.grade([Item("B", text, Rule.INDEX_GOLD) for text in LETTERS])
    assert [float(grade.verdict is Verdict.CORRECT) for grade in grades] == truth["letters"]
    assert set(truth["letters"]) == {0.0, 1.0}


def test_the_file_agrees_with_scores_and_samples(drawn):
    for k, _, folder, path in drawn:
        ours, scores = json.loads(path.read_text()), json.loads((folder / "scores.json").read_text())
        rows = list(read_jsonl(folder / "samples.jsonl"))
        for name, score in scores["benchmarks"].items():
            (value, stderr) = ours["results"][f"{name}|0"].values()
            assert value == pytest.approx(score["accuracy"])
            assert stderr == pytest.approx(score["stderr"])
            assert ours["config_tasks"][f"{name}|0"]["effective_num_docs"] == score["n"]
            if k == 1:
                tokens = combined(row["tokens_hash"] for row in rows if row["benchmark"] == name)
                assert ours["summary_tasks"][f"{name}|0"]["hashes"]["hash_cont_tokens"] == tokens
        general = ours["config_general"]
        assert general["model_config"]["generation_parameters"]["temperature"] == 0.7
        assert general["openrs"]["protocol"] == scores["protocol"]


def test_openrs_results_reads_it(drawn):
    reading = read([path for _, _, _, path in drawn])
    assert not reading.broken
    assert {(r.benchmark, r.n, r.k) for r in reading.results} == {
        ("sums", 12, 1), ("sums", 12, 3), ("more", 5, 1), ("more", 5, 3)
    }  # fmt: skip
    assert {r.model for r in reading.results} == {"made"}


@pytest.mark.slow
def test_hashes_of_the_papers_inputs_are_recognised(papers_tokenizer, shared_data):
    """A file of ours with the paper's questions is `verified`, with one BOS and with two."""
    from openrs.config.schema import Evaluation
    from openrs.evaluation.plan import Target, prepare
    from openrs.evaluation.scores import build_scores

    for double, said in ((True, "two BOS"), (False, "one BOS")):
        plan = prepare(
            Target("base", str(papers_tokenizer)),
            Evaluation(
                benchmarks=["aime24"], data=str(shared_data / "benchmarks"), max_tokens=8, double_bos=double,
                engine="transformers", processes=1,
            ),
        )  # fmt: skip
        rows = {
            r.key: {"verdict": "correct", "answer": "1", "finish": "stop", "tokens": 1, "tokens_hash": "0"}
            for r in plan.requests
        }
        scores = build_scores(plan.record, plan.problems, rows, {"load": 0.0}, 30)
        hashes = tree_hashes(plan, scores, rows)
        from openrs.report.evidence.lighteval_logs import _verify

        assert _verify(known()["aime24"], hashes) == (
            "verified", f"hash_examples, hash_full_prompts, hash_input_tokens ({said})"
        )  # fmt: skip


def tree_hashes(plan, scores, rows):
    tree = tree_of(plan.benchmarks, scores, plan.record, rows)
    return tree["summary_tasks"]["aime24|0"]["hashes"]
