"""Small pictures as SVG text: bars for people who would rather look. The same bytes for the same numbers."""

from collections.abc import Sequence
from html import escape

from openrs.curation.text import shortened

INK, KEPT, LOST, PALE = "#1f2933", "#2f6f9f", "#c9702f", "#e4e9ee"
FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""


def funnel(title: str, stages: Sequence[tuple[str, int, int]]) -> str:
    """Rows left after each stage: (name, rows that came, rows left). What a stage took is the orange end of its bar."""
    row, left, wide, top = 34, 170, 480, 58
    height, most = top + row * len(stages) + 20, max((came for _, came, _ in stages), default=1) or 1
    parts = [_open(830, height, title), _text(20, 30, title, 17, weight="600")]
    for index, (name, came, stay) in enumerate(stages):
        y = top + row * index
        kept, all_ = wide * stay / most, wide * came / most
        parts += [
            _text(left - 12, y + 15, shortened(name, 22), 13, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{wide}" height="22" fill="{PALE}"/>',
            f'<rect x="{left}" y="{y}" width="{all_:.2f}" height="22" fill="{LOST}"/>',
            f'<rect x="{left}" y="{y}" width="{kept:.2f}" height="22" fill="{KEPT}"/>',
            _text(left + wide + 12, y + 15, f"{stay:,}" + (f"   (−{came - stay:,})" if came > stay else ""), 13),
        ]
    return "\n".join([*parts, "</svg>\n"])


def histogram(title: str, bins: Sequence[tuple[str, int]]) -> str:
    """Vertical bars: (label, count). Labels are thinned out where there are many."""
    wide, tall, top, left = 400, 120, 40, 12
    most = max((count for _, count in bins), default=1) or 1
    step = wide / max(1, len(bins))
    every = max(1, -(-len(bins) // 8))
    parts = [_open(wide + 2 * left, top + tall + 40, title), _text(left, 24, title, 15, weight="600")]
    for index, (label, count) in enumerate(bins):
        high, x = tall * count / most, left + index * step
        parts.append(
            f'<rect x="{x:.2f}" y="{top + tall - high:.2f}" width="{max(1.0, step - 2):.2f}" height="{high:.2f}"'
            f' fill="{KEPT}"><title>{escape(label)}: {count:,}</title></rect>'
        )
        if index % every == 0:
            parts.append(_text(x, top + tall + 17, label, 12))
    parts.append(_text(left + wide, 24, f"highest bar: {most:,}", 12, anchor="end"))
    return "\n".join([*parts, "</svg>\n"])


def _open(width: int, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(title)}" {FONT}>\n<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )


def _text(x: float, y: float, text: str, size: int, *, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{INK}" xml:space="preserve">{escape(text)}</text>'
    )
