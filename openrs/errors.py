"""What a user is told when something cannot go on, and the exit code that goes with it (design: exit codes)."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 75


class Refusal(Exception):  # noqa: N818 - it is not a fault of the program: the message is the product
    """Bad configuration or bad data: trying again cannot help. Ends the program with exit code 2 and no stack trace.

    Args:
        what: what is wrong, with the file, key or value in it.
        why: why that is a problem. May be empty when `what` says it all.
        mend: what the user can do about it.
    """

    exit_code = EXIT_REFUSED

    def __init__(self, what: str, why: str = "", mend: str = "") -> None:
        self.what, self.why, self.mend = what, why, mend
        super().__init__(
            "\n".join(
                part for part in (what, f"  why:  {why}" if why else "", f"  mend: {mend}" if mend else "") if part
            )
        )


class Failure(Refusal):
    """Something around the program broke (a disk, a server, numbers that are none). Ends it with exit code 1 and no
    stack trace; once mended, the same command goes on from the last complete checkpoint."""

    exit_code = EXIT_FAILED


class Interrupted(Exception):  # noqa: N818
    """Stopped on purpose at a safe place; the same command continues. Ends the program with exit code 75."""
