"""Messages about wrong settings: the file, the line, and the key that was meant, at every depth of every tree."""

import pytest
from pydantic import BaseModel, ValidationError

from openrs.config.faults import did_you_mean, known_keys, setting_faults
from openrs.config.schema import Recipe
from openrs.curation.settings import Curation


@pytest.mark.parametrize(
    ("model", "loc", "key"),
    [
        (Recipe, (), "monitors"),
        (Recipe, ("monitors", "kl"), "stop_above"),
        (Recipe, ("model", "lora"), "rank"),
        (Recipe, ("rewards", "functions", 0), "weight"),
        (Curation, ("sources", "any-name"), "max_characters"),
    ],
)
def test_keys_are_found_inside_options_lists_and_mappings(
    model: type[BaseModel], loc: tuple[str, ...], key: str
) -> None:
    assert key in known_keys(model, loc)
    assert did_you_mean(key[:-1], known_keys(model, loc)) == f"did you mean {key}?"


def test_each_fault_has_its_line() -> None:
    lines = {("grpo",): "r.yaml:3", ("data", "limit"): "r.yaml:7"}
    tree = {"title": "t", "model": {"name": "m"}, "data": {"source": "d", "limit": 0}, "grpo": {}, "reward": {}}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(tree)
    faults = setting_faults(caught.value, Recipe, lines)
    assert "the recipe: rewards is missing" in faults
    assert "the recipe: there is no setting reward; did you mean rewards?" in faults
    assert "r.yaml:7: data.limit = 0: input should be greater than or equal to 1" in faults
