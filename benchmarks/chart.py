"""The chart for the README and docs/benchmarks.md: an SVG in light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from benchmarks.contenders import BARE_ONNX, CONTENDERS, EMPTY, GENERATED, MANY_INSTANCES, SERVING, USUAL_WAY
from benchmarks.files import FASTER_AT_LEAST, ROWS, FileResults
from benchmarks.rounds import Figure, Figures

NAMES = {GENERATED: "generated", EMPTY: "empty", BARE_ONNX: "bare ONNX", USUAL_WAY: "usual way"}

# A phone shows 440 units on some 360 pixels: 15 units are 12 pixels of text.
WIDTH = 440
MARGIN = 12
BARS_FROM = 104
LONGEST_BAR = 236
BAR = 18
STEP = 25
TITLE = 30
GAP = 16

STYLE = """
    svg { --ground: #ffffff; --ink: #1f2933; --soft: #55606d; --ours: #1f5fbf; --others: #b4bfcb }
    @media (prefers-color-scheme: dark) {
      svg { --ground: #161b22; --ink: #e8edf2; --soft: #a9b4c0; --ours: #7fb2ff; --others: #566270 }
    }
    text { font-family: -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; font-size: 15px }
    text { fill: var(--ink) }
    .ground { fill: var(--ground) }
    .title { font-weight: 600 }
    .soft { fill: var(--soft) }
    .ours { fill: var(--ours) }
    .others { fill: var(--others) }
"""


class Bar(NamedTuple):
    """What one contender took, and how that is written."""

    contender: str
    value: float
    text: str


class Panel(NamedTuple):
    """Bars that are compared; `better` says which are, the short or the long ones."""

    title: str
    better: str
    bars: list[Bar]


def draw(figures: Mapping[str, Figures], files: FileResults) -> str:
    """Return the chart as SVG."""
    panels = [
        panel("Cold start", figures, CONTENDERS, "cold_start", "{:.3f} s"),
        panel("Warm call", figures, CONTENDERS, "warm_call", "{:.2f} ms"),
        panel(f"{MANY_INSTANCES:,} instances, in the handler", figures, SERVING, "large_alone", "{:.1f} ms"),
        panel("Memory", figures, CONTENDERS, "memory", "{:.0f} MB"),
        *(file_panel(model, files) for model in FASTER_AT_LEAST),
    ]
    top = MARGIN
    drawn = []
    for each in panels:
        drawn.append(draw_panel(each, top))
        top += TITLE + STEP * len(each.bars) + GAP
    height = top - GAP + MARGIN
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" \
aria-labelledby="title description">
  <title id="title">What the generated handler takes, compared with others</title>
  <desc id="description">{escape(in_words(panels))}</desc>
  <style>{STYLE}  </style>
  <rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>
{"".join(drawn)}</svg>
"""


def panel(title: str, figures: Mapping[str, Figures], names: tuple[str, ...], figure: Figure, written: str) -> Panel:
    """Return the panel of one figure, which `written` formats."""
    values = {name: figures[name].typical(figure) for name in names}
    return Panel(title, "less is better", [Bar(name, value, written.format(value)) for name, value in values.items()])


def file_panel(model: str, files: FileResults) -> Panel:
    """Return the panel of how many rows of a file are scored in a second."""
    speeds = {name: ROWS / files.figures[model][name].seconds for name in (GENERATED, USUAL_WAY)}
    bars = [Bar(name, speed, f"{speed / 1000:,.0f} k") for name, speed in speeds.items()]
    return Panel(f"CSV rows/s, {model}", "more is better", bars)


def draw_panel(panel: Panel, top: int) -> str:
    """Return a title and the bars below it."""
    longest = max(bar.value for bar in panel.bars)
    lines = [
        f'  <text x="{MARGIN}" y="{top + 16}"><tspan class="title">{escape(panel.title)}</tspan>'
        f'<tspan class="soft"> · {panel.better}</tspan></text>\n'
    ]
    for place, bar in enumerate(panel.bars):
        y = top + TITLE + STEP * place
        width = max(round(LONGEST_BAR * bar.value / longest, 1), 1)
        kind = "ours" if bar.contender == GENERATED else "others"
        weight = ' class="title"' if bar.contender == GENERATED else ""
        lines += [
            f'  <text{weight} x="{MARGIN}" y="{y + 14}">{NAMES[bar.contender]}</text>\n',
            f'  <rect class="{kind}" x="{BARS_FROM}" y="{y}" width="{width}" height="{BAR}" rx="2"/>\n',
            f'  <text{weight} x="{BARS_FROM + width + 6:.1f}" y="{y + 14}">{bar.text}</text>\n',
        ]
    return "".join(lines)


def in_words(panels: list[Panel]) -> str:
    """Return the chart as sentences, for those who don't see it."""
    sentences = []
    for each in panels:
        values = ", ".join(f"{NAMES[bar.contender]} {bar.text}" for bar in each.bars)
        sentences.append(f"{each.title} ({each.better}): {values}.")
    return " ".join(sentences)
