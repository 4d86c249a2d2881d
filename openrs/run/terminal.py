"""The one printer: what reaches a terminal or a log is plain text, without secrets.

A recipe's title, a column's name, a chat template's message and a server's words are written by strangers. A terminal
obeys escape sequences in them (it may rename its window, move its cursor, answer as if somebody typed), and characters
that turn the direction of writing let a line read otherwise than it is.
"""

import re
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from openrs.errors import RunFailure
from openrs.secrets import redact

# ECMA-48: CSI and OSC sequences, and two-character ones; they go, colours above all. So does the return to the start of
# the line, with which progress bars write over themselves.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])|\r")
# Other control characters, those that turn the direction of writing or break a line (Unicode UAX 9 and 14), a byte
# order mark, and halves of a surrogate pair, which no encoding can write.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Text as it may be shown: no secrets, no escape sequences, any other control character as \\uNNNN."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", _SEQUENCES.sub("", redact(text)))


def say(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Print text, cleaned, to stdout or stderr. Raises RunFailure when what stdout goes to takes no more."""
    try:
        print(clean(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as fault:
        if error:
            return
        raise RunFailure(
            f"the output cannot be written: {fault.strerror}",
            "what stdout is redirected to takes no more",
            "redirect it to a file on a disk with room",
        ) from None


def redraw(lines: Sequence[str]) -> None:
    """Show lines from the top of the terminal, cleaned, over what was there."""
    sys.stdout.write("\x1b[H\x1b[J" + clean("\n".join(lines)) + "\n")
    sys.stdout.flush()


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For sys.excepthook: a stack trace holds messages, and messages hold strangers' words."""
    say("".join(traceback.format_exception(kind, error, trace)), end="", error=True)
