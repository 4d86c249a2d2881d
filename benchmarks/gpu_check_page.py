"""The page of scripts/gpu-check: one HTML file without scripts and requests."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #176b36; --bad: #b3261e; --soft: #666 }
@media (prefers-color-scheme: dark) { :root { --good: #6fcf97; --bad: #ff8a80; --soft: #aaa } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem }
p { margin: .3rem 0 } .passed, .ok { color: var(--good) } .failed, .fail { color: var(--bad) }
.skipped, .soft { color: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top }
td:last-child:not(:empty) { min-width: 7.5rem }
th { font-weight: 600 } .wide :is(td, th) { overflow-wrap: normal } .state { font-weight: 600 }
"""


def page(document: Mapping[str, Any]) -> str:
    """The whole file. Everything in the document is text to it."""
    parts: Sequence[Mapping[str, Any]] = document["parts"]
    device = document["versions"].get("device") or ("a CPU" if document["rehearsal"] else "an unknown GPU")
    good = sum(part["state"] == "passed" for part in parts)
    warning = (
        "<p><b>A rehearsal on a CPU at toy sizes: no figure here is a GPU's.</b></p>" if document["rehearsal"] else ""
    )
    head = f"openrs on {device}: {good} of {len(parts)} parts passed"
    facts: dict[str, Any] = {
        "started": document["started"], "seconds": document["seconds"], "commit": document["commit"],
        "processor": document["cpu"], **document["versions"],
    }  # fmt: skip
    for when in ("clocks_before", "clocks_after"):
        facts |= {f"{when.removeprefix('clocks_')}: {key}": value for key, value in (document[when] or {}).items()}
    summary = [["part", "state", "seconds", "what, and why not"]]
    summary += [
        [p["name"], p["state"], p["seconds"], f"{p['title']}{': ' + p['why'] if p['why'] else ''}"] for p in parts
    ]
    body = [
        f"<h1>{escape(head)}</h1><p><b>{warning}</b></p>", table(summary, state=1), *(section(part) for part in parts),
        "<h2>Machine</h2>", table([["what", "value"], *([k, v] for k, v in facts.items() if v is not None)]),
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(head)}</title><style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def section(part: Mapping[str, Any]) -> str:
    """A part's figures; nothing for one without."""
    found = part["found"]
    blocks: list[str] = []
    if "lines" in found:
        lines = [[line["name"], line["state"], line["found"], line["fix"]] for line in found["lines"]]
        blocks += [f"<p>{escape(found['verdict'])}</p>", table([["line", "state", "found", "fix"], *lines], state=1)]
    if "rows" in found:
        blocks.append(table(found["rows"]))
    if found.get("ratios"):
        ratios = [[name, r["value"], r["low"], r["high"], r["n"]] for name, r in found["ratios"].items()]
        blocks.append(table([["ratio", "median", "lowest", "highest", "n"], *ratios]))
    if "update_memory" in found:
        sizes = [[name, size["measured"], size["planned"]] for name, size in found["update_memory"].items()]
        blocks.append(table([["memory of an update, GiB", "measured", "planned"], *sizes]))
    plain = {key: value for key, value in found.items() if isinstance(value, int | float | str) and key != "verdict"}
    plain = {key: value for key, value in plain.items() if key not in {"benchmark", "exit"}}
    blocks += [f'<p class="soft">{escape(f"{key}: {cell(value)}")}</p>' for key, value in plain.items()]
    return f"<h2>{escape(part['name'])}: {escape(part['title'])}</h2>{''.join(blocks)}" if blocks else ""


def table(rows: Sequence[Sequence[Any]], state: int | None = None) -> str:
    """`state`: the column whose words are classes of the style as well."""

    def line(cells: Sequence[Any], tag: str) -> str:
        marks = [
            f' class="state {escape(str(c))}"' if at == state and tag == "td" else "" for at, c in enumerate(cells)
        ]
        texts = [escape(cell(c)) for c in cells]
        return f"<tr>{''.join(f'<{tag}{mark}>{text}</{tag}>' for mark, text in zip(marks, texts, strict=True))}</tr>"

    return f'<div class="wide"><table>{line(rows[0], "th")}{"".join(line(row, "td") for row in rows[1:])}</table></div>'


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
