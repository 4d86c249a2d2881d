"""What tests of whole trainings share."""

from pathlib import Path

import pytest
import runs


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe's 20 steps in one go: what a run that is disturbed must be equal to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said = runs.openrs(["train", runs.recipe_in(folder), "--run", folder / "run"])
    assert code == 0, said
    return folder / "run"
