"""`openrs watch` and `openrs report --watch`: from files alone, in any terminal, until the run ends."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from openrs.cli.main import main
from openrs.report.pages import page as pages
from openrs.run import watch as watching
from openrs.run.directory import Run

RECIPE = "grpo: {max_steps: 40}\ntraining: {stop_after: null}\n"
HOSTILE = "\x1b]0;taken\x07\x1b[31mred \u202e\u4e2d\u6587 tail\r\n"


def going_on(path: Path, steps: int = 10, **end: object) -> Run:
    run = Run(path)
    path.mkdir(parents=True)
    run.recipe.write_text(RECIPE)
    run.manifest.write_text(json.dumps({"attempts": [{"number": 1, "started": "2026-11-20T08:00:00Z", **end}]}))
    more(run, 1, steps)
    (path / "attempts" / "01").mkdir(parents=True)
    (path / "attempts" / "01" / "log").write_text(f"08:00:00 first\n08:00:01 step {HOSTILE}")
    run.completions.mkdir()
    row = {"id": "p1", "completion": HOSTILE * 30, "verdict": "correct"}
    pq.write_table(pa.Table.from_pylist([row] * 4), run.completions / "step-000010.parquet")
    return run


def more(run: Run, first: int, last: int) -> None:
    with run.metrics.open("a") as file:
        for step in range(first, last + 1):
            row = {"step": step, "reward": step / 10, "rewards/format/mean": 1.0, "accuracy": 0.5, "time/step": 3.0}
            row |= {"completions/mean_length": 100.0 + step, "kl": 0.01, "alarms": ["kl"] if step in (4, 6) else []}
            file.write(json.dumps(row) + "\n")


def shown(run: Run, width: int = 80, *, unicode: bool = True) -> str:
    return "\n".join(watching.screen(run, watching.Metrics(run.metrics), width, unicode=unicode))


def test_a_look_has_step_curves_time_left_alarms_disk_and_completions(tmp_path):
    said = shown(going_on(tmp_path / "run"))
    assert "step 10 of 40, 25 %, 1 min 30 s of training left" in said
    assert "running" in said
    assert "reward       1 " in said
    assert "▁▂▃▃▄▅▆▆▇█" in said.replace(" ", "")
    for part in (
        "  format",
        "accuracy     50 %",
        "length       110 tokens",
        "KL           0.01 nats/token",
        "GiB free",
    ):
        assert part in said
    assert "kl 2 times, first at step 4" in said
    assert "  correct, p1: red" in said


@pytest.mark.parametrize("width", [20, 41, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_too_wide_and_nothing_reaches_the_terminal_but_text(tmp_path, width, unicode):
    said = shown(going_on(tmp_path / "run"), width, unicode=unicode)
    assert all(cell_len(line) <= width for line in said.splitlines())
    assert all(sign.isprintable() for sign in said.replace("\n", ""))
    assert unicode or said.isascii()


def test_metrics_are_read_on_and_read_again_after_a_resume(tmp_path):
    run = going_on(tmp_path / "run")
    metrics = watching.Metrics(run.metrics)
    metrics.look()
    more(run, 11, 12)
    with run.metrics.open("a") as file:
        file.write('{"step": 13, "rew')
    metrics.look()
    assert list(metrics.rows) == list(range(1, 13))
    run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:5]))
    metrics.look()
    assert list(metrics.rows) == [1, 2, 3, 4, 5]
    more(run, 3, 4)
    metrics.look()
    assert list(metrics.rows) == [1, 2, 3, 4]


@pytest.mark.parametrize("left", ["manifest.json", "recipe.yaml", "metrics.jsonl"])
def test_files_that_are_damaged_do_not_end_it(tmp_path, left):
    run = going_on(tmp_path / "run")
    (run.path / left).write_bytes(b'{"attempts": [\x00\xff\n[1, 2]\n"x"\n')
    with run.metrics.open("a") as file:
        file.write(f'\n{{"step": 11, "reward": {"9" * 400}, "kl": NaN}}\n{{"step": {"9" * 4300}}}\n')
    (run.completions / "step-000011.parquet").write_bytes(b"PAR1 not really")
    assert "cannot be read" in shown(run)


def end(run: Run) -> None:
    tree = json.loads(run.manifest.read_text())
    tree["attempts"][-1] |= {"ended": "2026-11-20T09:00:00Z", "exit_code": 75, "reason": "interrupted"}
    run.manifest.write_text(json.dumps(tree))


def test_it_ends_when_the_run_ends(tmp_path, capsys):
    run = going_on(tmp_path / "run")
    looks = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        more(run, 11, 12) if len(looks) == 2 else end(run) if len(looks) == 3 else None

    watching.watch(run, 5.0, pause=pause)
    said = capsys.readouterr().out
    assert looks == [5.0] * 3
    assert said.count("run: ") == 3  # the first look, the new step, the end
    assert "ended with exit code 75: interrupted" in said


def test_a_terminal_is_drawn_again_in_its_own_size(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        encoding = "latin-1"

        def isatty(self) -> bool:
            return True

    run, terminal = going_on(tmp_path / "run"), Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    watching.watch(run, 1.0, pause=lambda _: end(run))
    said = terminal.getvalue()
    assert said.count("\x1b[H\x1b[J") == 2
    assert said.count("\x1b") == 4
    assert said.isascii()
    assert len(said.splitlines()) == 10


@pytest.mark.slow
def test_watching_needs_no_torch_and_takes_a_name_or_a_path(tmp_path):
    run = going_on(tmp_path / "runs" / "mine")
    code = "import sys; from openrs.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "watch", "mine", "--once"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 False\n")
    assert "mine: running" in done.stdout
    assert run.path.name in done.stdout


@pytest.mark.slow
def test_the_page_is_written_again_until_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **_: out.write("<svg ></svg>"))
    run = going_on(tmp_path / "run")
    seen = []

    def pause(seconds: float) -> None:
        seen.append((seconds, 'http-equiv="refresh" content="7"' in (run.path / "report.html").read_text()))
        if len(seen) == 2:
            end(run)

    monkeypatch.setattr(pages.time, "sleep", pause)
    pages.keep_fresh([str(run.path)], None, None, paper=False, every=7)
    assert seen == [(7, True)] * 2
    assert 'http-equiv="refresh"' not in pages.report_on([str(run.path)]).read_text()


@pytest.mark.parametrize("every", ["0", "-5", "999999999999"])
def test_a_page_is_refused_that_would_be_written_at_no_sensible_time(tmp_path, every, capsys):
    run = going_on(tmp_path / "run")
    assert main(["report", str(run.path), "--watch", every]) == 2
    assert f"--watch {every} is not from 1 to 86400" in capsys.readouterr().err


def test_a_studys_page_is_not_kept_fresh(tmp_path, capsys):
    (tmp_path / "study.json").write_text("{}")
    assert main(["report", str(tmp_path), "--watch", "60"]) == 2
    said = capsys.readouterr().err
    assert "--watch is for runs" in said
    assert f"openrs watch {tmp_path}" in said
