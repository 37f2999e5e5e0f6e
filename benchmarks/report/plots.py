"""Bar charts as SVG, without a library: a few lines that are the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Group = tuple[str, Sequence[tuple[str, float]]]  # a label, and (series, value) from top to bottom

_COLOURS = ("#2c7fb8", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f")
_TEXT = "#777"  # readable on white and on black
_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _TOP = 760, 190, 90, 16, 14, 44


def bars(title: str, groups: Sequence[Group], *, logarithmic: bool = False) -> str:
    """Return horizontal bars in groups; a logarithmic axis begins at a power of ten below the least value."""
    series = list(dict.fromkeys(name for _, values in groups for name, _ in values))
    numbers = [value for _, values in groups for _, value in values if value > 0]
    least = 10.0 ** math.floor(math.log10(min(numbers)) - 0.3) if logarithmic else 0.0
    largest = max(numbers)

    def length(value: float) -> float:
        share = math.log(value / least) / math.log(largest / least) if logarithmic else value / largest
        return max(1.0, share * (_WIDTH - _LEFT - _RIGHT))

    parts, y = [_text(8, 18, title, size=14), *_legend(series)], _TOP
    for label, values in groups:
        parts.append(_text(_LEFT - 8, y + _BAR * len(values) / 2 + 4, label, anchor="end"))
        for name, value in values:
            colour = _COLOURS[series.index(name) % len(_COLOURS)]
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{length(value):.1f}" height="{_BAR - 3}" fill="{colour}"/>')
            parts.append(_text(_LEFT + length(value) + 6, y + _BAR - 5, f"{value:,.0f}", size=11))
            y += _BAR
        y += _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" font-family="sans-serif">'
    return "\n".join([head, *parts, "</svg>", ""])


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], 8.0
    for number, name in enumerate(series):
        parts.append(f'<rect x="{x:.0f}" y="26" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        parts.append(_text(x + 14, 35, name, size=11))
        x += 30 + 7 * len(name)
    return parts


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{_TEXT}" text-anchor="{anchor}">{escape(text)}</text>'
    )
