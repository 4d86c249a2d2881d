"""Fixtures that several packages' tests share, and the limits of every test."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import forked
import hang_limits
import pytest

# Before torch is imported: some tests fork, and a forked child has none of OpenMP's threads (it would wait for ever).
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that starts pytest in the background ignores Ctrl-C for it, and nohup the hang-up; all that the tests start
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The hub's library reads these once, when first imported: here, so that neither a test's environment nor that of who
# runs the tests (scripts/test sets HF_HUB_OFFLINE) decides for the others. Tests have hubs of their own, or none.
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "HF_HOME"):
    os.environ.pop(name, None)
with contextlib.suppress(ImportError):
    import huggingface_hub.constants  # noqa: F401 - for what its import reads

WATCHER = pytest.StashKey[hang_limits.Watcher]()


@contextlib.contextmanager
def unlimited(config: pytest.Config) -> Iterator[None]:
    """For what must not end the test that happens to do it first. Limits begin anew after it."""
    watcher = config.stash.get(WATCHER, None)
    if watcher:
        watcher.pause()
    yield
    if watcher:
        watcher.start(hang_limits.PROCESSOR, hang_limits.SILENCE)


def _limited(item: pytest.Item) -> Generator[None, object, object]:
    """Set-up, call and teardown of a test each have their own limits, which `@pytest.mark.limits` changes."""
    if not hang_limits.AVAILABLE:
        return (yield)
    if WATCHER not in item.config.stash:
        item.config.stash[WATCHER] = hang_limits.Watcher(pytest.fail)
    watcher, marker = item.config.stash[WATCHER], item.get_closest_marker("limits")
    watcher.start(
        **{"processor": hang_limits.PROCESSOR, "silence": hang_limits.SILENCE, **(marker.kwargs if marker else {})}
    )
    try:
        return (yield)
    finally:
        watcher.pause()


pytest_runtest_setup = pytest.hookimpl(wrapper=True, tryfirst=True)(_limited)
pytest_runtest_call = pytest.hookimpl(wrapper=True, tryfirst=True)(_limited)
pytest_runtest_teardown = pytest.hookimpl(wrapper=True, tryfirst=True)(_limited)


def _environment_restored() -> Iterator[None]:
    """RANK, WORLD_SIZE, MASTER_PORT, as TRL with vLLM leaves them behind, a later training would take for its own."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


_restored_after_a_test = pytest.fixture(_environment_restored, autouse=True)
_restored_after_a_file = pytest.fixture(_environment_restored, autouse=True, scope="module")


# Who gets one of these waits for a training, or at least for torch.
SLOW_FIXTURES = {"toy_model", "undisturbed", "reproduced"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what is marked slow, or uses a trained model")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that --quick leaves out whole is not even imported: TRL's trainer alone takes 8 s a process."""
    if config.getoption("quick") and collection_path.suffix == ".py":
        marks = r"^pytestmark = \[?pytest\.mark\.(slow|soak|vllm|docker|real)\b"
        return bool(re.search(marks, collection_path.read_text(), re.MULTILINE)) or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if config.getoption("quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_unconfigure(config: pytest.Config) -> None:
    if WATCHER in config.stash:
        config.stash[WATCHER].stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real benchmarks, training problems and logs: not in the repository, so tests skip where they are not."""
    folder = Path(os.environ.get("OPENRS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared data is not here ({folder}); set OPENRS_SHARED_DATA to its folder")
    return folder


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory: 64 kB, or as DISK in the test's file says."""
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request.module, "DISK", "64k")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk wants root, and a kernel that lets it")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def fork_python_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    """Python programs that a module of openrs starts are forks from here on (forked.py)."""

    def patch(module: ModuleType) -> None:
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": forked.Popen}))

    return patch


@pytest.fixture
def forked_engines(fork_python_of: Callable[[ModuleType], None]) -> None:
    """Engines are forks: their imports would be most of what they do for a tiny model."""
    from openrs.evaluation import engine_pool

    fork_python_of(engine_pool)


@pytest.fixture(scope="session")
def toy_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives a copy of the demo's model for some settings. It is made once and kept in pytest's cache, under a name that
    its settings, source and libraries decide; a second process of pytest-xdist waits for the first."""
    pytest.importorskip("torch", reason="torch is not installed")
    from openrs.data import arithmetic, prompts
    from openrs.run.libraries import quiet
    from openrs.training import demo_model

    config, modules = request.config, (arithmetic, prompts, demo_model)
    made_from = [Path(module.__file__ or "").read_text() for module in modules]
    made_from += [version(name) for name in ("torch", "transformers", "tokenizers")]
    cache = getattr(config, "cache", None)
    kept = cache.mkdir("toy-models") if cache else tmp_path_factory.mktemp("toy-models")

    def give(settings: Any) -> Path:
        quiet()
        place = kept / hashlib.sha256(repr([settings, *made_from]).encode()).hexdigest()[:16]
        with unlimited(config), place.with_suffix(".lock").open("w") as lock:  # who waits is silent
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = demo_model.make(settings, place)
        return shutil.copytree(made, tmp_path_factory.mktemp("toy") / "model")

    return give


@pytest.fixture(scope="session")
def made_model(toy_model: Callable[..., Path]) -> Path:
    """The demo's model after a few supervised steps: it loads, generates and trains, and knows nothing."""
    from openrs.config.schema import ToyModel

    return toy_model(ToyModel(steps=10))


@pytest.fixture(scope="session")
def taught_model(toy_model: Callable[..., Path]) -> Path:
    """The demo's own base model (about 40 s on a quiet core): right in 35 to 40 of 100 sums at temperature 0.7."""
    from openrs.config.load import load

    toy = load("demo").model.toy
    assert toy is not None
    return toy_model(toy)
