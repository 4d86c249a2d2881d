"""Whole evaluations of a real (tiny) model: killed at random and resumed, side by side, offline; what is refused."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from schemas import faults_in
from waiting import gone, until

import openrs
from openrs.cli.main import main
from openrs.errors import RunFailure, UserError
from openrs.evaluation import engine_pool
from openrs.evaluation.plan import Target
from openrs.evaluation.run import evaluate
from openrs.evaluation.sampling import EngineSettings
from openrs.rewards.grading import Judge
from openrs.run import signals
from openrs.run.files import read_jsonl
from openrs.run.progress import Progress


def run(target, settings, folder, shard=None, apart=False):
    with Judge(workers=1) as judge:
        return evaluate(target, settings, folder, Progress(), judge, shard=shard, apart=apart)


def rows(folder):
    """Samples in the order of their keys, so that two evaluations compare whatever was drawn first."""
    return sorted(
        (row for row in read_jsonl(folder / "samples.jsonl")), key=lambda r: (r["benchmark"], r["problem"], r["sample"])
    )


def exact(scores):
    """Everything in scores.json that does not tell the time."""
    return {key: value for key, value in scores.items() if key not in ("seconds", "drawn", "finished")}


@pytest.fixture(scope="module")
def undisturbed(made_model, sums, tmp_path_factory):
    """Two benchmarks x 4 samples in one go: (settings, folder, scores)."""
    from openrs.config.schema import Evaluation

    settings = Evaluation(
        benchmarks=[str(sums / "sums.yaml")], data=str(sums), samples=4, temperature=0.7, top_p=0.95, max_tokens=16,
        batch_size=4, engine="transformers", processes=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("undisturbed")
    return settings, folder, run(Target("made", str(made_model), dtype="float32"), settings, folder)


def test_counts_are_exact_and_the_time_is_split(undisturbed):
    _, folder, scores = undisturbed
    samples = rows(folder)
    assert Counter((r["benchmark"], r["sample"]) for r in samples) == {
        (name, n): count for name, count in (("sums", 12), ("more", 5)) for n in range(4)
    }
    assert len({(r["benchmark"], r["problem"], r["sample"]) for r in samples}) == 68 == scores["drawn"]
    for name, count in (("sums", 12), ("more", 5)):
        score = scores["benchmarks"][name]
        mine = [r for r in samples if r["benchmark"] == name]
        assert (score["n"], score["k"], sum(score["verdicts"].values())) == (count, 4, 4 * count)
        assert score["accuracy"] == sum(r["verdict"] == "correct" for r in mine) / (4 * count)
        assert score["truncated"] == sum(r["finish"] == "length" for r in mine)
        assert score["mean_tokens"] == sum(r["tokens"] for r in mine) / (4 * count)
        assert all(len(line) == 4 for line in score["per_problem"].values())
    assert set(scores["seconds"]) == {"load", "generate", "score"}
    assert all(value > 0 for value in scores["seconds"].values())
    assert scores == json.loads((folder / "scores.json").read_text())
    assert scores["protocol"]["engine"] == "transformers"
    assert scores["inputs"]["unproven"] == ["sums", "more"]
    assert faults_in("scores", scores) == []


def test_killed_at_random_and_resumed_it_is_the_undisturbed_one(undisturbed, target, tmp_path):
    """SIGKILL to a forked child, at places drawn at random; twice the last line is torn by hand as well."""
    from evaluation_fixtures import forked

    settings, whole, scores = undisturbed
    folder = tmp_path / "killed"
    path = folder / "samples.jsonl"
    draw, killed = random.Random(3), 0
    for attempt in range(12):
        before = path.stat().st_size if path.exists() else 0
        more = draw.randrange(1, 2500)
        status = forked(
            lambda: run(target, settings, folder),
            lambda goal=before + more: path.exists() and path.stat().st_size >= goal,
        )
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        killed += os.WTERMSIG(status) == signal.SIGKILL
        if attempt in (1, 2):
            path.write_bytes(path.read_bytes()[:-7])
    assert killed >= 3
    assert exact(json.loads((folder / "scores.json").read_text())) == exact(scores)
    assert rows(folder) == rows(whole)
    lines = path.read_text().splitlines()
    assert len(lines) == 68
    assert exact(run(target, settings, folder)) == exact(scores)
    assert path.read_text().splitlines() == lines


def test_asked_to_stop_it_leaves_with_75_and_goes_on(undisturbed, target, tmp_path):
    from evaluation_fixtures import forked

    settings, whole, scores = undisturbed
    folder = tmp_path / "stopped"
    path = folder / "samples.jsonl"

    def work():
        with signals.install_handlers():
            run(target, settings, folder)

    status = forked(work, lambda: path.exists() and path.stat().st_size > 500, signal.SIGTERM)
    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 75
    assert 0 < len(rows(folder)) < 68
    assert exact(run(target, settings, folder)) == exact(scores)
    assert rows(folder) == rows(whole)


def test_an_engine_apart_gives_what_one_here_gives(undisturbed, target, tmp_path):
    """As `openrs evaluate MODEL` has it: the engine imports in a process of its own while this one plans."""
    settings, whole, scores = undisturbed
    found = run(target, settings, tmp_path / "apart", apart=True)
    assert rows(tmp_path / "apart") == rows(whole)
    assert exact(found) == exact(scores)
    assert (tmp_path / "apart" / "engine-0.log").is_file()
    again = run(target, settings, tmp_path / "apart", apart=True)
    assert exact(again) == exact(scores)


def engines_of(parent):
    """Processes of engines that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", "engine_process"], capture_output=True, check=False)
    return found.stdout.split()


