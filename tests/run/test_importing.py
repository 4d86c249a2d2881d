"""While libraries are imported: a signal that comes, and a package that they are not to bring."""

import importlib.util
import os
import signal
import sys

import pytest

from openrs.errors import Interrupted
from openrs.run import signals
from openrs.run.libraries import UNUSED, importing


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_in_an_import_waits_until_it_is_over(number: signal.Signals) -> None:
    """TRL raises `RuntimeError: Failed to import ...` from whatever an import raises."""
    imported = []

    def an_import() -> None:
        with importing():
            try:
                os.kill(os.getpid(), number)
                imported.append(True)
            except Exception as error:
                raise RuntimeError("Failed to import") from error

    with signals.install_handlers(), pytest.raises(Interrupted, match="stopped by"):
        an_import()
    assert imported


def test_what_is_not_used_is_not_there_until_the_import_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed, which is how transformers asks; imported before, it stays."""
    (name,) = UNUSED
    monkeypatch.delitem(sys.modules, name, raising=False)
    before = importlib.util.find_spec(name)
    with importing():
        assert importlib.util.find_spec(name) is None
        with pytest.raises(ImportError):
            importlib.import_module(name)
    assert name not in sys.modules
    assert importlib.util.find_spec(name) == before
    monkeypatch.setitem(sys.modules, name, os)
    with importing():
        assert importlib.import_module(name) is os
    assert sys.modules[name] is os
