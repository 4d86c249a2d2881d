"""Other people's results: the authors' own logs, today's schema, and everything that can be wrong with a file."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.evaluation.benchmarks import known
from openrs.report.evidence.lighteval_logs import NOTHING, lines, read, samples_of

AIME = known()["aime24"].hashes.model_dump()


def today(
    task="aime24|0",
    metrics=None,
    *,
    hashes=None,
    model="models/toy",
    docs=-1,
    revision="main",
    **config,
):
    """A result file in the schema of lighteval 0.13 (documented in docs/stack.md): values are made up."""
    metrics = {"avg@n:n=4": 0.3625, "avg@n:n=4_stderr": 0.04} if metrics is None else metrics
    return {
        "config_general": {
            "lighteval_sha": "?",
            "max_samples": None,
            "model_config": {"model_name": model, "revision": revision, "generation_parameters": {"temperature": 0.7}},
            "model_name": model,
        },
        "results": {task: metrics, "all": metrics},
        "versions": {},
        "config_tasks": {task: {"name": task.split("|")[0], "effective_num_docs": docs, "num_samples": None, **config}},
        "summary_tasks": {task: {"hashes": hashes or {}, "truncated": 0, "non_truncated": 0}},
        "summary_general": {"hashes": {}},
    }


def put(folder: Path, tree: object, name: str = "results_2026-11-20T10-11-12.131415.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return file


def one(tmp_path, tree):
    (result,) = read([put(tmp_path, tree)]).results
    return result


def test_the_authors_logs(shared_data):
    reading = read([shared_data / "paper_logs"])
    assert not reading.broken
    found = {
        folder: {r.benchmark: r for r in reading.results if folder in r.files[0]} for folder in ("Exp2_50", "Exp3_50")
    }
    tables = {folder: {name: round(100 * r.score, 1) for name, r in rows.items()} for folder, rows in found.items()}
    assert tables == {
        "Exp2_50": {"aime24": 30.0, "math_500": 85.4, "amc23": 80.0, "minerva": 30.5, "olympiadbench": 52.4},
        "Exp3_50": {"aime24": 46.7, "math_500": 84.4, "amc23": 72.5, "minerva": 26.8, "olympiadbench": 51.3},
    }
    for result in reading.results:
        assert (result.inputs, result.k, result.metric, result.n_from) == (
            "verified",
            1,
            "extractive_match",
            "the file",
        )
        assert result.n == known()[result.benchmark].rows
        assert result.inputs_detail == "hash_examples, hash_full_prompts, hash_input_tokens (two BOS)"
        assert result.model == "quyanh/OpenRS-GRPO"
    assert found["Exp3_50"]["aime24"].date == "2025-03-15 22:38"
    assert found["Exp3_50"]["aime24"].stderr == pytest.approx(0.0926411)


def test_todays_schema_with_the_papers_inputs(tmp_path):
    one_bos = "dad26a919149da47"  # AIME24 with one BOS in the form of 0.11 and later: recorded in input_hashes.json
    hashes = {
        **AIME,
        "hash_full_prompts": NOTHING,
        "hash_input_tokens": one_bos,
        "hash_cont_tokens": "b047b51615c438d5",
    }
    result = one(tmp_path, today(hashes=hashes))
    assert (result.model, result.benchmark, result.score, result.n, result.k) == ("models/toy", "aime24", 0.3625, 30, 4)
    assert result.inputs == "verified"
    assert result.inputs_detail == "hash_examples, hash_input_tokens (one BOS)"
    assert result.n_from == "the verified input hashes"
    assert result.date == "2026-11-20 10:11"


def test_other_token_ids_are_seen_but_the_questions_still_tell_n(tmp_path):
    result = one(tmp_path, today(hashes={**AIME, "hash_input_tokens": "f57e8bbbc51153d6"}))
    assert (result.inputs, result.inputs_detail, result.n) == ("differs", "hash_input_tokens", 30)


def test_the_questions_decide_what_a_task_with_another_name_is(tmp_path):
    assert one(tmp_path, today("my_aime|0", hashes=AIME)).benchmark == "aime24"
    gpqa = one(tmp_path, today("gpqa:diamond|0", docs=198, hashes={"hash_examples": "00"}))
    assert (gpqa.benchmark, gpqa.inputs) == ("gpqa_diamond", "no hash")
    other = one(tmp_path, today("other|0", docs=17, hashes={"hash_examples": "00"}))
    assert (other.benchmark, other.inputs, other.n) == ("other", "unknown benchmark", 17)


def test_same_name_other_questions(tmp_path):
    result = one(tmp_path, today("custom|aime24|0", docs=30, hashes={**AIME, "hash_examples": "06a6f993f79cdf80"}))
    assert (result.benchmark, result.inputs) == ("aime24", "differs")
    assert result.inputs_detail.startswith("hash_examples")


@pytest.mark.parametrize(("right", "n"), [(14, 30), (427, 500), (1, 40), (346, 675)])
def test_n_from_score_and_stderr(tmp_path, right, n):
    p = right / n
    metrics = {"extractive_match": p, "extractive_match_stderr": math.sqrt(p * (1 - p) / (n - 1))}
    result = one(tmp_path, today("somebodys|0", metrics))
    assert (result.n, result.k, result.score) == (n, 1, p)
    assert "score and stderr" in result.n_from


@pytest.mark.parametrize(
    "metrics",
    [
        {"extractive_match": 0.4667},
        {"extractive_match": 14 / 30, "extractive_match_stderr": 0.0921},
        {"extractive_match": 14 / 30, "extractive_match_stderr": float("nan")},
        {"extractive_match": 1.0, "extractive_match_stderr": 0.0},
        {"avg@n:n=4": 0.5, "avg@n:n=4_stderr": math.sqrt(0.25 / 29)},
    ],
)
def test_a_score_without_n_is_withheld(tmp_path, metrics):
    reading = read([put(tmp_path, today("somebodys|0", metrics))])
    (result,) = reading.results
    assert (result.score, result.n) == (None, None)
    text = "\n".join(lines(reading))
    assert "the file does not tell the number of problems" in text
    for hidden in ("46.7", "100.0", "50.0"):
        assert hidden not in text


@pytest.mark.parametrize("where", ["", "details/models/toy/2026-11-20T10-11-12.131415"])
def test_n_from_the_details_that_lighteval_wrote(tmp_path, where):
    import pyarrow as pa
    import pyarrow.parquet as pq

    date = "2026-11-20T10-11-12.131415"
    folder = tmp_path / "results" / "models" / "toy"
    put(folder, today("somebodys|0"))
    beside = tmp_path / where if where else folder
    beside.mkdir(parents=True, exist_ok=True)
    details = beside / f"details_somebodys|0_{date}.parquet"
    pq.write_table(pa.table({"doc": list(range(7))}), details)
    (result,) = read([tmp_path]).results
    assert (result.score, result.n, result.k, result.n_from) == (0.3625, 7, 4, "the details beside it")
    assert "somebodys: n = 7 from the details beside it" in "\n".join(lines(read([tmp_path])))
    details.write_bytes(b"PAR1")
    (result,) = read([tmp_path]).results
    assert (result.score, result.n) == (None, None)


@pytest.mark.parametrize(
    ("metric", "k"),
    [
        ("extractive_match", 1),
        ("avg@n:n=4", 4),
        ("pass@k:k=1&n=16", 16),
        ("pass@k:k=8", 8),
        ("avg@k:k=64", 64),
        ("math_pass@1:32_samples", 32),
        ("math_avg@64", 64),
        ("maj@8", 8),
        ("pass@k", None),
        ("avg@n", None),
    ],
)
def test_samples_behind_a_metric(metric, k):
    assert samples_of(metric, {}) == k


def test_a_score_without_k_is_withheld(tmp_path):
    result = one(tmp_path, today(metrics={"pass@k": 0.5}, docs=30))
    assert (result.score, result.n, result.k) == (None, 30, None)
    assert "samples a problem" in result.withheld
    assert one(tmp_path, today(metrics={"pass@k": 0.5}, docs=30, num_samples=[7])).k == 7


def test_one_run_in_two_files_is_counted_once_and_only_then(tmp_path):
    run = {**AIME, "hash_cont_tokens": "fd81113ccd505a4e"}
    tree = today(hashes=run)
    put(tmp_path / "a", tree)
    put(tmp_path / "b", tree)
    put(tmp_path / "c", today(hashes={**run, "hash_cont_tokens": "1" * 16}))  # another run
    put(tmp_path / "d", today(hashes=run, metrics={"avg@n:n=4": 0.4}))  # same tokens, other score: scored differently
    put(tmp_path / "e", today(hashes=run, model="models/other"))
    reading = read([tmp_path])
    assert [len(result.files) for result in reading.results] == [2, 1, 1, 1]
    assert "the same run in 2 files, counted once" in "\n".join(lines(reading))
    put(tmp_path / "f", today(hashes=AIME))
    put(tmp_path / "g", today(hashes=AIME))  # no generated tokens to go by: both stay
    assert len(read([tmp_path / "f", tmp_path / "g"]).results) == 2
    assert len(read([tmp_path / "a", tmp_path / "a" / "results_2026-11-20T10-11-12.131415.json"]).results) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ("   \n", "the file is empty"),
        ('{"results": {"aime24|0": {"extr', "not JSON, perhaps cut off"),
        ("\x80\x81", "line 1: not UTF-8"),
        ("[1, 2]", "no lighteval results"),
        ("null", "the file is empty"),
        ('{"config_general": {}}', "it has no `results`"),
        ('{"results": {}}', "it has no `results`"),
        ('{"results": {"all": {"x": 1}}}', "no scores in it"),
        ('{"results": {"t|0": 3}}', "t|0: no metrics in it"),
        ('{"results": {"t|0": {"m": NaN}}}', "t|0 m: nan is no proportion"),
        ('{"results": {"t|0": {"m": "0.5"}}}', "'0.5' is no proportion"),
        ('{"results": {"t|0": {"m": 46.7}}}', "46.7 is no proportion"),
        ('{"results": {"t|0": {"m": null}}}', "None is no proportion"),
        ('{"results": {"t|0": {"m": true}}}', "True is no proportion"),
        ('{"results": {"t|0": {"m": ' + "9" * 5000 + "}}}", "inf is no proportion"),
        ("[" * 200_000, "nested more than 64 levels deep"),
    ],
)
def test_broken_files_are_named_and_skipped(tmp_path, content, said):
    good = put(tmp_path / "good", today(hashes=AIME))
    bad = tmp_path / "bad" / "results_x.json"
    bad.parent.mkdir()
    bad.write_bytes(content.encode("latin-1") if "\x80" in content else content.encode())
    reading = read([tmp_path])
    assert [result.files for result in reading.results] == [(str(good),)]
    (broken,) = reading.broken
    assert broken.path == str(bad)
    assert said in broken.reason
    assert "Traceback" not in "\n".join(lines(reading))


def test_missing_keys_cost_only_what_they_told(tmp_path):
    result = one(tmp_path, {"results": {"custom|aime24|0": {"extractive_match": 0.3}}})
    assert (result.model, result.benchmark, result.inputs) == ("(no model name)", "aime24", "no hash")
    assert (result.score, result.n, result.k) == (None, None, 1)
    strange = {**today(), "config_tasks": [], "summary_tasks": {"aime24|0": {"hashes": None}}, "config_general": 3}
    assert one(tmp_path, strange).withheld


def test_paths_without_results_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    reading = read([tmp_path / "empty", tmp_path / "nope"])
    assert [broken.reason for broken in reading.broken] == ["no results_*.json in it", "no such file or folder"]
    assert main(["results", str(tmp_path)]) == 2
    assert "no results_*.json" in capsys.readouterr().out


def test_nothing_from_a_file_moves_the_cursor(tmp_path):
    put(tmp_path, today("evil\x1b[2J|0", model="m\x1b]0;owned\x07\n\r", docs=5))
    assert not {"\x1b", "\x07", "\r"} & set("\n".join(lines(read([tmp_path]))))


def test_a_revision_belongs_to_the_model(tmp_path):
    assert one(tmp_path, today(revision="1793695d9e827f1024422af3698f9a070b935698")).model == "models/toy@1793695d9e82"


def test_the_verb_prints_a_table_and_json(shared_data, capsys):
    path = str(shared_data / "paper_logs" / "Exp3_50")
    assert main(["results", path]) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if "aime24" in line).split()
    assert row[:8] == ["quyanh/OpenRS-GRPO", "aime24", "46.7", "9.3", "30", "1", "extractive_match", "verified"]
    assert main(["results", path, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert len(tree["results"]) == 5
    assert tree["broken"] == []


def test_csv_and_markdown_hold_the_same_scores_and_no_formula(tmp_path, shared_data, capsys):
    path = str(shared_data / "paper_logs")
    assert main(["results", path, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 10
    found = {(row["file"], row["benchmark"]): row for row in rows}
    assert main(["results", path, "--format", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    for one in read([Path(path)]).results:
        assert found[one.files[0], one.benchmark]["score_percent"] == f"{100 * one.score:.2f}"
        assert found[one.files[0], one.benchmark]["n_problems"] == str(one.n)
        assert sum(f"| {100 * one.score:.2f} |" in line for line in lines) > 0
    tree = json.loads(next((shared_data / "paper_logs").rglob("results_*.json")).read_text())
    tree["config_general"]["model_name"] = "=cmd|' /C calc'!A0\n| x |"
    put(tmp_path, tree)
    assert main(["results", str(tmp_path), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows
    assert all(row["model"].startswith("'=cmd") for row in rows)
    assert main(["results", str(tmp_path), "--format", "md"]) == 0
    assert all(line.count(" | ") == 9 for line in capsys.readouterr().out.splitlines() if "calc" in line)
