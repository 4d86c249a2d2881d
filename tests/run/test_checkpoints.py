"""A checkpoint is complete or absent, whatever happens to it."""

import errno
import hashlib
import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from openrs.config.load import load
from openrs.config.schema import Recipe
from openrs.errors import RunFailure
from openrs.planner.gpus import CPU
from openrs.planner.memory import disk
from openrs.planner.workload import workload_of
from openrs.run import checkpoints, retention

pytestmark = pytest.mark.slow

FILES = ["model.safetensors", "optimizer.pt", "trainer_state.json", "config.json", "global_step7/rank0.pt"]


def safetensors(data: bytes, size: int) -> bytes:
    """A safetensors file of one tensor, of `size` bytes together."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": tensor}).ljust(size - 8 - len(data)).encode()
    return len(header).to_bytes(8, "little") + header + data


def make(folder: Path, step: int) -> Path:
    """A complete checkpoint of small files."""
    staging = folder / checkpoints.STAGING / f"checkpoint-{step}"
    for name in FILES:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        content = random.Random(f"{step}{name}").randbytes(1000)
        (staging / name).write_bytes(safetensors(content[:800], 1000) if name.endswith(".safetensors") else content)
    return checkpoints.finish(staging, folder, step)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 10, 15):
        make(tmp_path, step)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != checkpoints.STAGING)


def test_a_finished_one_is_complete(folder: Path) -> None:
    newest, said = checkpoints.latest_resumable(folder)
    assert (newest, said) == (folder / "step-000015", [])
    manifest = json.loads((folder / "step-000015" / "checkpoint.json").read_text())
    assert manifest["step"] == 15
    assert sorted(manifest["files"]) == sorted(FILES)
    assert {facts["bytes"] for facts in manifest["files"].values()} == {1000}
    assert checkpoints.bytes_of(folder / "step-000015") == 5000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("flip", "differs from its SHA-256"),
        ("cut", "has 999 bytes instead of 1000"),
        ("remove", "is missing"),
        ("directory", "is missing"),
    ],
)
def test_any_damage_to_any_file_is_found_named_and_set_aside(folder: Path, name: str, harm: str, words: str) -> None:
    path = folder / "step-000015" / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[500] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
        if harm == "directory":
            path.mkdir()
    kept = sorted(p for p in (folder / "step-000015").rglob("*"))
    newest, said = checkpoints.latest_resumable(folder)
    assert newest == folder / "step-000010"
    assert said == [
        f"step-000015 is damaged ({name} {words}): renamed to step-000015.damaged, not loaded",
    ]
    assert names(folder) == ["step-000005", "step-000010", "step-000015.damaged"]
    assert len(list((folder / "step-000015.damaged").rglob("*"))) == len(kept)  # nothing of it is deleted
    assert checkpoints.latest_resumable(folder) == (newest, [])  # said once


def test_every_single_bit_of_the_manifest_counts(folder: Path) -> None:
    """A flipped bit either leaves a checkpoint that says the same, or one that is not loaded; never another one."""
    path = folder / "step-000015" / "checkpoint.json"
    sound, manifest = path.read_bytes(), checkpoints.read_manifest(folder / "step-000015")
    bits, found = range(0, 8 * len(sound), 7), 0
    for bit in bits:
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        if checkpoints.find_corruption(folder / "step-000015") is None:
            # without the word that they were looked at, the weights are looked at again
            assert checkpoints.read_manifest(folder / "step-000015") | {"finite": True} == manifest
        else:
            found += 1
    assert found > 0.8 * len(bits)  # the others fall into white space


@pytest.mark.parametrize("content", ["", "[]", "null", '{"step": 15}', '{"step": 15, "files": {}}', "\udcff", None])
def test_broken_manifests(folder: Path, content: str | None) -> None:
    path = folder / "step-000015" / "checkpoint.json"
    path.unlink()
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    newest, said = checkpoints.latest_resumable(folder)
    assert newest == folder / "step-000010"
    assert len(said) == 1
    assert "manifest" in said[0]


def test_a_checkpoint_under_another_ones_name_is_none(folder: Path) -> None:
    shutil.copytree(folder / "step-000005", folder / "step-000020")
    newest, said = checkpoints.latest_resumable(folder)
    assert newest == folder / "step-000015"
    assert "of another checkpoint" in said[0]


def test_all_damaged_means_from_the_beginning(folder: Path) -> None:
    for step in (5, 10, 15):
        (folder / f"step-{step:06d}" / "optimizer.pt").write_bytes(b"")
    newest, said = checkpoints.latest_resumable(folder)
    assert newest is None
    assert len(said) == 3


def test_what_a_kill_left_half_written_is_said_and_removed(folder: Path) -> None:
    half = folder / checkpoints.STAGING / "checkpoint-20"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    newest, said = checkpoints.latest_resumable(folder)
    assert newest == folder / "step-000015"
    assert said == ["checkpoint-20 was being written or deleted when the run was killed: removed"]
    assert not half.exists()


def test_what_people_leave_there_is_none_of_our_business(folder: Path) -> None:
    (folder / "step-backup").mkdir()
    (folder / "step-000015-copy").mkdir()
    (folder / "notes.txt").write_text("mine")
    assert checkpoints.latest_resumable(folder) == (folder / "step-000015", [])
    assert [path.name for path in checkpoints.list_complete(folder)] == ["step-000005", "step-000010", "step-000015"]
    assert {"step-backup", "step-000015-copy", "notes.txt"} <= set(names(folder))


def test_the_same_step_again_overwrites_nothing(folder: Path) -> None:
    before = (folder / "step-000015" / "optimizer.pt").read_bytes()
    make(folder, 15)
    assert (folder / "step-000015.replaced" / "optimizer.pt").read_bytes() == before
    assert checkpoints.find_corruption(folder / "step-000015") is None


# --- retention --------------------------------------------------------------------------------------------------------


def keeping(last: int, *training: str, evaluate: str = "last") -> Recipe:
    """A recipe that saves every 5 steps and keeps so much."""
    settings = ["grpo.save_steps=5", f"evaluation.checkpoints={evaluate}", f"training.keep_last={last}"]
    return load("demo", [*settings, *(f"training.{setting}" for setting in training)])


def test_retention(folder: Path) -> None:
    make(folder, 20)
    gone = checkpoints.prune(folder, keeping(1, "keep_every=10"))
    assert [path.name for path in gone] == ["step-000005", "step-000015"]
    assert names(folder) == ["step-000010", "step-000020"]
    assert list((folder / checkpoints.STAGING).iterdir()) == []


def test_what_is_not_evaluated_yet_stays(folder: Path) -> None:
    make(folder, 20)
    recipe = keeping(2, evaluate="all")
    assert checkpoints.prune(folder, recipe) == []
    checkpoints.prune(folder, recipe, scored=[10, 20])
    assert names(folder) == ["step-000005", "step-000015", "step-000020"]


def test_what_is_evaluated_does_not_depend_on_interruptions() -> None:
    steps = [5, 10, 12, 15, 17]
    assert retention.evaluated(keeping(1, evaluate="all"), steps) == [5, 10, 15, 17]
    assert retention.kept(keeping(1, evaluate="all"), steps).older == [5, 10, 15]
    assert retention.evaluated(keeping(1), steps) == [17]
    assert retention.evaluated(keeping(1), []) == []


@pytest.mark.parametrize("evaluate", ["last", "all"])
@pytest.mark.parametrize("every", [None, 5, 10])
@pytest.mark.parametrize("last", [1, 2, 7])
@pytest.mark.parametrize("thin", [False, True])
def test_the_plan_of_the_disk_counts_what_training_keeps(
    tmp_path: Path, evaluate: str, every: int | None, last: int, thin: bool
) -> None:
    """Every checkpoint of 33 steps is saved and pruned as training does it; the plan is what is left at the end."""
    words = [f"old_weights_only={thin}", f"keep_every={'null' if every is None else every}", "stop_after=33"]
    recipe = keeping(last, *words, evaluate=evaluate)
    for step in retention.saved(recipe):
        make(tmp_path, step)
        checkpoints.prune(tmp_path, recipe)
    left = checkpoints.list_complete(tmp_path)
    whole = sum(map(checkpoints.resumable, left))
    job = workload_of(recipe, CPU)
    planned, weights = disk(job), job.trained * job.element
    there = (whole + 1) * planned.checkpoint + (len(left) - whole) * weights  # and one that is being written
    assert planned.run - recipe.last_step * 64e3 == pytest.approx(there)


def test_the_last_complete_one_stays_although_newer_folders_are_there(folder: Path) -> None:
    """A damaged newer one does not count as one of the newest."""
    for step in (10, 15):
        (folder / f"step-{step:06d}" / "optimizer.pt").write_bytes(b"")
    assert checkpoints.prune(folder, keeping(1)) == []
    assert checkpoints.latest_resumable(folder)[0] == folder / "step-000005"


def test_old_ones_may_keep_their_weights_only(folder: Path) -> None:
    checkpoints.prune(folder, keeping(1, "keep_every=5", "old_weights_only=true"))
    assert sorted(p.name for p in (folder / "step-000005").rglob("*")) == [
        "checkpoint.json",
        "config.json",
        "model.safetensors",
    ]
    assert checkpoints.find_corruption(folder / "step-000005") is None
    assert len(list((folder / "step-000015").rglob("*"))) == 7  # five files, the manifest and a folder
    (folder / "step-000015" / "optimizer.pt").write_bytes(b"")
    newest, said = checkpoints.latest_resumable(folder)
    assert newest is None
    assert "has only its weights left" in said[1]
    assert "step-000005" in names(folder)


def test_thinning_that_was_killed_is_done_next_time(folder: Path) -> None:
    """The manifest goes first: what it does not list any more is nobody's business."""
    whole = folder / "step-000005" / "checkpoint.json"
    manifest = json.loads(whole.read_text())
    manifest["files"] = {n: f for n, f in manifest["files"].items() if n in ("model.safetensors", "config.json")}
    whole.write_text(json.dumps(manifest))
    assert checkpoints.find_corruption(folder / "step-000005") is None
    checkpoints.prune(folder, keeping(1, "keep_every=5", "old_weights_only=true"))
    assert not (folder / "step-000005" / "optimizer.pt").exists()


