"""A real pretrained model for tests: SmolLM2-135M-Instruct, made from a PyPI wheel (../shared/testing.md)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # runs.py


@pytest.fixture(scope="session")
def real_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, made once and kept in pytest's cache. OPENRS_REAL_MODEL names the script, OPENRS_REAL_MODEL_FOLDER a
    folder that is there already."""
    if folder := os.environ.get("OPENRS_REAL_MODEL_FOLDER"):
        return Path(folder)
    script = Path(os.environ.get("OPENRS_REAL_MODEL", Path(__file__).parents[3] / "shared" / "tools" / "real_model.py"))
    if not script.is_file():
        pytest.skip(f"the script that makes the model is not here ({script}); OPENRS_REAL_MODEL names it")
    cache = getattr(request.config, "cache", None)
    folder = (cache.mkdir("real-model") if cache else tmp_path_factory.mktemp("real")) / "smollm2"
    made = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)
    if made.returncode:
        if "No matching distribution" in made.stderr or "Connection" in made.stderr:
            pytest.skip("the model's wheel cannot be downloaded: no package index answers")
        pytest.fail(f"{script} failed: {made.stderr[-2000:]}")
    return Path(folder)
