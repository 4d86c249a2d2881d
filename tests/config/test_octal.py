"""A whole number with a zero in front is octal in YAML: refused in files and in --set; everything else stays."""

import re
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.config.load import load, to_yaml
from openrs.errors import UserError
from openrs.run.attempt import changed_settings
from openrs.run.directory import Run
from openrs.training.launch import runs


@pytest.mark.parametrize("number", ["010", "-07", "00", "0_17"])
def test_octal_numbers_are_refused(number: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: demo\ngrpo:\n  max_steps: {number}\n")
    with pytest.raises(UserError, match=rf"mine.yaml:3: {number} would be octal"):
        load(str(file))
    with pytest.raises(UserError, match=rf"--set grpo.max_steps: {number} would be octal"):
        load("demo", [f"grpo.max_steps={number}"])
    file.write_text(f"extends: demo\ngrpo: {{generation_kwargs: {{stop_strings: [{number}]}}}}\n")
    with pytest.raises(UserError, match=f"mine.yaml:2: {number} would be octal"):
        load(str(file))


def test_an_octal_number_that_python_would_not_print_is_refused_as_well(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo\ngrpo:\n  max_steps: 0" + 9000 * "7")
    with pytest.raises(UserError, match=r"mine.yaml:3: a whole number of more than 63 bits"):
        load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("number", ["10", "0", "0.5", "0x10", "1e1"])
def test_other_numbers_stay(number: str) -> None:
    assert load("demo", [f"grpo.weight_decay={number}"]).grpo["weight_decay"] == float(eval(number))
    assert load("demo", ["title='010'"]).title == "010"


@pytest.mark.slow
def test_a_warm_up_beyond_the_last_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\ngrpo:\n  max_steps: 19\n  warmup_steps: 20\n")
    assert main(["train", str(file), "--dry-run"]) == 2
    refused = "mine.yaml:4: grpo.warmup_steps = 20 is longer than the training of grpo.max_steps = 19"
    assert refused in capsys.readouterr().err
    file.write_text("extends: demo\ngrpo:\n  max_steps: 20\n  warmup_steps: 20\n")
    assert main(["train", str(file), "--dry-run"]) == 0
    assert main(["train", "exp3", "--dry-run", "--until", "10"]) == 0  # a trial, as the message says


def test_a_run_that_was_begun_with_such_a_warm_up_is_still_read_and_resumed(
    tmp_path: Path,
) -> None:
    changes = ["grpo.max_steps=5", "grpo.warmup_steps=20"]
    run = Run(tmp_path / "run")
    run.path.mkdir()
    whole = to_yaml(load("demo"))
    for key, _, value in (change.removeprefix("grpo.").partition("=") for change in changes):
        whole = re.sub(rf"(?m)^  {key}: .*", f"  {key}: {value}", whole)
    run.recipe.write_text(whole)
    with pytest.raises(UserError, match="never reach"):
        runs("demo", changes, str(run.path))
    run.metrics.write_text("{}\n")
    ((recipe, _),) = runs("demo", changes, str(run.path))
    assert changed_settings(recipe, run) == ([], [])
