"""YAML that remembers where each key stood, so that a message about a wrong setting can name file and line."""

import re
from pathlib import Path
from typing import Any

import yaml

from openrs.errors import UserError
from openrs.outside import DEPTH, MIB, read_text

OCTAL = re.compile(r"[-+]?0[0-7_]{1,100}$")  # a longer one is refused as a number of more than 63 bits
PACKAGE = Path(__file__).resolve().parents[1]
Key = tuple[str | int, ...]
Lines = dict[Key, str]
"""Path of a key in the tree -> where it was written, e.g. ("grpo", "beta") -> "exp3.yaml:31" or "--set"."""
CORE = "tag:yaml.org,2002:"  # of YAML's own tags
LIMIT = MIB // 2  # bytes; a resolved recipe has three prompts of TEXT_LIMIT in it, escaped at worst
NODES = 10_000  # keys and values, those of an alias counted wherever it stands


class _TooMuch(yaml.YAMLError):
    """A file that no recipe needs to be, or a value in it that is none; raised where `problem_mark` points."""

    def __init__(self, problem: str, node: yaml.Node | yaml.Event) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, node.start_mark


class _Loader(yaml.SafeLoader):
    """SafeLoader for what strangers wrote: few nodes, not deeply nested, and values that JSON has as well.

    1e-6 is a number (YAML 1.1, which PyYAML follows, calls it a string), 2026-11-28 and 1:30 are texts (there they are
    a date and 90).
    """

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.depth > DEPTH or self.nodes > NODES:
            problem = f"nested more than {DEPTH} levels deep" if self.depth > DEPTH else f"more than {NODES:,} values"
            raise _TooMuch(problem, self.peek_event())  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag.removeprefix(CORE) not in ("str", "int", "float", "bool", "null", "seq", "map"):
            raise _TooMuch(
                f"the tag {node.tag[:80]}: there are texts, numbers, true, false, null, lists, mappings", node
            )
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError) as error:
            raise _TooMuch(f"not a value: {error}", node) from None
        if isinstance(value, int) and abs(value) >= 2**63:
            raise _TooMuch("a whole number of more than 63 bits", node)
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise _TooMuch("a NUL, or half of a surrogate pair", node)
        return value


def _resolve_as(tag: str, pattern: str, first: str) -> None:
    """In place of YAML 1.1's rule for `tag`: scalars of this pattern, which begin with one of these characters."""
    table = _Loader.yaml_implicit_resolvers
    for letter, rules in table.items():
        table[letter] = [rule for rule in rules if rule[0] not in (tag, CORE + "timestamp")]
    _Loader.add_implicit_resolver(tag, re.compile(pattern), list(first))


_Loader.yaml_implicit_resolvers = dict(yaml.SafeLoader.yaml_implicit_resolvers)
_resolve_as(
    CORE + "float",
    r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    "-+0123456789.",
)
_resolve_as(
    CORE + "int",
    r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$",
    "-+0123456789",
)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts quotes around a text which _Loader would read as a number: the commit 12e4567."""


_Dumper.yaml_implicit_resolvers = {key: [*rules] for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _letter in "-+0123456789.":
    _Dumper.yaml_implicit_resolvers.setdefault(_letter, []).extend(_Loader.yaml_implicit_resolvers[_letter])


def dump_yaml(tree: Any, width: int = 1000) -> str:
    """A tree as YAML, in the order of its keys; where a character cannot be shown, all but ASCII is escaped."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    if not text.replace("\n", "").isprintable():
        text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=width)
    return text


