"""The page, report.md and report.json of a run: equal numbers, whatever part of the run is there, whatever is in it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from made_run import made_run, write_evaluation

import openrs
from openrs.errors import UserError
from openrs.evaluation.statistics import paired_difference
from openrs.report.evidence.sources import gather
from openrs.report.pages.document import document
from openrs.report.pages.page import report_on, write_report
from openrs.run.directory import Run

pytestmark = pytest.mark.slow
SCHEMA = json.loads((Path(openrs.__file__).parent / "schemas" / "report.schema.json").read_text())


@pytest.fixture
def unrendered(monkeypatch):
    """Plots are made and painted, but not laid out and written, which is most of the time that a page takes."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **_: out.write("<svg ></svg>"))


def made(path: Path, **options: object) -> tuple[dict, str, str]:
    run = made_run(path, **options)
    page = write_report(run)
    return json.loads((path / "report.json").read_text()), (path / "report.md").read_text(), page.read_text()


def test_the_same_numbers_stand_in_json_markdown_and_page(tmp_path):
    tree, markdown, page = made(tmp_path / "run")
    scores = json.loads((tmp_path / "run/eval/step-000100/scores.json").read_text())["benchmarks"]["amc23"]
    base = json.loads((tmp_path / "run/eval/step-000000/scores.json").read_text())["benchmarks"]["amc23"]
    row = next(row for row in tree["runs"][0]["differences"] if row["benchmark"] == "amc23" and row["step"] == 100)
    pair = paired_difference(list(scores["per_problem"].values()), list(base["per_problem"].values()))
    assert row["n"] == 40
    assert row["k"] == [4, 4]
    assert row["difference"] == pytest.approx(scores["accuracy"] - base["accuracy"])
    assert (row["p"], row["interval"]) == (pair.p_value, [pair.interval.low, pair.interval.high])
    shown = f"{100 * row['difference']:+.1f}"
    assert f"| {shown} |" in markdown
    assert f"<b>{shown}</b>" in page
    assert f"{100 * scores['accuracy']:.1f}" in markdown
    assert tree["runs"][0]["run"]["state"] == "done"
    assert tree["missing"] == []


def test_differences_pair_by_the_name_of_the_problem_not_by_its_place(tmp_path):
    run = made_run(tmp_path / "run", checkpoints=(0, 50), benchmarks=(("aime24", 30, 0.3),))
    expected = document(gather([str(run.path)]))["runs"][0]["differences"][0]
    path = run.evaluation("step-000050") / "scores.json"
    tree = json.loads(path.read_text())
    problems = tree["benchmarks"]["aime24"]["per_problem"]
    tree["benchmarks"]["aime24"]["per_problem"] = dict(reversed(problems.items()))
    path.write_text(json.dumps(tree))
    found = document(gather([str(run.path)]))["runs"][0]["differences"][0]
    assert found == expected


def test_a_difference_of_settings_is_said(tmp_path, unrendered):
    run = made_run(tmp_path / "run", checkpoints=(0, 50))
    path = run.evaluation("step-000050") / "scores.json"
    path.write_text(path.read_text().replace('"temperature": 0.6', '"temperature": 0.8'))
    page = write_report(run).read_text()
    assert "differ in temperature" in page


def test_every_part_may_be_missing(tmp_path, unrendered):
    for part in ("manifest.json", "recipe.yaml", "metrics.jsonl", "completions", "eval"):
        run = made_run(tmp_path / part, steps=30, checkpoints=(0,))
        gone = run.path / part
        gone.rename(tmp_path / f"gone-{part}")
        page = write_report(run).read_text()
        assert "</html>" in page
    (tmp_path / "nothing").mkdir()
    assert "What is missing" in write_report(Run(tmp_path / "nothing")).read_text()


def test_half_written_and_damaged_files_are_named(tmp_path, unrendered):
    run = made_run(tmp_path / "run", steps=30)
    with run.metrics.open("a") as file:
        file.write('{"step": 31, "reward": NaN, "kl": null, "loss": Infinity}\n{"step": 32, "rew')
    run.manifest.write_text('{"attempts": [')
    run.recipe.write_text("title: [unclosed")
    (run.completions / "step-000030.parquet").write_bytes(b"PAR1 not really")
    (run.evaluation("step-000050") / "scores.json").write_text('{"benchmarks": {"aime24": {"n": 30}, "amc23": null}}')
    (run.evaluation("step-000100") / "scores.json").write_text("")
    (run.evaluation("empty")).mkdir()
    tree = json.loads(write_report(run).with_name("report.json").read_text())
    said = "\n".join(tree["missing"])
    for part in ("manifest.json", "recipe.yaml", "metrics.jsonl: 1 damaged", "step-000030.parquet", "aime24 has no"):
        assert part in said
    assert "eval/step-000100/scores.json is broken" in said
    assert "eval/empty is not finished" in said
    assert tree["runs"][0]["training"]["last_step"] == 31
    assert tree["runs"][0]["training"]["metrics"]["reward"]["last"] > 1


def test_hostile_text_does_nothing_to_the_page(tmp_path):
    run = made_run(tmp_path / "<script>alert(1)</script>", steps=30)
    attack = (
        '</pre></script><script>document.title="taken"</script><img src=x onerror=alert(1)>\u202e\x00\ud800\U0001f600'
    )
    run.recipe.write_text(json.dumps({"title": attack, "rewards": {"mode": attack}}))
    run.manifest.write_text(json.dumps({"attempts": [{"exit_code": 1, "reason": attack}]}))
    row = json.dumps({"step": 31, "rewards/" + attack + "$\\frac{/mean": 1.0})
    run.metrics.write_text(run.metrics.read_text() + row + "\n")
    folder = run.evaluation("step-000050")
    tree = json.loads((folder / "scores.json").read_text())
    tree["benchmarks"] = {attack: tree["benchmarks"]["aime24"]}
    tree["protocol"]["engine"] = attack
    (folder / "scores.json").write_text(json.dumps(tree))
    page = write_report(run).read_bytes().decode("utf-8")
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x00" not in page
    markdown = (run.path / "report.md").read_text()
    assert "<script" not in markdown.replace("\\<script", "")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run and no file"):
        report_on([str(tmp_path / "nowhere")])


