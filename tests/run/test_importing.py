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
    with signals.install_handlers(), pytest.raises(Interrupted, match="stopped by"), importing():
        os.kill(os.getpid(), number)
        try:
            signal.sigpending()
        except Exception as error:
            raise RuntimeError("Failed to import") from error
        imported.append(True)
    assert imported
