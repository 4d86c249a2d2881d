"""Errors that end a command, with their messages, and the exit codes: 0 done, 1 failed, 2 refused, 75 interrupted."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 75


class ExplainedError(Exception):
    """Ends the program with a message instead of a stack trace: what is wrong, why that is a problem, and the fix.

    Args:
        what: what is wrong, with the file, key or value in it.
        why: why that is a problem. May be empty when `what` says it all.
        fix: one thing that the user can do about it, and that works.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(
            "\n".join(part for part in (what, f"  why: {why}" if why else "", f"  fix: {fix}" if fix else "") if part)
        )


class UserError(ExplainedError):
    """Bad configuration or bad data: trying again cannot help. Exit code 2."""

    exit_code = EXIT_REFUSED


class RunFailure(ExplainedError):  # noqa: N818 - the run failed, not the program
    """Something failed at run time: a disk, a server, a NaN. Exit code 1; once that is fixed, the same command
    resumes from the last complete checkpoint."""


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """The error for a missing package of one of our extras; None for any other module, which is a bug."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    missing = (error.name or "").partition(".")[0]
    # dependencies of packages in [train]
    indirect = {"huggingface_hub", "latex2sympy2_extended", "safetensors", "sympy", "tokenizers"}
    extra = "train" if missing in indirect else None
    try:
        for line in requires("openrs") or []:
            name, needed = re.match(r"[A-Za-z0-9_.-]+", line), re.search(r'extra == "(\w+)"', line)
            if name and needed and needed[1] != "dev" and re.sub(r"[-.]", "_", name[0]).lower() == missing:
                extra = needed[1]
                break
    except PackageNotFoundError:  # openrs itself runs from a folder, not installed
        return None
    if extra is None:
        return None
    fix = f"pip install 'openrs[{extra}]' (or ./scripts/setup in a checkout, which takes the lock of this machine)"
    return UserError(f"the package {missing} is not installed", "this needs more than the base install", fix)


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Stopped on request, with everything saved; the same command resumes. Ends the program with exit code 75."""
