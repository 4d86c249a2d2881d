"""What must not be written down: tokens and passwords, by their shape and by the names of variables that hold them."""

import os
import re
from collections.abc import Iterator
from typing import Any

HIDDEN = "[hidden]"

# Tokens of Hugging Face, OpenAI and alike, GitHub, GitLab, Slack, AWS; the user and password of a URL, whose // pathlib
# makes one slash of; user:password@host without a scheme; a secret in a query. `url` and `query` stay visible; `word`
# may be a name as well: hf_checkpoints, sk-wikipedia.
_SECRET = re.compile(
    r"\b(?:(?P<word>hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,})|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}"
    r"|xox[abeprs]-[\w-]{8,}|(?-i:AKIA|ASIA)(?-i:[0-9A-Z]{12,}))"
    r"|(?P<url>:/+)[^\s/@:\"<>]{0,200}:[^\s/\"<>]{1,200}(?=@)"
    r"|(?<![\w/.@+-])[\w.+-]{1,200}:[^\s/@:\"<>]{1,200}(?=@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<query>[?&](?:[\w-]{0,50}(?:token|secret|passwo?r?d|signature|api[_-]?key)|sig)=)[^&#\s\"<>]+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_?KEY)($|_)", re.IGNORECASE
)


def redact(text: str) -> str:
    """Hide what looks like a token or a password in a URL, and the values of variables that are named like secrets."""
    return _hide(text, _named_secrets())


def redact_tree(tree: Any) -> Any:
    """The same for every text in a tree of plain values."""
    return _hide_below(tree, _named_secrets())


def _named_secrets() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= 8 and _SECRET_NAME.search(name)]


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _SECRET.sub(lambda match: (match["url"] or match["query"] or "") + HIDDEN, text)


def _hide_below(tree: Any, secrets: list[str]) -> Any:
    if isinstance(tree, dict):
        return {_hide_below(key, secrets): _hide_below(value, secrets) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_hide_below(value, secrets) for value in tree]
    return _hide(tree, secrets) if isinstance(tree, str) else tree


def _holds_secret(text: str) -> bool:
    """Whether a setting must be refused. Names of folders and models that only begin like a token may stand there."""
    matches = _SECRET.finditer(text)
    return any(not match["word"] or _is_token(match[0]) for match in matches) or any(
        secret in text for secret in _named_secrets()
    )


def _is_token(word: str) -> bool:
    """Random letters and digits, 30 and more in tokens of today, and not words."""
    longest = max(re.split("[^A-Za-z0-9]", word), key=len)
    return len(longest) >= (30 if longest.isalpha() and longest.islower() else 16)


def secrets_in(tree: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The keys under which a tree of settings holds a secret, without the secret."""
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if _holds_secret(str(name)):
                yield key
            yield from secrets_in(value, (*key, name))
    elif isinstance(tree, str) and _holds_secret(tree):
        yield key
