"""What mkdocs.yml needs beyond docs/*.md: the start page, the generated reference, links into the repository.

A hook of mkdocs (`on_files`, `on_page_markdown`); the functions that write pages need openrs only. Nothing is
written into docs/.
"""

import argparse
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
OUTWARD = re.compile(r"\]\((?!docs/|[a-z]+:|#)([^)#\s]+)")  # README's links to files outside docs/
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "entries: at least"}
# Browsers start no worker from file://: there the search runs in a hidden frame, which stands in for one.
WORKER = """\
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = new Promise(resolve => {
        const script = frame.contentDocument.createElement("script")
        script.src = url
        script.onload = resolve
        frame.contentDocument.body.append(script)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {}
  }
}
"""


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    texts = {"index.md": start_page(), "assets/iframe-worker.js": WORKER, **reference()}
    texts |= {f"source/{name}.txt": (ROOT / name).read_text(encoding="utf-8") for name in sorted(linked_sources())}
    for uri, text in texts.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of docs/ into the repository lead to copies in the site."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return re.sub(r"\]\(\.\./([^)#\s]+)", lambda link: f"]({_inside(link[1])}", markdown)


def _inside(path: str) -> str:
    return "index.md" if path == "README.md" else f"source/{path}.txt"


def linked_sources() -> set[str]:
    """Files outside docs/ that README and docs/ link to."""
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {path for text in pages for path in re.findall(r"\]\(\.\./([^)#\s]+)", text)}
    return linked.union(OUTWARD.findall(readme)) - {"README.md"}


def start_page() -> str:
    """README, as a page of docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = OUTWARD.sub(lambda link: f"]({_inside(link[1])}", text)
    return re.sub(r"""(\]\(|srcset="|src=")docs/""", r"\1", text)


def reference() -> dict[str, str]:
    return {
        "reference/recipe.md": recipe_page(),
        "reference/commands.md": commands_page(),
        "reference/schemas.md": schemas_page(),
    }


def recipe_page() -> str:
    from openrs.config.load import load
    from openrs.config.schema import Recipe

    options = json.loads((ROOT / "openrs/config/grpo_options.json").read_text(encoding="utf-8"))
    base, known = load("exp3", []).grpo, options["options"]
    rows = [(f"`grpo.{key}`", " or ".join(known[key]["types"]), _json(known[key]["default"]), _json(base[key]))
            for key in sorted(base.keys() & known.keys())]  # fmt: skip
    lines = [
        "# Recipe keys", "",
        "Generated from `openrs/config/schema.py`. A key can be set in a recipe or by `--set KEY=VALUE`; an unknown",
        "one is refused with the nearest that exists. What has no default must be set.", "",
        *_sections(Recipe, ""),
        "## grpo", "",
        f"Options of GRPOConfig in TRL {options['trl']}, handed on as they are; those that exp3 sets, with its value.",
        "",
        "| key | type | TRL's default | exp3 |", "|---|---|---|---|",
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), "",
        "The others, by name: " + ", ".join(f"`{name}`" for name in sorted(known.keys() - base.keys())) + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """A table of a section's own keys, then its sections, each under its heading."""
    plain = {name: field for name, field in model.model_fields.items() if section_of(field) is None and name != "grpo"}
    if plain:
        yield from ("| key | type | default | what |", "|---|---|---|---|")
        for name, field in plain.items():
            words = "; ".join(filter(None, [field.description or "", _limits(field)]))
            yield f"| `{prefix}{name}` | {_cell(_type(field.annotation))} | {_cell(_default(field))} | {_cell(words)} |"
        yield ""
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            dots = "[]" if typing.get_origin(field.annotation) is list else ""
            yield from (f"{'#' * min(2 + prefix.count('.'), 4)} {prefix}{name}", "")
            if inner.__doc__:
                yield from (" ".join(inner.__doc__.split()), "")
            yield from _sections(inner, f"{prefix}{name}{dots}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, alone, optional or in a list."""
    kinds = [field.annotation, *typing.get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _type(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin in (typing.Union, UnionType):
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin is list:
        return f"list of {_type(inner[0])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping"}
    return names.get(origin or kind) or ", ".join(one.value for one in kind)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    value = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    return _json(getattr(value, "value", value))


def _limits(field: FieldInfo) -> str:
    return ", ".join(
        f"{words} {getattr(rule, name)}"
        for rule in field.metadata
        for name, words in LIMITS.items()
        if hasattr(rule, name)
    )


def _json(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("{{", "{ {")


def commands_page() -> str:
    """`--help` of every verb."""
    from openrs.cli.main import parser

    lines = ["# Command line", "", "Generated: `--help` of every verb.", ""]
    for words, one in verbs(parser()):
        lines += [f"## {words}", "", "```text", one.format_help().strip(), "```", ""]
    return "\n".join(lines)


def verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every verb and inner verb with its parser, in the order of `openrs --help`."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser.prog, parser
    for action in inner:
        for one in action.choices.values():
            yield from verbs(one)


def schemas_page() -> str:
    """Every JSON schema of the package, whole."""
    lines = ["# JSON schemas", "", "What the files are for, with examples: [run-files.md](../run-files.md).", ""]
    for path in sorted((ROOT / "openrs").rglob("*.schema.json")):
        text = path.read_text(encoding="utf-8")
        schema = json.loads(text)
        lines += [f"## {path.name}", "", f"**{schema['title']}.** {schema['description']}", ""]
        lines += ["```json", text.strip(), "```", ""]
    return "\n".join(lines)
