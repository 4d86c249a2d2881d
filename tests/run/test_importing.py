"""A signal that comes while libraries are imported."""

import os
import signal

import pytest

from openrs.errors import Interrupted
from openrs.run import signals
from openrs.run.libraries import importing


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