def test_what_is_refused_leaves_no_engine_and_no_folder(target, settings, tmp_path):
    with pytest.raises(UserError, match="max_model_len is 5"):
        run(target, settings(max_model_len=5), tmp_path / "refused", apart=True)
    assert not (tmp_path / "refused").exists()
    assert not engines_of(os.getpid())


def test_an_engine_that_lacks_its_library_says_so(target, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_pool, "subprocess", subprocess)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="the package torch is not installed"):
        run(target, settings(), tmp_path / "bare", apart=True)


def test_two_engines_side_by_side_give_the_same(undisturbed, target, tmp_path):
    """Two real processes take work from one queue; which one draws what changes nothing."""
    settings, whole, scores = undisturbed
    found = run(target, settings.model_copy(update={"processes": 2}), tmp_path / "two")
    assert rows(tmp_path / "two") == rows(whole)
    assert exact(found) == exact(scores)
    assert sorted(p.name for p in (tmp_path / "two").glob("engine-*.log")) == ["engine-0.log", "engine-1.log"]
    assert all(value >= 0 for value in found["seconds"].values())


def test_an_engine_that_dies_is_said_with_its_last_words(target, settings, tmp_path, monkeypatch):
    """One of two engines is killed from outside; what was finished stays, and the next attempt draws the rest."""
    usual = engine_pool.EngineProcess.hear
    run(target, settings(samples=1), tmp_path / "died")

    def hear(self):
        message = usual(self)
        if "samples" in message and self.name == "engine 1" and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return message

    monkeypatch.setattr(engine_pool.EngineProcess, "hear", hear)
    asked = settings(processes=2, samples=4)
    with pytest.raises(
        RunFailure, match=r"engine 1 ended with status -9(.|\n)*generates only what is missing(.|\n)*engine-1.log"
    ):
        run(target, asked, tmp_path / "died")
    monkeypatch.undo()
    there = len(rows(tmp_path / "died"))
    assert 17 <= there < 68
    found = run(target, asked.model_copy(update={"processes": 1}), tmp_path / "died")
    assert found["drawn"] == 68 - there


