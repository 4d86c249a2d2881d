"""One environment for all that runs vLLM; proxies and compile caches."""

import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import requests

from openrs.config.load import load
from openrs.evaluation import vllm_engine
from openrs.run import vllm_env
from openrs.run.directory import Run
from openrs.run.vllm_env import vllm_environment
from openrs.training import launch

SPLIT = load("exp3", ["hardware.layout=split", "grpo.gradient_accumulation_steps=4"])


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")}
    given = {name: value for name, value in kept.items() if not name.startswith(("VLLM", "TRITON", "OPENRS"))}
    monkeypatch.setattr(os, "environ", given)
    return given


def trainers(folder: Path) -> dict[str, str]:
    return launch.plan(load("exp3"), Run(folder), folder, "m", start=None, ports=[1, 2]).environment


def server(folder: Path) -> dict[str, str]:
    return launch.plan(SPLIT, Run(folder), folder, "m", start=None, ports=[1, 2]).server_environment


def trainers_on_several_nodes(folder: Path) -> dict[str, str]:
    return launch.environment(load("exp3"), Run(folder))


def evaluation_engine(folder: Path) -> dict[str, str]:
    vllm_engine.libraries()
    return dict(os.environ)


@pytest.mark.parametrize("start", [trainers, server, trainers_on_several_nodes, evaluation_engine])
def test_whatever_runs_vllm_gets_the_same(
    start: Callable[[Path], dict[str, str]], environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vllm", "vllm.v1", "vllm.v1.engine", "vllm.v1.engine.llm_engine"):  # not installed: a stand-in
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    environ |= {"HTTP_PROXY": "http://proxy:3128", "no_proxy": "intern.example", "OPENRS_COMPILE_CACHE": str(tmp_path)}
    settings = start(tmp_path)
    assert settings["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert settings["VLLM_NO_USAGE_STATS"] == "1"
    assert settings["NO_PROXY"] == settings["no_proxy"] == "intern.example,127.0.0.1,localhost"
    assert Path(settings["VLLM_CACHE_ROOT"]).parent == Path(settings["TRITON_CACHE_DIR"]).parent
    environ["VLLM_USE_FLASHINFER_SAMPLER"] = "1"  # a user who has nvcc
    assert start(tmp_path)["VLLM_USE_FLASHINFER_SAMPLER"] == "1"


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_no_proxy_is_asked_for_this_machine(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's requests, and urllib."""
    monkeypatch.setenv(proxy, "http://192.0.2.1:3128")
    for name, value in vllm_environment(os.environ).items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1", "localhost"):
        assert requests.utils.get_environ_proxies(f"http://{host}:8000/health") == {}
        assert urllib.request.proxy_bypass(f"{host}:8000")
    assert requests.utils.get_environ_proxies("http://huggingface.co/") != {}


def caches(environ: dict[str, str], root: Path, **more: str) -> str | None:
    return vllm_environment({**environ, "OPENRS_COMPILE_CACHE": str(root), **more}).get("VLLM_CACHE_ROOT")


def test_what_is_compiled_is_kept_for_each_image_and_gpu(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_env, "GPU_FACTS", tmp_path / "driver")
    root = tmp_path / "compiled"
    places = {caches(environ, root), caches(environ, root, OPENRS_IMAGE_DIGEST="a")}
    for model in ("NVIDIA A40", "NVIDIA L40S", "../../escape"):
        facts = tmp_path / "driver" / "0000:01:00.0" / "information"
        facts.parent.mkdir(parents=True, exist_ok=True)
        facts.write_text(f"Model: \t\t {model}\nIRQ: 1\n")
        places |= {caches(environ, root, OPENRS_IMAGE_DIGEST=digest) for digest in "ab"}
        assert caches(environ, root, OPENRS_IMAGE_DIGEST="a") == caches(environ, root, OPENRS_IMAGE_DIGEST="a")
    assert len(places) == 8
    assert {Path(place or "").parent.parent for place in places} == {root}
    assert any("-NVIDIA-A40/" in (place or "") for place in places)
    assert not root.exists()  # a dry run asks too


def test_without_the_variable_or_in_a_folder_of_another_user_nothing_is_set(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "VLLM_CACHE_ROOT" not in vllm_environment(environ)
    assert caches(environ, tmp_path) is not None
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)  # what is in it would be executed
    assert caches(environ, tmp_path) is None
    assert caches(environ, tmp_path / "new") is not None
    monkeypatch.setattr(os, "access", lambda *_: False)  # a cache volume that is mounted read-only
    assert caches(environ, tmp_path / "new") is None
