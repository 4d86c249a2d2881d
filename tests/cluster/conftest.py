"""A fresh emulated API server for each test, as the kubeconfig names it, and short pauses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("kmock", reason="kmock is not installed (./scripts/setup --dev)")
pytest.importorskip("kubernetes", reason="the Kubernetes client is not installed")

from emulator import Emulated, emulated

from openrs.cluster import api, control
from openrs.cluster.api import Cluster, connect


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulated]:
    monkeypatch.setattr(api, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(api, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(api, "FOLLOW_RETRY_S", 1e6)
    monkeypatch.setattr(control, "POLL", 0.02)
    monkeypatch.delenv("OPENRS_IMAGE", raising=False)
    with emulated(tmp_path) as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found


@pytest.fixture
def cluster(server: Emulated) -> Cluster:
    return connect(None, None)
