"""The members of TRL and transformers that training relies on are those of the installed versions."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler
from trl_members import ATTRIBUTES, CALLED, GRPO, OVERRIDDEN, SAMPLER_ATTRIBUTES, Member

from openrs.training import canary, trainer

pytestmark = pytest.mark.slow

SOURCES = "".join(inspect.getsource(base) for base in GRPOTrainer.__mro__ if base.__module__ != "builtins")


def signature(function: Callable[..., Any]) -> str:
    """Names, kinds and defaults of the parameters."""
    whole = inspect.signature(function)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in whole.parameters.values()]
    return str(whole.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def resolve(name: str) -> Any:
    """The object of a dotted name."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise LookupError(name)


@pytest.mark.parametrize("member", OVERRIDDEN, ids=lambda member: member.name)
def test_overridden(member: Member) -> None:
    assert signature(getattr(resolve(GRPO), member.name)) == member.signature
    assert member.name in vars(trainer.Trainer)


@pytest.mark.parametrize("member", CALLED, ids=lambda member: member.name.rpartition(".")[2])
def test_called(member: Member) -> None:
    assert signature(resolve(member.name)) == member.signature


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_read(name: str) -> None:
    assert f"self.{name} = " in SOURCES or f"self.{name}: " in SOURCES or f"self.{name}, " in SOURCES


@pytest.mark.parametrize("name", SAMPLER_ATTRIBUTES)
def test_read_of_the_sampler(name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(RepeatSampler)


def test_the_table_is_complete() -> None:
    """Nothing else of GRPOTrainer is overridden or read, and no attribute of ours has the name of one of TRL's."""
    ours = {name for name in vars(trainer.Trainer) if not name.startswith("__")}
    overridden = {member.name for member in OVERRIDDEN}
    assert {name for name in ours if hasattr(GRPOTrainer, name)} == overridden
    assert [member.name for member in OVERRIDDEN if member.name not in ours] == []
    used = names("self", trainer.__file__) | names("trainer", canary.__file__)
    of_trl = {name for name in used - ours if hasattr(GRPOTrainer, name) or f"self.{name} = " in SOURCES}
    called = {member.name.rpartition(".")[2] for member in CALLED if member.name.startswith(GRPO)}
    assert of_trl - set(SAMPLER_ATTRIBUTES) == (set(ATTRIBUTES) | called) - overridden


def test_a_changed_signature_has_a_name() -> None:
    def log(self: Any, logs: dict[str, float], start: float = 0.0) -> None: ...

    (member,) = (member for member in OVERRIDDEN if member.name == "log")
    assert signature(log) != member.signature


def names(owner: str, path: str | None) -> set[str]:
    """Attributes of the variable `owner` in a module's source."""
    tree = ast.parse(Path(str(path)).read_text())
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == owner}