def test_a_folder_grows_by_samples_and_benchmarks_and_nothing_is_drawn_twice(
    target, sums, stand_in, settings, tmp_path
):
    folder = tmp_path / "eval"
    first = run(target, settings(samples=2), folder)
    assert first["drawn"] == 34
    before = (folder / "samples.jsonl").read_text()
    more = run(target, settings(samples=3), folder)
    assert more["drawn"] == 17
    assert (folder / "samples.jsonl").read_text().startswith(before)
    assert {name: s["k"] for name, s in more["benchmarks"].items()} == {"sums": 3, "more": 3}
    again = run(target, settings(samples=2), folder)
    assert again["drawn"] == 0
    assert again["benchmarks"] == first["benchmarks"]
    text = (sums / "sums.yaml").read_text()
    (tmp_path / "more.yaml").write_text(text[text.index("more:") :])
    only = run(target, settings(samples=4, benchmarks=[str(tmp_path / "more.yaml")]), folder)
    assert only["drawn"] == 5
    assert {name: s["k"] for name, s in only["benchmarks"].items()} == {"sums": 2, "more": 4}
    assert only == json.loads((folder / "scores.json").read_text())
    assert len(list(folder.glob("results_*.json"))) == 4


def test_a_folder_holds_one_model_under_one_sampling(target, made_model, stand_in, settings, sums, tmp_path):
    folder = tmp_path / "eval"
    run(target, settings(), folder)
    for changes, said in (
        ({"temperature": 0.5}, "temperature 0.7 instead of 0.5"),
        ({"seed": 7}, "seed 1234 instead of 7"),
        ({"max_tokens": 9}, "max_tokens 16 instead of 9"),
        ({"double_bos": True}, None),  # this tokenizer adds no BOS of its own: nothing changes
        ({"batch_size": 7}, None),
    ):
        if said is None:
            run(target, settings(**changes), folder)
            continue
        with pytest.raises(UserError, match=said):
            run(target, settings(**changes), folder)
    other = shutil.copytree(made_model, tmp_path / "model")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"another model \(sha256\)"):
        run(Target("made", str(other), dtype="float32"), settings(), folder)
    data = shutil.copytree(sums, tmp_path / "data")
    (data / "sums.jsonl").write_text((data / "sums.jsonl").read_text().replace('"30"', '"31"'))
    with pytest.raises(UserError, match="other sums problems"):
        run(target, settings(data=str(data)), folder)
    (folder / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json:1: not JSON"):
        run(target, settings(), folder)


def test_a_hostile_completion_costs_its_own_time_only(target, stand_in, settings, tmp_path, monkeypatch):
    """A completion that no judge can read in time counts as wrong, by name, and holds up nothing."""
    from evaluation_fixtures import StandIn

    class Hostile(StandIn):
        def generate(self, take, on_tokens):
            for samples in super().generate(take, on_tokens):
                yield [
                    replace(one, text=r"\boxed{9^{9^{9^{9}}}}") if one.key == ("sums", "sums/3", 0) else one
                    for one in samples
                ]

    monkeypatch.setattr("openrs.evaluation.run.load", Hostile)
    with Judge(workers=1, timeout=0.5) as judge:
        scores = evaluate(target, settings(samples=1), tmp_path / "eval", Progress(), judge)
    row = next(r for r in rows(tmp_path / "eval") if r["problem"] == "sums/3")
    assert row["verdict"] in ("timeout", "crash")
    assert scores["benchmarks"]["sums"]["per_problem"]["sums/3"] == [0]
    assert sum(scores["benchmarks"]["sums"]["verdicts"].values()) == 12


@pytest.mark.usefixtures("stand_in")
def test_a_full_disk_is_said_and_what_was_written_counts(made_model, sums, tmp_path, monkeypatch, capsys):
    """The disk is a stand-in: the journal's sixth line finds no room."""
    from openrs.run.files import Journal

    monkeypatch.chdir(tmp_path)
    usual, written = Journal.append, []

    def full(self, row):
        if len(written) == 5:
            raise OSError(28, "No space left on device", str(self.path))
        written.append(row)
        usual(self, row)

    monkeypatch.setattr(Journal, "append", full)
    words = ["evaluate", str(made_model), "--benchmarks", str(sums / "sums.yaml"), "--data", str(sums)]
    assert main([*words, "--max-tokens", "8"]) == 1
    err = capsys.readouterr().err
    assert "the disk of runs/evaluations/eval/model is full" in err
    assert "Traceback" not in err
    monkeypatch.setattr(Journal, "append", usual)
    assert main([*words, "--max-tokens", "8"]) == 0
    assert "12 samples generated" in capsys.readouterr().out


# --- one clear line, exit 2 -------------------------------------------------------------------------------------------


@pytest.fixture
def refused(made_model, sums, tmp_path, monkeypatch, capsys):
    """Evaluate by command, with a copy of the model and of the data that a test may spoil; returns what is said."""
    monkeypatch.chdir(tmp_path)
    model, data = shutil.copytree(made_model, tmp_path / "model"), shutil.copytree(sums, tmp_path / "data")

    def one(*words, spoil=lambda model, data: None):
        spoil(model, data)
        usual = ["--benchmarks", "data/sums.yaml", "--data", "data", "--dtype", "float32", "--max-tokens", "8"]
        assert main(["evaluate", "model", *usual, *words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("openrs evaluate: ")
        assert "Traceback" not in err
        assert not Path("runs/evaluations/eval/model/scores.json").exists()
        return err

    return one


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m, d: rewrite_template(m), "has no chat template"),
        (lambda m, d: rewrite(d / "sums.jsonl", '"answer"', '"gold"'), "row 1: there is no column answer"),
        (lambda m, d: (d / "more.jsonl").write_text(""), "0 rows, more has 5"),
        (lambda m, d: (d / "more.jsonl").unlink(), "has no more.jsonl"),
        (lambda m, d: (m / "model.safetensors").unlink(), "has no weights as safetensors"),
        (lambda m, d: (m / "model.safetensors").write_bytes(b"half"), "cannot be loaded"),
        (lambda m, d: (m / "config.json").write_text("{"), "config.json:1: not JSON"),
        (lambda m, d: (m / "config.json").unlink(), "it has no config.json"),
        (lambda m, d: (m / "tokenizer.json").write_text("{"), "is not a tokenizer"),
    ],
)
def test_models_and_data_that_cannot_be_used(refused, spoil, said):
    assert said in refused(spoil=spoil)


