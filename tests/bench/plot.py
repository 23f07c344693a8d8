"""The figures as a picture: a bar for each median, on a scale where each step is ten times the one before. SVG."""

from __future__ import annotations

import math
from html import escape

from tests.bench.figures import Figure, Figures

_LABEL, _WIDTH, _ROW, _TOP = 330, 460, 24, 62
_LEAST, _MOST = 0.01, 1000.0  # seconds at the two ends of the scale
_COLOURS = {"floor": "#9aa4b2", "labctl": "#2f6fde", "peer": "#d97706"}
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2937 } .dim { fill: #6b7280; font-size: 11px }
.title { font-size: 16px; font-weight: 600 } line { stroke: #e5e7eb } .back { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .dim { fill: #9ca3af } line { stroke: #374151 }
.back { fill: #111827 } }
"""


def svg(figures: Figures, machine: str) -> str:
    """A picture of every figure that is a time; fastest readings are shorter bars."""
    shown = [figure for figure in figures.all.values() if figure.unit == "s"]
    height = _TOP + _ROW * len(shown) + 40
    width = _LABEL + _WIDTH + 170
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="labctl bench">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{width}" height="{height}" rx="8"/>',
        '<text class="title" x="16" y="28">What labctl costs, in seconds: medians</text>',
        f'<text class="dim" x="16" y="46">{escape(machine)}</text>',
    ]
    for exponent in range(int(math.log10(_LEAST)), int(math.log10(_MOST)) + 1):
        x = _place(10.0**exponent)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 30}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{height - 14}" text-anchor="middle">{10.0**exponent:g}</text>')
    for row, figure in enumerate(shown):
        parts += _bar(figure, figures.ratio(figure), _TOP + row * _ROW)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(figure: Figure, ratio: float | None, y: int) -> list[str]:
    end = _place(figure.median)
    kind = "peer" if figure.section == "peer" else "labctl" if figure.beside or figure.name.startswith("labctl") else ""
    colour = _COLOURS[kind or ("floor" if figure.name.startswith(("plain", "python")) else "labctl")]
    words = f"{figure.median:.2f} s" + (f"  ({ratio:.2f} ×)" if ratio is not None else "")
    return [
        f'<text x="{_LABEL - 10}" y="{y + 15}" text-anchor="end">{escape(figure.name)}</text>',
        f'<rect x="{_LABEL}" y="{y + 3}" width="{max(1.0, end - _LABEL):.1f}" height="{_ROW - 8}" rx="3" '
        f'fill="{colour}"/>',
        f'<text class="dim" x="{end + 6:.1f}" y="{y + 15}">{escape(words)}</text>',
    ]


def _place(seconds: float) -> float:
    span = math.log10(_MOST) - math.log10(_LEAST)
    share = (math.log10(min(max(seconds, _LEAST), _MOST)) - math.log10(_LEAST)) / span
    return _LABEL + share * _WIDTH
