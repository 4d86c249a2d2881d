"""Fixtures that several packages' tests share, and the limits of every test."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import forked
import hang_limits
import pytest

# Before torch is imported: some tests fork, and a forked child has none of OpenMP's threads (it would wait for ever).
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that starts pytest in the background ignores Ctrl-C for it, and all that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The hub's library reads these once, when first imported: here, so that neither a test's environment nor that of who
# runs the tests (scripts/test sets HF_HUB_OFFLINE) decides for the others. Tests have hubs of their own, or none.
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "HF_HOME"):
    os.environ.pop(name, None)
with contextlib.suppress(ImportError):
    import huggingface_hub.constants  # noqa: F401 - for what its import reads

WATCHER = pytest.StashKey[hang_limits.Watcher]()


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
def forked_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of engines are forks of this one: their imports would be most of what they do for a tiny model."""
    from openrs.evaluation import engine_pool

    monkeypatch.setattr(engine_pool, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": forked.Popen}))


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model after a few supervised steps: it loads, generates and trains, and knows nothing."""
    pytest.importorskip("torch", reason="torch is not installed")
    from openrs.config.schema import ToyModel
    from openrs.run.libraries import quiet
    from openrs.training.demo_model import make

    quiet()
    return make(ToyModel(steps=10), tmp_path_factory.mktemp("made") / "model")


@pytest.fixture(scope="session")
def taught_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's own base model (about 40 s on a quiet core): right in 35 to 40 of 100 sums at temperature 0.7."""
    pytest.importorskip("torch", reason="torch is not installed")
    from openrs.config.load import load
    from openrs.run.libraries import quiet
    from openrs.training.demo_model import make

    quiet()
    made = load("demo").model.made
    assert made is not None
    return make(made, tmp_path_factory.mktemp("taught") / "model")
