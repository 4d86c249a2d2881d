"""manifest.json: everything that made a run what it is, nothing that is secret."""

import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest

from openrs import __version__
from openrs.config.load import load, load_resolved
from openrs.errors import UserError
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.run.files import sha256, write_json


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def test_what_is_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRS_IMAGE_DIGEST", "sha256:0123")
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    recipe = load("demo", ["grpo.seed=7"])
    assert manifest.begin(recipe, run, ["openrs", "train", "demo", "--token", "hf_abcdefghijk"]) == 1
    known = manifest.read(run)
    assert known["openrs"]["version"] == __version__
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    if head.returncode == 0:
        assert known["openrs"]["commit"] == head.stdout.strip()
    assert known["recipe"] == {"title": recipe.title, "sha256": recipe.hash}
    assert known["image"] == "sha256:0123"
    assert known["packages"]["torch"].startswith("2.")
    assert known["packages"]["trl"] == "1.16.0"
    assert len(known["packages"]) > 100
    assert known["packages"] == {one.name: one.version for one in reversed(list(distributions()))}
    assert known["seeds"] == {"training": 7, "evaluation": 1234}
    assert known["model"] == {"name": "toy", "revision": None}
    assert set(known["machine"]) == {"system", "cpu", "cores", "memory_gib", "gpus"}
    (attempt,) = known["attempts"]
    assert attempt["command"] == ["openrs", "train", "demo", "--token", "[hidden]"]
    assert attempt["environment"]["NCCL_P2P_DISABLE"] == "1"
    assert attempt["recipe"] == recipe.hash
    assert "ended" not in attempt
    assert load_resolved(run.recipe).hash == recipe.hash
    assert (run.path / "attempts" / "01").is_dir()


def test_libraries_are_torchs_own_words() -> None:
    import torch

    found = manifest.libraries()
    assert found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert (found["nccl"] is None) == (not torch.cuda.is_available())


def test_attempts_end_or_are_known_not_to_have(run: Run) -> None:
    recipe = load("demo")
    manifest.begin(recipe, run, ["first"])
    manifest.begin(recipe, run, ["second"])
    manifest.end(run, 75, "SIGTERM with hf_abcdefghijk")
    manifest.begin(recipe, run, ["third"])
    first, second, third = manifest.read(run)["attempts"]
    assert (first["exit_code"], first["ended"], first["reason"]) == (None, None, manifest.UNKNOWN_END)
    assert (second["exit_code"], second["reason"]) == (75, "SIGTERM with [hidden]")
    assert second["ended"] >= second["started"]
    assert "exit_code" not in third
    assert [path.name for path in run.attempts()] == ["01", "02", "03"]
    assert 0 <= manifest.started(run) - manifest.started(run, first=True) < 3600


def test_what_must_stay_the_same(run: Run) -> None:
    recipe = load("demo")
    manifest.begin(recipe, run, [])
    manifest.establish(run, resumed=False, data={"files": {"a.jsonl": "aa"}, "rows": 3})
    manifest.establish(run, resumed=False, data={"files": {"a.jsonl": "bb"}, "rows": 4})  # nothing was made of the old
    manifest.establish(run, resumed=True, data={"files": {"a.jsonl": "bb"}, "rows": 4})
    with pytest.raises(UserError) as raised:
        manifest.establish(run, resumed=True, data={"files": {"a.jsonl": "bb", "b.jsonl": "cc"}, "rows": 5})
    assert "    data.rows: 4 -> 5\n    data.files.b.jsonl: None -> cc" in str(raised.value)
    assert "or the version of openrs that read them so" in raised.value.fix  # files may be the same
    assert manifest.read(run)["data"]["rows"] == 4

    manifest.begin(recipe, run, [], accepted=[])
    manifest.establish(run, resumed=True, data={"files": {"b.jsonl": "cc"}, "rows": 5})
    assert [change["setting"] for change in manifest.read(run)["attempts"][-1]["accepted"]] == [
        "data.files.a.jsonl",
        "data.rows",
        "data.files.b.jsonl",
    ]


def test_where_the_code_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout with and without changes; a wheel, whose commit pip or the image knows."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    (tmp_path / "openrs" / "run").mkdir(parents=True)
    (tmp_path / "openrs" / "run" / "manifest.py").write_text("a = 1\n")
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "openrs" / "run" / "manifest.py"))
    monkeypatch.delenv("OPENRS_COMMIT", raising=False)
    monkeypatch.setattr(manifest, "_installed_commit", lambda: None)
    assert manifest.code_version() == {"version": __version__, "commit": None, "changed": None}
    monkeypatch.setattr(manifest, "_installed_commit", lambda: "feedbeef")
    assert manifest.code_version()["commit"] == "feedbeef"
    monkeypatch.setenv("OPENRS_COMMIT", "0123abc")
    assert manifest.code_version()["commit"] == "0123abc"

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    version = manifest.code_version()
    assert version["commit"] == git("rev-parse", "HEAD").strip()
    assert (version["changed"], version["changes_sha256"]) == (False, None)
    (tmp_path / "openrs" / "run" / "manifest.py").write_text("a = 2\n")
    first = manifest.code_version()
    (tmp_path / "openrs" / "run" / "manifest.py").write_text("a = 3\n")
    assert first["changed"] is manifest.code_version()["changed"] is True
    assert first["changes_sha256"] != manifest.code_version()["changes_sha256"]


def test_a_run_with_nothing_in_it_may_still_change_its_recipe(run: Run) -> None:
    manifest.begin(load("demo"), run, [])
    assert not manifest.has_results(run)
    run.metrics.write_text("")
    assert not manifest.has_results(run)
    run.metrics.write_text("{}\n")
    assert manifest.has_results(run)
    assert sha256(run.metrics) == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"


def test_a_broken_manifest_is_not_mistaken_for_an_empty_one(run: Run) -> None:
    manifest.begin(load("demo"), run, [])
    write_json(run.manifest, {"attempts": []})
    assert manifest.read(run) == {"attempts": []}
    run.manifest.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json:1: not JSON"):
        manifest.read(run)


def test_a_file_whose_name_is_hidden_in_the_manifest_is_the_same_file_on_resume(tmp_path: Path) -> None:
    run, files = Run(tmp_path), {"files": {"hf_evaluation.jsonl": "1" * 64}}
    manifest.begin(load("demo"), run, ["openrs"])
    manifest.establish(run, resumed=False, data=files)
    manifest.establish(run, resumed=True, data=files)
    with pytest.raises(UserError, match="something else"):
        manifest.establish(run, resumed=True, data={"files": {"hf_evaluation.jsonl": "2" * 64}})
