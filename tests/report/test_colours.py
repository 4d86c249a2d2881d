"""The page's colours: enough contrast, and six series that a colour-blind reader can tell apart."""

import itertools
import math
import re
from importlib import resources

import pytest

CSS = resources.files("openrs.report.pages").joinpath("style.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "all colours": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881),
    ),
    "protanopia": (
        (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998),
    ),
}  # fmt: skip


def linear(colour: str) -> list[float]:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares]


def contrast(a: str, b: str) -> float:
    """WCAG 2."""
    low, high = sorted(sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, eyes: str) -> tuple[float, float, float]:
    """CIE L*a*b* of the colour as these eyes see it."""
    seen = [sum(w * v for w, v in zip(row, linear(colour), strict=True)) for row in EYES[eyes]]
    r, g, b = (min(1.0, max(0.0, value)) for value in seen)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(a: str, b: str, eyes: str) -> float:
    return math.dist(lab(a, eyes), lab(b, eyes))


def test_the_measure_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert distance("#000000", "#ffffff", "all colours") == pytest.approx(100, abs=0.1)
    assert distance("#c25b12", "#8c6d00", "protanopia") < 2 < 30 < distance("#c25b12", "#8c6d00", "all colours")


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("eyes", list(EYES))
def test_series_are_told_apart(palette: dict[str, str], eyes: str) -> None:
    series = [palette[f"series-{i}"] for i in range(1, 7)]
    near = {(a, b): distance(a, b, eyes) for a, b in itertools.combinations(series, 2)}
    assert min(near.values()) > 15, sorted(near.items(), key=lambda pair: pair[1])[:3]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_a_contrast_of_4_5_and_lines_of_3(palette: dict[str, str]) -> None:
    pairs = [(name, ground) for name in ("ink", "soft", "link") for ground in ("paper", "raised", "wash")]
    pairs += [(tone, f"{tone}-wash") for tone in ("good", "bad", "warn")]
    assert [pair for pair in pairs if contrast(*(palette[name] for name in pair)) < 4.5] == []
    assert [i for i in range(1, 7) if contrast(palette[f"series-{i}"], palette["paper"]) < 3] == []