def rewrite_template(model):
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-model-len", "5"), "max_model_len is 5"),
        (("--temperature", "0", "--samples", "4"), "4 samples at temperature 0 are 4 copies of one"),
        (("--samples", "0"), "--samples"),
        (("--shard", "3/2"), "there is no shard 3/2"),
        (("--benchmarks", "aime42"), "there is no benchmark aime42"),
        (("--engine", "vllm"), "vllm is not installed"),
    ],
)
def test_settings_that_cannot_be(refused, words, said, monkeypatch):
    if "vllm" in words:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert said in refused(*words)


@pytest.mark.slow
def test_changed_questions_are_refused_and_changed_answers_said(
    papers_tokenizer, shared_data, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(shared_data / "benchmarks", tmp_path / "data", copy_function=shutil.copyfile)
    words = ["evaluate", str(papers_tokenizer), "--benchmarks", "aime24", "--data", str(data), "--max-tokens", "8"]
    lines = (data / "aime24.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    changed = json.dumps(first | {"problem": first["problem"].replace("9", "8", 1)})
    (data / "aime24.jsonl").write_text("\n".join([changed, *lines[1:]]) + "\n")
    assert main(words) == 2
    assert f"aime24/{first['id']} (row 1): question" in capsys.readouterr().err
    answer = json.dumps(first | {"answer": "205"})
    (data / "aime24.jsonl").write_text("\n".join([answer, *lines[1:]]) + "\n")
    from openrs.config.schema import Evaluation
    from openrs.evaluation.plan import prepare
    from openrs.evaluation.targets import print_scores

    plan = prepare(Target("m", str(papers_tokenizer)), Evaluation(benchmarks=["aime24"], data=str(data), max_tokens=8))
    assert not plan.inputs.proven
    print_scores(Progress(), "m", {"benchmarks": {}, "inputs": plan.record["inputs"]}, tmp_path)
    assert "1 answers are not the recorded ones, e.g. of aime24/" in capsys.readouterr().out


def test_packages_that_are_not_installed_are_named_with_their_extra(monkeypatch, capsys):
    for package, extra in (("torch", "train"), ("tokenizers", "train"), ("vllm", "cuda"), ("kubernetes", "cluster")):
        error = ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.deep.inside")

        def inputs(*_, error=error):
            raise error

        monkeypatch.setattr("openrs.cli.evaluate.inputs", inputs)
        assert main(["inputs"]) == 2
        err = capsys.readouterr().err
        assert f"the package {package} is not installed" in err
        assert f"pip install 'openrs[{extra}]'" in err

    def inputs(_):
        __import__("nothing_of_ours")

    monkeypatch.setattr("openrs.cli.evaluate.inputs", inputs)
    with pytest.raises(ModuleNotFoundError):
        main(["inputs"])


# --- by command, as a person does it ----------------------------------------------------------------------------------

OFFLINE = """\
import socket
def refuse(*args, **kwargs):
    raise SystemExit("THE NETWORK WAS ASKED FOR")
socket.getaddrinfo = socket.create_connection = refuse
connect = socket.socket.connect
def only_local(self, address):
    return connect(self, address) if self.family == socket.AF_UNIX else refuse()
socket.socket.connect = only_local

import pathlib, sys
class Imports:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "sklearn", "scipy.stats", "lighteval.logging", "datasets", "sympy"):
            program = next(part for part in sys.orig_argv[1:] if part not in ("-P", "-m"))
            with pathlib.Path(__file__).with_name("imported").open("a") as file:
                file.write(f"{pathlib.Path(program).name} {name}\\n")
sys.meta_path.insert(0, Imports)
"""


def test_by_command_without_any_network(made_model, sums, tmp_path):
    """A real process in which every look-up and every connection ends the program: at import, at load, in the run. And
    of the libraries that take seconds each process imports its own only, which is what a small evaluation costs."""
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    places = f"{tmp_path}:{Path(openrs.__file__).parents[1]}"
    environment |= {"PYTHONPATH": places, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
    words = [
        "evaluate",
        str(made_model),
        "--benchmarks",
        str(sums / "sums.yaml"),
        "--data",
        str(sums),
        "--samples",
        "2",
    ]
    words += ["--max-tokens", "12", "--dtype", "float32", "--temperature", "0.7"]
    done = subprocess.run(
        [sys.executable, "-m", "openrs.cli", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NETWORK" not in done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("protocol custom: 2 samples a problem, temperature 0.7, top-p 0.95, at most 12 tokens")
    assert "model, sums: " in done.stdout
    assert "(avg@2, 12 problems, 95 % interval " in done.stdout
    folder = tmp_path / "runs" / "evaluations" / "eval" / "model"
    assert said[-1] == "samples and scores: runs/evaluations/eval/model"
    assert len(rows(folder)) == 34
    assert done.stderr == ""
    heavy = set((tmp_path / "imported").read_text().splitlines())
    assert heavy == {
        "openrs.evaluation.engine_process torch",
        "openrs.evaluation.engine_process sympy",
        "worker.py sympy",
    }
    guarded = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    done = subprocess.run(guarded, env=environment, capture_output=True, text=True, check=False)
    assert "THE NETWORK WAS ASKED FOR" in done.stderr  # the guard works


def test_an_engine_process_ends_with_its_parent(made_model, tmp_path):
    """Its parent is killed: the engine is gone at once, in mid-generation or idle."""
    settings = EngineSettings("transformers", str(made_model), "float32", 0.7, 0.95, 64, 0.9, False)
    program = f"""
import time
from pathlib import Path
from openrs.evaluation.engine_pool import EnginePool
from openrs.evaluation.engines import EngineLayout
from openrs.evaluation.sampling import EngineSettings
pool = EnginePool(EngineLayout("transformers", (None,)))
pool.load(EngineSettings(**{asdict(settings)!r}), 2, Path({str(tmp_path)!r}))
print(pool._engines[0]._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        engine = int(parent.stdout.readline())
        parent.kill()
    until(lambda: gone(engine))
