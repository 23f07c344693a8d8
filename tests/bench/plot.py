"""The figures as a picture: a bar for each median, on a scale where each step is ten times the one before. SVG.

It has a ground of its own and follows the viewer's choice of light or dark, so it is legible on any page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from tests.bench.figures import Figure, Figures

_LABEL, _SCALE, _WORDS, _ROW, _HEAD, _TOP = 320, 420, 140, 22, 34, 112
_LEAST, _MOST = 0.01, 1000.0  # seconds at the two ends of the scale
_MEANING = {"floor": "plain Python, plain QEMU", "labctl": "labctl", "peer": "Vagrant with libvirt"}
_STYLE = """
text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2937 }
.dim { fill: #4b5563; font-size: 11.5px } .title { font-size: 17px; font-weight: 600 }
.section { font-size: 13.5px; font-weight: 600 } line { stroke: #d1d5db }
.back { fill: #ffffff; stroke: #d1d5db } .floor { fill: #8b95a5 } .labctl { fill: #2f6fde } .peer { fill: #d97706 }
@media (prefers-color-scheme: dark) { text { fill: #f3f4f6 } .dim { fill: #b6bdc9 } line { stroke: #374151 }
.back { fill: #111827; stroke: #374151 } .floor { fill: #7c8798 } .labctl { fill: #5b93f5 } .peer { fill: #f59e0b } }
"""


def svg(figures: Figures, machine: Mapping[str, str], failed: Sequence[str]) -> str:
    """A picture of every figure: times as bars, the rest as numbers. Shorter is better, everywhere."""
    body: list[str] = []
    y = _TOP
    for section, members in groupby(_in_sections(figures), key=lambda figure: figure.section):
        body.append(f'<text class="section" x="16" y="{y + 22}">{escape(section)}</text>')
        y += _HEAD
        for figure in members:
            body += _row(figure, figures.ratio(figure), y)
            y += _ROW
    if failed:
        body.append(f'<text x="16" y="{y + 24}">Could not be measured: {escape(", ".join(failed))}</text>')
        y += _HEAD
    width, height = _LABEL + _SCALE + _WORDS, y + 40
    return "\n".join([*_frame(width, height, figures, machine), *_grid(height), *body, "</svg>"]) + "\n"


def _in_sections(figures: Figures) -> list[Figure]:
    """Sections in the order in which they were measured, the figures of each together."""
    order = list(dict.fromkeys(figure.section for figure in figures))
    return sorted(figures, key=lambda figure: order.index(figure.section))


def _frame(width: int, height: int, figures: Figures, machine: Mapping[str, str]) -> list[str]:
    runs = max((len(figure.values) for figure in figures), default=0)
    about = [f"{machine['computer']}; {machine['system']}", f"{machine['engine']}; labctl {machine['labctl']}"]
    about[1] += f"; {machine['day']}; medians of up to {runs} runs; × is the ratio to the grey or orange bar above"
    legend: list[str] = []
    x = _LABEL
    for kind, words in _MEANING.items():
        legend.append(f'<rect class="{kind}" x="{x}" y="82" width="12" height="12" rx="3"/>')
        legend.append(f'<text x="{x + 18}" y="93">{words}</text>')
        x += 40 + 7 * len(words)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="What labctl costs">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        '<text class="title" x="16" y="30">What labctl costs, beside what lies beneath it; shorter is better</text>',
        *(f'<text class="dim" x="16" y="{50 + 17 * n}">{escape(line)}</text>' for n, line in enumerate(about)),
        *legend,
    ]


def _grid(height: int) -> list[str]:
    lines: list[str] = []
    for exponent in range(round(math.log10(_LEAST)), round(math.log10(_MOST)) + 1):
        x = _place(10.0**exponent)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 32}"/>')
        words = f"{10.0**exponent:g} s"
        lines.append(f'<text class="dim" x="{x:.1f}" y="{height - 14}" text-anchor="middle">{words}</text>')
    return lines


def _row(figure: Figure, ratio: float | None, y: int) -> list[str]:
    words = f"{figure.median:.{_digits(figure.median)}f} {figure.unit}"
    label = f'<text x="{_LABEL - 10}" y="{y + 14}" text-anchor="end">{escape(figure.name)}</text>'
    if figure.unit != "s":
        return [label, f'<text x="{_LABEL + 6}" y="{y + 14}">{words}</text>']
    if ratio is not None:
        words += f" = {ratio:.{_digits(ratio)}f} ×"
    end = _place(figure.median)
    kind = "floor" if figure.floor else "peer" if figure.name.startswith("vagrant") else "labctl"
    length = max(1.0, end - _LABEL)
    return [
        label,
        f'<rect class="{kind}" x="{_LABEL}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 6}" rx="3"/>',
        f'<text x="{end + 7:.1f}" y="{y + 14}">{words}</text>',
    ]


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def _place(seconds: float) -> float:
    span = math.log10(_MOST) - math.log10(_LEAST)
    share = (math.log10(min(max(seconds, _LEAST), _MOST)) - math.log10(_LEAST)) / span
    return _LABEL + share * _SCALE