def test_the_report_needs_no_torch():
    code = "import sys, openrs.report.pages.page; print('torch' in sys.modules, 'transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_equal_runs_give_equal_pages(tmp_path):
    run = made_run(tmp_path / "run", steps=30, checkpoints=(0, 50))
    first = write_report(run).read_text()
    second = write_report(run).read_text()
    undated = [re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "", page) for page in (first, second)]
    assert undated[0] == undated[1]


def test_an_unfinished_evaluation_has_samples_and_no_score(tmp_path, unrendered):
    run = Run(tmp_path / "run")
    import random

    write_evaluation(run, 50, (("aime24", 30, 0.3),), 2, 0.0, random.Random(1))
    (run.evaluation("step-000050") / "scores.json").unlink()
    tree = document(gather([str(run.path)]))
    assert tree["runs"][0]["evaluations"][0]["samples"] == 60
    assert tree["runs"][0]["evaluations"][0]["benchmarks"] == {}
    assert "60 samples are there, but no scores" in "\n".join(tree["missing"])


def test_report_json_follows_its_schema_whatever_it_is_made_from(tmp_path, unrendered):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    seeds = [made_run(tmp_path / f"s{seed}", steps=20, seed=seed, checkpoints=(0, 50, 100)).path for seed in range(2)]
    (tmp_path / "empty").mkdir()
    for i, names in enumerate(([], [seeds[0]], seeds, [tmp_path / "empty"])):
        page = report_on([str(name) for name in names], str(tmp_path / f"out{i}"))
        jsonschema.validate(json.loads(page.with_name("report.json").read_text()), SCHEMA)


def test_a_completion_of_a_megabyte_is_cut_and_the_page_stays_small(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0, 50), samples=1)
    path = run.evaluation("step-000050") / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["text"] = "\U0001f9ee \u05e9\u05dc\u05d5\u05dd \u202e \ud800 </pre><b>" * 50_000
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run)
    assert page.stat().st_size < 6_000_000
    said = page.read_bytes().decode("utf-8")
    assert "characters left out" in said
    assert "</pre><b>" not in said


def test_numbers_that_are_none_do_not_break_anything(tmp_path):
    run = made_run(tmp_path / "run", steps=20, checkpoints=(0, 50))
    folder = run.evaluation("step-000050")
    tree = json.loads((folder / "scores.json").read_text())
    odd = {
        "n": 30,
        "k": None,
        "accuracy": 0.3,
        "stderr": "NaN",
        "interval": [None, 2],
        "pass_at_k": 5,
        "truncated": 1e400,
    }
    tree["benchmarks"]["aime24"] = odd | {"per_problem": {"a": [2], "b": [], "c": None, "d": [1]}, "verdicts": ["x"]}
    tree["inputs"] = {"checks": 5, "changes": "x"}
    tree["seconds"] = None
    (folder / "scores.json").write_text(json.dumps(tree))
    run.recipe.write_text(
        '{"rewards": {"functions": 3}, "grpo": [], "paper": {"experiment": ["x"]}, "hardware": {"gpus": "x"}}'
    )
    run.manifest.write_text(json.dumps({"attempts": {"a": 1}, "seeds": [], "machine": None, "packages": "x"}))
    run.metrics.write_text('{"step": 1.5}\n{"step": true}\n[]\n{"step": 3, "reward": 1e999, "kl": "x", "alarms": 7}\n')
    assert "</html>" in write_report(run).read_text()


def test_a_manifest_nested_without_end_is_cut(tmp_path, unrendered):
    run = made_run(tmp_path / "run", steps=20, checkpoints=())
    run.manifest.write_text('{"a":' * 600 + "1" + "}" * 600)
    assert "</html>" in write_report(run).read_text()


def test_the_command_says_where_the_report_is_and_refuses_what_is_not_there(tmp_path):
    def openrs(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "openrs.cli", "report", *words]
        return forked.run(command, cwd=tmp_path)

    done = openrs()
    assert (done.returncode, done.stdout) == (0, "report: report/report.html\n")
    assert "None of" not in (tmp_path / "report/report.md").read_text()
    refused = openrs("nothing-here")
    assert refused.returncode == 2
    assert "there is no run and no file" in refused.stderr
    assert "Traceback" not in refused.stderr
    (tmp_path / "file").write_text("")
    blocked = openrs("--out", "file")
    assert blocked.returncode == 2
    assert "give another place with --out" in blocked.stderr
    (tmp_path / "results_x.json").write_text("{")
    assert openrs("results_x.json").returncode == 2


def test_alarms_of_the_monitors_are_told_and_what_is_always_zero_is_not_drawn(tmp_path, unrendered):
    run = made_run(tmp_path / "run", steps=20, checkpoints=())
    rows = [json.loads(line) | {"completions/non_latin": 0.0} for line in run.metrics.read_text().splitlines()]
    rows[4]["alarms"] = ["no_signal"]
    rows[9]["alarms"] = ["no_signal", "kl"]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run).read_text()
    assert "3 alarms" in page
    assert "no_signal</bdi> 2 times, first at step 5" in page
    assert "Zero at every step: letters of other scripts." in page
    tree = json.loads((run.path / "report.json").read_text())
    assert tree["runs"][0]["training"]["alarms"][0] == {"step": 5, "monitor": "no_signal"}