# --- weights that are NaN or Inf --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(5))
def test_every_weight_that_is_not_finite_is_found(tmp_path: Path, dtype: torch.dtype, seed: int) -> None:
    """As torch's own isfinite does, on random bits and on NaN, Inf, subnormals, zeros and the largest numbers."""
    rng = torch.Generator().manual_seed(seed)
    size = 50_000
    special = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).min]
    special += [torch.finfo(dtype).tiny, torch.finfo(dtype).smallest_normal / 4]
    bits = torch.randint(0, 256, (size, torch.finfo(dtype).bits // 8), generator=rng, dtype=torch.uint8)
    values = bits.view(dtype).flatten().clone()
    chosen = torch.randperm(size, generator=rng)[: size // 2]
    values[chosen] = torch.tensor(special, dtype=dtype)[torch.randint(0, len(special), (len(chosen),), generator=rng)]
    sound = torch.nan_to_num(values, nan=1.0, posinf=2.0, neginf=3.0)
    one = sound.clone()
    one[-1] = math.nan
    tensors = {"b": values.reshape(100, -1), "a": sound, "empty": sound[:0], "last": one, "n": torch.arange(9)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = checkpoints.nonfinite(tmp_path / "model.safetensors")
    assert found == {"b": int((~torch.isfinite(values)).sum()), "last": 1}
    assert found["b"] > size / 8


@pytest.mark.parametrize("chunk", [8, 64, 4096])
def test_it_is_found_wherever_a_piece_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(checkpoints, "PIECE", chunk)
    for place in (0, 1, 31, 32, 999):
        values = torch.ones(1000)
        values[place] = math.inf
        save_file({"w": values}, tmp_path / "w.safetensors")
        assert checkpoints.nonfinite(tmp_path / "w.safetensors") == {"w": 1}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_of_eight_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(dtype)
    save_file({"w": values}, tmp_path / "w.safetensors")
    assert checkpoints.nonfinite(tmp_path / "w.safetensors") == {"w": int((~torch.isfinite(values.float())).sum())}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"12345678", b"\xff" * 100, (10**9).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
        (3).to_bytes(8, "little") + b"{]}", safetensors(b"0" * 50, 200)[:-1],
        safetensors(b"0" * 50, 200).replace(b'"U8"', b'"U9"'),
        safetensors(b"0" * 50, 200).replace(b"[0, 50]", b"[0,990]"),
        safetensors(b"0" * 50, 200).replace(b"[0, 50]", b"[-9,5]"),
        safetensors(b"0" * 50, 200).replace(b"[0, 50]", b"[0, 1e400]"),
        (80_000).to_bytes(8, "little") + b'{"a":' + b"[" * 79_995,
    ],
)  # fmt: skip
def test_what_is_no_safetensors_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="it is not a safetensors file"):
        checkpoints.nonfinite(tmp_path / "w.safetensors")


def test_a_checkpoint_of_weights_that_are_not_finite_is_never_complete(folder: Path) -> None:
    staging = folder / checkpoints.STAGING / "checkpoint-20"
    staging.mkdir(parents=True)
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, math.inf, math.nan])}, staging / "model.safetensors")
    with pytest.raises(RunFailure, match="step 20: 2 weights are NaN or Inf, first in b") as raised:
        checkpoints.finish(staging, folder, 20)
    assert "step-000015 is complete and sound" in raised.value.why
    assert "grpo.learning_rate" in raised.value.fix
    assert not staging.exists()
    assert names(folder) == ["step-000005", "step-000010", "step-000015"]


