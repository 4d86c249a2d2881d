"""The doctor's lines on what a recipe refers to: the hub, the cache with its hashes, the tokenizer."""

import email.utils
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from openrs.config.schema import Recipe
from openrs.doctor.finding import Finding, State, judged
from openrs.doctor.probe import Probe
from openrs.errors import UserError
from openrs.hub.cache import offline, problems, read_lock, snapshot
from openrs.hub.pins import Reference, references

HUB = "https://huggingface.co"
PATIENCE = 4.0  # seconds for the hub to answer


def lines(probe: Probe, recipe: Recipe | None, *, quick: bool) -> tuple[list[Finding], float | None]:
    """Lines on hub, cache and tokenizer, and the hub's time (seconds since 1970) where it answered."""
    if recipe is None:
        return [], None
    try:
        refs = references(recipe)
        read_lock()
    except UserError as error:
        return [Finding("pins", "fail", error.what, "every reference pinned", error.fix)], None
    found: list[Finding] = []
    hub_time = None
    if refs:
        cached, missing = cache_line(refs, hashes=not quick)
        found.append(cached)
        if missing and not quick and not offline():
            hub, hub_time = hub_line()
            found.append(hub)
    if not quick and (folder := model_folder(recipe, refs)) is not None:
        found.append(tokenizer_line(probe, folder))
    return found, hub_time


def cache_line(refs: Sequence[Reference], *, hashes: bool) -> tuple[Finding, bool]:
    """Whether everything is in the cache; and whether something is missing."""
    wrong = {ref.repo: found for ref in refs if (found := problems(ref, hashes=hashes))}
    checked = "every file equal to its SHA-256" if hashes else "sizes compared"
    if not wrong:
        return Finding("cache", "ok", f"{len(refs)} repositories complete, {checked}"), False
    text = "; ".join(f"{repo}: {found[0]}" for repo, found in list(wrong.items())[:3])
    text += f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    damaged = any("not fetched" not in found[0] for found in wrong.values())
    state: State = "fail" if offline() or damaged else "warn"
    fix = "openrs fetch RECIPE" + (" with a network (HF_HUB_OFFLINE is set)" if offline() else "")
    return Finding("cache", state, text, "models and data at their pinned commits", fix), True


def hub_line() -> tuple[Finding, float | None]:
    """Whether the hub answers; its Date header tells the time."""
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    fix = "check network and proxy, set HF_ENDPOINT to a mirror, or bring the cache and set HF_HUB_OFFLINE=1"
    if not endpoint.startswith(("https://", "http://")):
        return Finding("hub", "fail", f"HF_ENDPOINT={endpoint}", "an https:// address", fix), None
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - http(s) only, see above
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")  # it answers, and that is what was asked
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(
            "hub", "fail", f"{endpoint} does not answer: {reason}", "the hub, or all in the cache", fix
        ), None
    parsed = email.utils.parsedate_tz(date) if date else None
    return Finding("hub", "ok", f"{endpoint} answers"), email.utils.mktime_tz(parsed) if parsed else None


def model_folder(recipe: Recipe, refs: Sequence[Reference]) -> Path | None:
    """Where the recipe's model lies on this disk, or None when it is not here (or is made on the spot)."""
    if recipe.model.toy is not None:
        return None
    folder = Path(recipe.model.name)
    if folder.is_dir():
        return folder
    return next((snapshot(ref) for ref in refs if ref.kind == "model"), None)


def tokenizer_line(probe: Probe, folder: Path) -> Finding:
    """The loaded tokenizer against tokenizer.json, by the check that training uses, in a child process."""
    facts, _, last = probe.facts("tokenizer", str(folder))
    needed = "the ids of tokenizer.json"
    if facts is None:
        return Finding("tokenizer", "unknown", last, needed, "scripts/setup")
    fix = "fetch the model again; a folder of your own: save it with the class that transformers loads"
    return judged("tokenizer", "found" in facts, facts.get("found") or facts["refused"], needed, fix)