def _parse_value(text: str, where: str) -> Any:
    """One YAML value, as written on a command line: numbers, true/false, null, lists and mappings in braces.

    Raises UserError for a value beyond the limits of `read_yaml`.
    """
    try:
        text.encode("utf-8")
        return _parsed(text, where)[0]
    except UnicodeEncodeError:
        raise UserError(f"{where}: not UTF-8") from None
    except _TooMuch as error:
        raise UserError(f"{where}: {error.problem}") from None
    except yaml.YAMLError:
        return text  # a text that is not YAML is meant as it stands


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML file whose top is a mapping.

    Returns the tree, and for every key in it the file and line where it stands.
    Raises UserError for a missing file, broken YAML, a top that is not a mapping, a key written twice or that is no
    text, and what is larger, deeper or more than any recipe is, aliases counted wherever they stand.
    """
    text = read_text(path, LIMIT, "give the path of a YAML file, or a name from: openrs recipe list")
    try:
        tree, lines = _parsed(text, path.name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        kind = "" if isinstance(error, _TooMuch) else "not YAML: "
        raise UserError(f"{where}: {kind}{problem}", fix="indent with spaces, one `key: value` a line") from None
    lines[()] = path.name
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path.name}:1: the top of the file is a {type(tree).__name__}, not `key: value` lines")
    return tree, lines


def _parsed(text: str, name: str) -> tuple[Any, Lines]:
    """The value of a YAML text, None of an empty one, and the lines of its keys. Raises yaml.YAMLError, UserError."""
    loader = _Loader(text)
    try:
        node, lines = loader.get_single_node(), Lines()
        if node is None:
            return None, lines
        _walk(node, (), name, lines)
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _walk(node: yaml.Node, key: Key, file: str, lines: Lines) -> None:
    if len(key) > DEPTH or len(lines) > NODES:  # aliases: of themselves, or of each other
        raise _TooMuch("its aliases stand for a tree without end, or for a huge one", node)
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            where = f"{file}:{name.start_mark.line + 1}"
            if not isinstance(name, yaml.ScalarNode) or name.tag not in (CORE + "str", CORE + "merge"):
                shown = name.value[:80] if isinstance(name, yaml.ScalarNode) else f"a {name.id}"
                raise UserError(f"{where}: the key {shown} is not a text", fix="put it in quotes")
            here = (*key, str(name.value))
            if here in lines:
                raise UserError(
                    f"{where}: `{name.value}` is written twice (first at {lines[here]})", fix="keep one of them"
                )
            lines[here] = where
            _walk(value, here, file, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*key, index] = f"{file}:{value.start_mark.line + 1}"
            _walk(value, (*key, index), file, lines)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and OCTAL.match(text := node.value):
        raise UserError(  # 010 is 8 in YAML 1.1, and whoever writes it means 10
            f"{lines.get(key, file)}: {text} would be octal, {int(text.replace('_', ''), 8)}",
            "a zero in front makes a whole number octal in YAML",
            f"write {text.lstrip('+-0_') or '0'}, or quote it where it is a text",
        )


def place_of(loc: Key, lines: Lines) -> str:
    """Where a key was written, or the nearest one above it."""
    return next((lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in lines), "the recipe")


def override(change: str, tree: dict[str, Any], lines: Lines, *, example: str, false_is_empty: bool = False) -> None:
    """Apply `--set KEY=VALUE` to a tree. Something can be set inside a key that holds null, and inside one that holds
    false where `false_is_empty`. Raises UserError for a text of another form, and for what has no inside."""
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise UserError(f"--set {change}: not KEY=VALUE", fix=f"e.g. --set {example}")
    value = _parse_value(text, f"--set {name}")
    key: Key = tuple(name.split("."))
    here = tree
    for part in key[:-1]:
        below = here.setdefault(str(part), {})
        if below is None or (false_is_empty and below is False):
            below = here[str(part)] = {}
        if not isinstance(below, dict):
            raise UserError(f"--set {change}: {part} holds {below!r}, nothing can be set inside it")
        here = below
    here[str(key[-1])] = value
    for old in [line for line in lines if line[: len(key)] == key]:
        del lines[old]
    for n in range(1, len(key) + 1):
        lines.setdefault(key[:n], f"--set {name}")


def text_of(name: str, folder: Path, where: str) -> str:
    """The text of the file that the key at `where` names: below the `folder` of the recipe, for a recipe may be a
    stranger's, and what it reads is written into runs, cards and uploads. Raises UserError."""
    fix = "give the path of a small text file below the recipe's folder"
    home = PACKAGE if folder.resolve().is_relative_to(PACKAGE) else folder  # packaged recipes share their prompts
    try:
        home, file = home.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in the name
        raise UserError(f"{where}: @{name[:200]} cannot be read: {error}", fix=fix) from None
    if not file.is_relative_to(home):
        why = "a recipe may be a stranger's, and the text is written into the run, its card and what is pushed"
        raise UserError(f"{where}: @{name[:200]} is not below {home}", why, fix)
    try:
        return read_text(file)
    except UserError as error:
        raise UserError(f"{where}: {error.what}", error.why, fix) from None