def test_a_checkpoint_that_does_not_say_it_is_finite_is_looked_at_again(folder: Path) -> None:
    """One of an older openrs, or of a stranger."""
    place = folder / "step-000015"
    assert json.loads((place / "checkpoint.json").read_text())["finite"] is True
    save_file({"a": torch.tensor([math.nan])}, place / "model.safetensors")
    listed = checkpoints.read_manifest(place)["files"]
    content = (place / "model.safetensors").read_bytes()
    listed["model.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (place / "checkpoint.json").write_text(json.dumps({"step": 15, "files": listed}))
    newest, said = checkpoints.latest_resumable(folder)
    assert newest == folder / "step-000010"
    assert said == [
        "step-000015 is damaged (its weights are NaN or Inf, first in a): renamed to step-000015.damaged, not loaded"
    ]


def test_a_thinned_checkpoint_still_says_that_it_is_finite(folder: Path) -> None:
    checkpoints.prune(folder, keeping(1, "keep_every=5", "old_weights_only=true"))
    assert json.loads((folder / "step-000005" / "checkpoint.json").read_text())["finite"] is True


# --- a disk that is full, for real ------------------------------------------------------------------------------------


def test_no_room_for_the_manifest(small_disk: Path) -> None:
    """Everything is written but the manifest: there is no checkpoint, and the earlier one is as it was."""
    make(small_disk, 5)
    staging = small_disk / checkpoints.STAGING / "checkpoint-10"
    staging.mkdir()
    with pytest.raises(OSError, match="No space left") as raised:
        (staging / "optimizer.pt").write_bytes(b"0" * 65_536)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        checkpoints.finish(staging, small_disk, 10)
    newest, said = checkpoints.latest_resumable(small_disk)
    assert newest == small_disk / "step-000005"
    assert "removed" in said[0]
    make(small_disk, 10)  # there is room again
    assert checkpoints.latest_resumable(small_disk)[0] == small_disk / "step-000010"
