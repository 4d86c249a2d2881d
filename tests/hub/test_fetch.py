"""Fetch against a stand-in of the hub with faults: what arrives is whole and checked, or it is said why not."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo
from waiting import until

from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, Interrupted, UserError
from openrs.hub import cache as caches
from openrs.hub import download as hubs
from openrs.hub.cache import problems, snapshot
from openrs.hub.download import Hub
from openrs.hub.fetch import fetch, fetch_all, listing
from openrs.hub.pins import Reference, reference, references, target
from openrs.run.units import format_bytes

pytestmark = pytest.mark.slow

MODEL, DATA = "a" * 40, "b" * 40
WEIGHTS = random.Random(0).randbytes(200_000)
CONFIG = json.dumps({
    "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 512,
}).encode()  # fmt: skip


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    model = Repo(
        {
            "model.safetensors": WEIGHTS, "config.json": CONFIG, "tokenizer.json": b"{}",
            "pytorch_model.bin": b"x" * 99, ".gitattributes": b"*", "onnx/model.onnx": b"y" * 99,
        },
        ["0" * 40, MODEL], large=("model.safetensors", "pytorch_model.bin"),
    )  # fmt: skip
    rows = b'{"problem": "1+1?", "answer": "2"}\n{"problem": "2+2?", "answer": "4"}\n'
    data = Repo({"train.jsonl": rows, "README.md": b"# rows\n"}, [DATA])
    with FakeHub({"models/some/model": model, "datasets/some/rows": data}) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, at the first import of this process


def refs() -> list[Reference]:
    return [reference("model", "some/model", "model", MODEL), reference("dataset", "some/rows", "training data", DATA)]


def client(hub: FakeHub, cache: Path, said: list[str] | None = None, tries: int = 4) -> Hub:
    return Hub(cache, hub.url, (0.01,) * tries, (said if said is not None else []).append)


def test_all_of_it_arrives_and_is_locked(hub: FakeHub, tmp_path: Path) -> None:
    fetch(refs(), client(hub, tmp_path))
    model, data = refs()
    folder = snapshot(model, tmp_path)
    assert folder is not None
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (snapshot(data, tmp_path) / "train.jsonl").is_file()  # type: ignore[operator]
    assert problems(model, tmp_path) == problems(data, tmp_path) == []
    lock = json.loads((tmp_path / caches.LOCK).read_text())
    assert lock["files"][f"models/some/model@{MODEL}"]["files"]["model.safetensors"]["bytes"] == 200_000


def test_again_asks_nothing_of_the_network(hub: FakeHub, tmp_path: Path) -> None:
    fetch(refs(), client(hub, tmp_path))
    hub.asked.clear()
    said: list[str] = []
    fetch(refs(), client(hub, tmp_path, said))
    assert hub.asked == []
    assert sum("every file equal to its SHA-256" in line for line in said) == 2


def test_quick_trusts_what_was_checked_when_it_came(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    fetch(refs(), client(hub, tmp_path))
    hub.asked.clear()
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(caches, "sha256", None)  # hashing would fail
        fetch_all(refs(), said.append, quick=True)
    assert (hub.asked, len(said), "checked when it was fetched" in said[0]) == ([], 1, True)
    folder = snapshot(refs()[0], tmp_path)
    assert folder is not None
    (folder / "config.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        fetch_all(refs(), said.append, quick=True)


def test_transformers_and_datasets_find_it_offline(hub: FakeHub, tmp_path: Path) -> None:
    fetch(refs(), client(hub, tmp_path))
    code = (
        "import datasets, transformers; from openrs.hub.cache import fetched; "
        f"print(transformers.AutoConfig.from_pretrained('some/model', revision='{MODEL}').hidden_size); "
        f"print(datasets.load_dataset(str(fetched('dataset', 'some/rows', '{DATA}')), split='train')[1]['answer'])"
    )
    here = {
        **os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["64", "4"], done.stderr
    assert caches.fetched("dataset", "some/rows", "c" * 40, tmp_path) is None


@pytest.mark.parametrize("fault", ["429", "500", "503", "flip", "cut"])
def test_faults_that_pass_are_survived(hub: FakeHub, tmp_path: Path, fault: str) -> None:
    hub.faults["model.safetensors"] += [fault]
    hub.faults["config.json"] += [fault] if fault != "cut" else []
    hub.faults["api/models/some/model"] += [fault] if fault.isdigit() else []
    fetch(refs(), client(hub, tmp_path))
    assert problems(refs()[0], tmp_path) == []


def test_a_hub_that_hangs_is_left_and_asked_again(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults["model.safetensors"] += ["hang"]
    hub.faults["api/models/some/model"] += ["hang"]
    monkeypatch.setattr(hubs, "TIMEOUT", 0.3)
    fetch(refs(), client(hub, tmp_path))
    assert problems(refs()[0], tmp_path) == []


def test_a_large_file_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    """As after SIGKILL: a part of the file lies there, and a new process takes only the rest."""
    model = refs()[0]
    client_here = client(hub, tmp_path)
    remote = next(r for r in client_here.files(model, MODEL) if r.name == "model.safetensors")
    part = hubs.part_of(model, remote, tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:150_000])
    fetch([model], client_here)
    assert hub.gets("model.safetensors") == ["bytes=150000-"]
    assert (snapshot(model, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS  # type: ignore[operator]


def test_a_damaged_part_is_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    model = refs()[0]
    client_here = client(hub, tmp_path)
    remote = next(r for r in client_here.files(model, MODEL) if r.name == "model.safetensors")
    part = hubs.part_of(model, remote, tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * 150_000)
    fetch([model], client_here)
    assert hub.gets("model.safetensors") == ["bytes=150000-", None]
    assert problems(model, tmp_path) == []


def test_a_file_that_stays_wrong_is_refused_and_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["config.json"] += ["flip"] * 9
    with pytest.raises(UserError, match=r"config.json is not what is pinned"):
        fetch(refs()[:1], client(hub, tmp_path))
    assert problems(refs()[0], tmp_path) != []


def test_a_pinned_hash_decides(hub: FakeHub, tmp_path: Path) -> None:
    model = refs()[0]
    pinned = Reference(model.kind, model.repo, MODEL, "model", files=model.files, sha256={"config.json": "0" * 64})
    with pytest.raises(UserError, match="wanted is 0000"):
        fetch([pinned], client(hub, tmp_path))


def test_a_bit_flipped_in_the_cache_is_found_and_mended(hub: FakeHub, tmp_path: Path) -> None:
    fetch(refs(), client(hub, tmp_path))
    model = refs()[0]
    blob = (snapshot(model, tmp_path) / "model.safetensors").resolve()  # type: ignore[operator]
    blob.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    assert problems(model, tmp_path, hashes=False) == []
    assert problems(model, tmp_path) == ["model.safetensors differs from its SHA-256"]
    fetch(refs(), client(hub, tmp_path))
    assert problems(model, tmp_path) == []
    assert hub.gets("model.safetensors") == [None, None]


def test_a_commit_whose_files_changed_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    """The lock says what the commit held at first; the hub now says otherwise."""
    data = refs()[1]
    fetch([data], client(hub, tmp_path))
    (snapshot(data, tmp_path) / "train.jsonl").unlink()  # type: ignore[operator]
    hub.repos["datasets/some/rows"].files["train.jsonl"] = b'{"problem": "evil"}\n'
    with pytest.raises(UserError, match=r"train.jsonl changed since it was first fetched"):
        fetch([data], client(hub, tmp_path))


def test_the_first_fetch_locks_the_commit(hub: FakeHub, tmp_path: Path) -> None:
    """For a pin whose commit nobody knows, and for one of which only the beginning is known."""
    first = Reference("dataset", "some/rows", "main", "benchmark amc23")
    begins = Reference("model", "some/model", "a" * 7, "model", files=refs()[0].files)
    fetch([first, begins], client(hub, tmp_path))
    assert caches.locked_commit(first, tmp_path) == DATA
    assert caches.locked_commit(begins, tmp_path) == MODEL
    hub.repos["datasets/some/rows"].commits.append("c" * 40)  # the repository goes on; the cache does not follow
    fetch([first], client(hub, tmp_path))
    assert caches.locked_commit(first, tmp_path) == DATA
    assert (caches.repository(first, tmp_path) / "refs/main").read_text() == DATA
    free = Reference("dataset", "some/rows", "main", "training data", unpinned=True)
    fetch([free], client(hub, tmp_path))
    assert caches.locked_commit(free, tmp_path) == "c" * 40


def test_a_baseline_whose_commit_nobody_knows_is_locked_at_its_first_fetch(hub: FakeHub, tmp_path: Path) -> None:
    """Also `openrs fetch paper` and `openrs evaluate paper:still-3` keep to what came first."""
    (ref,) = target("paper:still-3") or ()
    hub.repos[f"models/{ref.repo}"] = hub.repos["models/some/model"]
    fetch([ref], client(hub, tmp_path))
    assert caches.locked_commit(ref, tmp_path) == MODEL
    hub.repos[f"models/{ref.repo}"].commits.append("d" * 40)
    fetch([ref], client(hub, tmp_path))
    assert caches.locked_commit(ref, tmp_path) == MODEL


def test_a_beginning_that_no_commit_has(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no commits that begin with 1234567"):
        fetch([Reference("dataset", "some/rows", "1234567", "benchmark minerva")], client(hub, tmp_path))


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        (Reference("model", "some/other", MODEL, "model"), "model some/other is not on the hub, or not for everybody"),
        (Reference("model", "some/model", "d" * 40, "model"), "has no commit ddd"),
        (Reference("dataset", "some/gated", "e" * 40, "benchmark gpqa"), "is gated"),
        (Reference("model", "some/model", MODEL, "model", files=("*.gguf",)), "has nothing to fetch"),
    ],
)
def test_what_will_not_pass_is_refused_at_once(hub: FakeHub, tmp_path: Path, ref: Reference, said: str) -> None:
    hub.repos["datasets/some/gated"] = Repo({"a.csv": b"1"}, ["e" * 40], gated=True)
    said_lines: list[str] = []
    with pytest.raises(UserError, match=said):
        fetch([ref], client(hub, tmp_path, said_lines))
    assert not any("trying again" in line for line in said_lines)


def test_a_hub_that_stays_away_is_an_interruption(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["model.safetensors"] += ["503"] * 99
    with pytest.raises(Interrupted, match="give the same command again"):
        fetch(refs(), client(hub, tmp_path, tries=2))
    hub.faults.clear()
    fetch(refs(), client(hub, tmp_path))
    assert problems(refs()[0], tmp_path) == []


def test_a_small_disk_is_refused_before_the_first_byte(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_100_000})())
    with pytest.raises(UserError, match=r"0.2 MiB are to be fetched, .* has 0.9 GiB free"):
        fetch(refs(), client(hub, tmp_path))
    assert hub.gets("model.safetensors") == []


def test_two_fetches_at_once_take_turns(hub: FakeHub, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def one() -> None:
        try:
            fetch(refs(), client(hub, tmp_path))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert hub.gets("model.safetensors") == [None]


def test_offline_only_checks(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="some/model: not fetched yet"):
        fetch(refs(), client(hub, tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch(refs(), client(hub, tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    said: list[str] = []
    fetch(refs(), client(hub, tmp_path, said))
    assert said == ["offline: everything is there, every file equal to its SHA-256"]
    assert hub.asked == []


def test_a_run_and_a_folder_are_needed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openrs.cli.plan import needed
    from openrs.config.load import load, to_yaml

    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text('{"attempts": []}')
    (run / "recipe.yaml").write_text(to_yaml(load("exp1")))
    assert needed("mine", []) == needed("runs/mine", []) == needed("exp1", []) == references(load("exp1"))
    (tmp_path / "models" / "own").mkdir(parents=True)
    assert needed("models/own", []) == []
    assert [ref.repo for ref in needed("paper:open-rs3", [])] == ["knoveleng/Open-RS3"]
    (tmp_path / "runs" / "exp3").mkdir()  # what stands in runs/ does not take a recipe's name away
    assert needed("exp3", []) == references(load("exp3"))
    with pytest.raises(UserError, match="exp9"):
        needed("exp9", [])


def test_list_needs_no_network(tmp_path: Path) -> None:
    from openrs.config.load import load

    text = listing(references(load(str(Path(__file__).parents[1] / "exp3_sketch.yaml"))), tmp_path)
    assert "DeepSeek-R1-Distill-Qwen-1.5B @ ad9f0ae: size unknown; not fetched yet" in text
    assert "knoveleng/AMC-23 @ the newest, then locked: size unknown" in text
    assert len(text.splitlines()) == 7 + 1


def test_list_after_a_fetch_is_exact(hub: FakeHub, tmp_path: Path) -> None:
    fetch(refs(), client(hub, tmp_path))
    row = listing(refs(), tmp_path).splitlines()[0]
    assert row.endswith(f"some/model @ aaaaaaa: {format_bytes(200_000 + len(CONFIG) + 2)}; fetched")


@pytest.mark.parametrize("text", ["{", "[]", '{"first": {}}'])
def test_a_broken_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / caches.LOCK).write_text(text)
    with pytest.raises(UserError, match=r"openrs-lock.json"):
        listing(refs(), tmp_path)


RECIPE = f"""
title: fetch me
model: {{name: some/model, revision: {MODEL}}}
data: {{source: some/rows, revision: {DATA}}}
rewards: {{mode: corrected, functions: [{{name: format}}]}}
grpo: {{max_steps: 1, per_device_train_batch_size: 2, gradient_accumulation_steps: 1, num_generations: 2}}
"""


def openrs(hub: FakeHub, tmp_path: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    here = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **settings}
    command = [sys.executable, "-m", "openrs.cli", "fetch", *words]
    return subprocess.run(command, env=here, capture_output=True, text=True, check=False)


def test_the_command(hub: FakeHub, tmp_path: Path) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    token = "hf_" + "s" * 30
    done = openrs(hub, tmp_path, recipe, "--workers", "2", HF_TOKEN=token)
    assert done.returncode == EXIT_DONE, done.stderr
    assert "some/model @ aaaaaaa: whole and checked" in done.stdout
    assert "HF_HUB_OFFLINE=1" in done.stdout
    assert token not in done.stdout + done.stderr
    assert "fetched" in openrs(hub, tmp_path, recipe, "--list").stdout
    refused = openrs(hub, tmp_path, recipe, "--set", "model.revision=main")
    assert refused.returncode == EXIT_REFUSED
    assert "a branch or a tag can move" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_ctrl_c_leaves_at_once_and_the_next_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    import signal

    (tmp_path / "recipe.yaml").write_text(RECIPE)
    hub.faults["model.safetensors"] += ["hang"]
    here = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "openrs.cli", "fetch", str(tmp_path / "recipe.yaml")]
    with subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: hub.gets("model.safetensors"))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in error
    assert openrs(hub, tmp_path, str(tmp_path / "recipe.yaml")).returncode == EXIT_DONE
