"""The pages that scripts/lib/docs_site.py generates: nothing of the schema or the parsers is missing."""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from openrs.cli.main import parser
from openrs.config.load import load, to_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "lib" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a resolved recipe, dotted."""
    for name, value in tree.items():
        if isinstance(value, dict) and value and prefix != "grpo.":  # TRL's options are one key each
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_recipe_key_is_on_the_page_with_default_and_limits(site: ModuleType) -> None:
    page = site.recipe_page()
    listed = set(re.findall(r"(?m)^\| `([\w.\[\]]+)` \|", page)) | set(re.findall(r"(?m)^#+ ([\w.]+)$", page))
    for recipe in ("exp3", "demo", "exp2-lora"):
        assert [key for key in keys(json.loads(to_json(load(recipe, [])))) if key not in listed] == []
    assert "| `model.toy.hidden` | whole number | `96` | at least 32 |" in page
    assert "| `evaluation.top_p` | number | `0.95` | above 0, at most 1 |" in page
    assert "| `data.source` | text | must be set | a data file," in page
    assert '| `hardware.layout` | single, colocate, split | `"single"` |' in page
    assert re.search(r"\| `grpo\.beta` \| float \| `0\.0` \| `0\.04` \|", page)


def test_every_verb_is_on_the_page_with_its_options(site: ModuleType) -> None:
    page = site.commands_page()
    for words, one in site.verbs(parser()):
        assert f"## {words}\n" in page
        assert [name for action in one._actions for name in action.option_strings if name not in page] == []
    assert {"## openrs train", "## openrs recipe new", "## openrs cluster submit"} <= set(page.splitlines())


def test_every_schema_is_on_the_page(site: ModuleType) -> None:
    page = site.schemas_page()
    schemas = [path.name for path in (ROOT / "openrs").rglob("*.schema.json")]
    assert "report.schema.json" in schemas
    assert [name for name in schemas if f"## {name}\n" not in page] == []


def test_the_start_page_is_readme_with_the_site_s_links(site: ModuleType) -> None:
    page = site.start_page()
    assert "](docs/" not in page
    assert '"docs/' not in page
    links = re.findall(r"\]\(([^)#\s]+)\)", page)
    assert "quick-start.md" in links
    copied = {link.removeprefix("source/").removesuffix(".txt") for link in links if link.startswith("source/")}
    assert copied <= site.linked_sources()
    for link in links:
        assert link.startswith(("https:", "source/")) or (ROOT / "docs" / link).is_file(), link


def test_the_navigation_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages - named == set()
    assert named - pages == {"index.md", "reference/recipe.md", "reference/commands.md", "reference/schemas.md"}


@pytest.mark.soak
def test_the_site_is_built_strictly_and_asks_for_nothing_from_the_web(tmp_path: Path) -> None:
    if not (ROOT / ".venv-docs" / "bin" / "python").exists():
        pytest.skip("./scripts/docs was not run here: there is no .venv-docs")
    command = [ROOT / ".venv-docs" / "bin" / "python", "-m", "mkdocs", "build", "--strict", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img|source|iframe)[^>]*?(?:src|href)=\"?(?:https?:)?//[^\s>]*", text) == []
