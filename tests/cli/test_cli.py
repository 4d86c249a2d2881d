"""The command line as a person meets it: exit codes, one message, no stack trace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from openrs import __version__
from openrs.cli.main import main

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def openrs(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "openrs.cli", *words], cwd=cwd, env=ENVIRONMENT)


def refused(*words: str, cwd: Path | None = None) -> str:
    """The message of a refusal: exit code 2, nothing but the message, nothing that looks like a trace."""
    done = openrs(*words, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"openrs {words[0]}: ")
    return done.stderr


def test_help_names_the_verbs() -> None:
    """In an interpreter of its own, as a person's shell starts it."""
    command = [sys.executable, "-m", "openrs.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0
    for verb in ("train", "evaluate", "report", "reproduce", "recipe", "inputs", "grade", "doctor", "plan"):
        assert f"    {verb}" in done.stdout


def test_a_bug_report_has_what_is_needed_and_no_secret(tmp_path: Path) -> None:
    attempt = tmp_path / "runs" / "mine" / "attempts" / "01"
    attempt.mkdir(parents=True)
    home, token = str(tmp_path / "anna"), "hf_" + "Ab9" * 11
    (attempt / "log").write_text(
        f"the first line\n{'x' * 9}\n" * 30 + f"{home}/model: 401 for {token}\n```\nthe last line\n"
    )
    environment = {
        **ENVIRONMENT,
        "HOME": home,
        "OPENRS_MIRROR": "https://anna:geheim1@host/x",
        "WANDB_API_KEY": "geheimer22",
    }
    command = [sys.executable, "-m", "openrs.cli", "doctor", "--quick", "--report", "--run", "mine"]
    done = forked.run(command, cwd=tmp_path, env={**environment, "OPENRS_NOTE": "geheimer22"})
    assert done.returncode == 0, done.stderr
    assert f"- openrs {__version__}, commit " in done.stdout
    assert f"- Python {sys.version.split()[0]}" in done.stdout
    assert "OPENRS_MIRROR=https://[hidden]@host/x" in done.stdout
    assert "~/model: 401 for [hidden]" in done.stdout
    assert "the last line" in done.stdout
    assert done.stdout.count("```") == 4
    for secret in (token, "geheim", home):
        assert secret not in done.stdout


@pytest.mark.slow
def test_recipe_verbs() -> None:
    assert "exp3" in openrs("recipe", "list").stdout
    shown = json.loads(openrs("recipe", "show", "exp3", "--json", "--set", "grpo.seed=7").stdout)
    assert shown["grpo"]["seed"] == 7
    assert "rewards.functions" in openrs("recipe", "diff", "exp2", "exp3").stdout


def test_unknown_recipe() -> None:
    assert "did you mean demo?" in refused("train", "dmeo")


def test_bad_data_is_refused_before_anything_loads(tmp_path: Path) -> None:
    message = refused("train", "demo", "--run", str(tmp_path / "run"), "--set", "data.source=none.jsonl")
    assert "there is no file none.jsonl" in message


def test_a_missing_column_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "gold": "2"}\n', encoding="utf-8")
    message = refused("train", "demo", "--run", str(tmp_path / "run"), "--set", f"data.source={tmp_path}/rows.jsonl")
    assert "has no column answer" in message
    assert "question, gold" in message


def test_a_model_folder_without_tokenizer(tmp_path: Path, made_model: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((made_model / name).read_bytes())
    message = refused("evaluate", str(folder), "--benchmarks", "demo", "--max-tokens", "8", cwd=tmp_path)
    assert "tokenizer" in message


def test_no_model_and_no_run(tmp_path: Path) -> None:
    assert "there is no model folder" in refused("evaluate", "./nothing", "--benchmarks", "demo", cwd=tmp_path)


def test_evaluation_settings_that_cannot_be(tmp_path: Path, made_model: Path) -> None:
    words = ("evaluate", str(made_model), "--benchmarks", "demo")
    assert "--samples: samples = 0" in refused(*words, "--samples", "0", cwd=tmp_path)
    assert "there is no benchmark dmo" in refused("evaluate", str(made_model), "--benchmarks", "dmo", cwd=tmp_path)
    assert "max_model_len is 5" in refused(*words, "--max-model-len", "5", cwd=tmp_path)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 1 on here\n")
        held.flush()
        message = refused("train", "demo", "--run", str(tmp_path / "run"))
    assert "is in use by process 1 on here" in message


def test_experiments_need_gpus() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    message = refused("train", "exp3")
    assert "--dry-run" in message
    assert "demo" in message


@pytest.mark.parametrize("end", ["return 0", "raise RuntimeError('x\\x1b[31m')", "raise OSError(5, 'x')", "return 75"])
def test_no_end_of_the_program_searches_its_memory_for_garbage(end: str) -> None:
    """With torch loaded that takes two seconds of a processor: a run that a disk had ended lived on after its trace."""
    text = f"""
import atexit, gc
from openrs.cli import main as cli
def main(): {end}
cli.main = main
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0))
cli.program()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout == "frozen True\n", done.stderr
    assert done.returncode == {"return 0": 0, "return 75": 75}.get(end, 1)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "words",
    ["report", "export", "plan", "train", "evaluate", "evaluate --rejudge", "recipe show", "recipe diff demo", "grade",
     "fetch", "inputs --data", "data show", "curate", "track --to tensorboard"],
)  # fmt: skip
def test_no_verb_is_content_with_a_thing_that_is_not_there(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "./nothing-here"]) == 2
    assert "nothing-here" in capsys.readouterr().err


def test_a_full_stdout_ends_a_command_with_a_message() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "openrs.cli", "plan", "demo"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "the output cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
