"""metrics.jsonl is the truth; what mirrors it may break, may be rebuilt, and never stops a training."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import runs
from schemas import faults_in

from openrs.cli.main import main
from openrs.errors import RunFailure
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import tracking

Events = list[tuple[int, float, dict[str, float]]]


def events(run: Path) -> Events:
    """What TensorBoard's own reader finds: step, wall time and values of each event."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (file,) = (run / "tensorboard").iterdir()
    found = []
    for event in LegacyEventFileLoader(str(file)).Load():
        if event.HasField("summary"):
            values = {value.tag: value.simple_value for value in event.summary.value}
            found.append((event.step, event.wall_time, values))
    return found


def told(run: Path) -> list[tuple[int, dict[str, float]]]:
    """What the mirror must hold, from metrics.jsonl, in the float32 of event files."""
    import numpy as np

    rows = list(read_jsonl(run / "metrics.jsonl"))
    return [(row["step"], {k: float(np.float32(v)) for k, v in tracking.numbers(row).items()}) for row in rows]


def test_tensorboard_mirrors_every_number_and_can_be_rebuilt(undisturbed: Path, tmp_path: Path) -> None:
    live = events(undisturbed)
    assert [(step, values) for step, _, values in live] == told(undisturbed)
    assert len(live) == 20
    assert {"loss", "reward", "kl", "learning_rate", "completions/mean_length", "time/step"} <= set(live[-1][2])
    seconds = [row["time/step"] for row in read_jsonl(undisturbed / "metrics.jsonl")]
    assert live[-1][1] - live[0][1] == pytest.approx(sum(seconds[1:]))

    run = tmp_path / "copy"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "tensorboard")
    assert main(["track", str(run), "--to", "tensorboard"]) == 0
    assert events(run) == live


def break_tensorboard_at_step_3() -> None:
    write = tracking.TensorBoard.write

    def broken(self: tracking.TensorBoard, row: tracking.Row, seconds: float) -> None:
        if row["step"] == 3:
            raise ConnectionError("token=hf_abcdefghijklmnop is not welcome\nsecond line")
        write(self, row, seconds)

    tracking.TensorBoard.write = broken  # type: ignore[method-assign]


def test_a_tracker_that_throws(undisturbed: Path, tmp_path: Path) -> None:
    """Training goes on as if nothing were; after a resume (here with a sound tracker) the mirror is whole again."""
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run]
    code, said = runs.openrs([*command, "--until", 10], break_tensorboard_at_step_3)
    assert code == 0, said
    assert said.count("the tracker tensorboard broke") == 1
    assert "ConnectionError: token=[hidden] is not welcome): training continues without it" in said
    assert [step for step, _, _ in events(run)] == [1, 2]
    code, said = runs.openrs(command)
    assert code == 0, said
    assert [(step, values) for step, _, values in events(run)] == told(run)
    assert runs.everything(run) == runs.everything(undisturbed)


# --- trackers that are not installed here: stand-ins that write down what they are told -------------------------------

STAND_IN = """
import json
class Settings(dict):
    pass
class Told:
    def __init__(self, **given):
        self.rows = [{k: v for k, v in given.items() if k in ("project", "name", "mode", "resume")}]
        self.folder = given.get("dir")
    def log(self, row, step):
        if "loss" not in row: raise ValueError("a row without loss")
        self.rows.append([step, sorted(row)])
    def finish(self):
        open(FILE, "w").write(json.dumps(self.rows))
current = None
def init(**given):
    global current
    current = Told(**given)
    return current
def log(row, step):
    current.log(row, step)
def finish():
    current.finish()
"""


@pytest.fixture(params=["wandb", "trackio"])
def stand_in(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Its name, and where it leaves what it was told."""
    said = tmp_path / "told.json"
    (tmp_path / f"{request.param}.py").write_text(STAND_IN.replace("FILE", repr(str(said))))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    return request.param, said


def test_the_extras_live_and_afterwards(undisturbed: Path, tmp_path: Path, stand_in: tuple[str, Path]) -> None:
    kind, said = stand_in
    run = tmp_path / "named"
    shutil.copytree(undisturbed, run)
    lines: list[str] = []
    mirrors = tracking.Mirrors(Run(run), [kind], lines.append)
    mirrors.write({"step": 21, "loss": 0.5, "problems": ["a"], "kl": None, "time/step": 1.0})
    mirrors.close()
    assert lines == []
    head, *rows = json.loads(said.read_text())
    assert head["project"] == "openrs"
    assert head["name"] == "named-attempt1"
    assert head.get("mode") == ("offline" if kind == "wandb" else None)
    assert [step for step, _ in rows] == list(range(1, 22))
    assert [name for name in rows[-1][1] if name != "_timestamp"] == ["loss", "time/step"]

    assert main(["track", str(run), "--to", kind]) == 0
    head, *rows = json.loads(said.read_text())
    assert "mode" not in head
    assert len(rows) == 20


def test_one_that_breaks_when_it_is_rebuilt_says_so(undisturbed: Path, stand_in: tuple[str, Path]) -> None:
    kind, _ = stand_in
    import importlib

    importlib.import_module(kind).Told.finish = None
    with pytest.raises(RunFailure, match=f"the tracker {kind} broke") as raised:
        tracking.rebuild(Run(undisturbed), kind)
    assert raised.value.exit_code == 1


def test_one_that_is_not_installed_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    recipe = runs.recipe_in(tmp_path)
    assert main(["train", str(recipe), "--run", str(tmp_path / "run"), "--set", "training.trackers=[wandb]"]) == 2
    assert "the tracker wandb is not installed" in capsys.readouterr().err


def test_no_metrics_no_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(runs.recipe_in(tmp_path), tmp_path / "recipe.yaml")
    (tmp_path / "manifest.json").write_text('{"attempts": [{"started": "2026-11-21T08:00:00Z"}]}')
    assert main(["track", str(tmp_path), "--to", "tensorboard"]) == 2
    assert "has no metrics yet" in capsys.readouterr().err


def test_what_a_training_writes_follows_its_schemas(undisturbed: Path) -> None:
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert [fault for row in rows for fault in faults_in("metrics", row)] == []
    assert faults_in("manifest", json.loads((undisturbed / "manifest.json").read_text())) == []
