"""Charts as inline SVG that takes its colours from the page, so that they are right in the light and in the dark."""

import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 40
TICKS = 5


class Frame:
    """A pair of axes: places of values, ticks and names."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], names: tuple[str, str]) -> None:
        self.x, self.y = widened(*x), widened(*y)
        self.names = names

    def at(self, x: float, y: float) -> tuple[str, str]:
        """Return where a point is drawn."""
        across = LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f}", f"{up:.1f}"

    def svg(self, title: str, marks: str) -> str:
        """Return the chart with `marks` drawn into the frame."""
        parts = []
        for value in ticks(*self.x):
            x, y = self.at(value, self.y[0])
            parts.append(f'<text x="{x}" y="{float(y) + 15:.1f}" text-anchor="middle">{number(value)}</text>')
        for value in ticks(*self.y):
            x, y = self.at(self.x[0], value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{number(value)}</text>')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        across, up = map(html.escape, self.names)
        parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{across}</text>')
        parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{up}</text>')
        return drawing(title, WIDTH, HEIGHT, "".join(parts) + marks)


def drawing(title: str, width: float, height: float, marks: str) -> str:
    """Return an SVG element that says what it shows."""
    label = html.escape(title, quote=True)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{marks}</svg>'


def histogram(title: str, edges: Sequence[float], counts: Sequence[float], names: tuple[str, str]) -> str:
    """Return bars over the bins between `edges`."""
    frame = Frame((edges[0], edges[-1]), (0, max([*counts, 1])), names)
    return frame.svg(title, bars_between(frame, edges, counts))


def bars_between(frame: Frame, edges: Sequence[float], counts: Sequence[float]) -> str:
    """Return a bar for each bin."""
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        (x, top), (right, bottom) = frame.at(low, count), frame.at(high, 0)
        width, height = max(float(right) - float(x) - 1, 0.5), float(bottom) - float(top)
        parts.append(f'<rect class="mark" x="{x}" y="{top}" width="{width:.1f}" height="{height:.1f}"/>')
    return "".join(parts)


def scatter(
    title: str,
    points: Sequence[tuple[float, float]],
    names: tuple[str, str],
    *,
    diagonal: bool = False,
    level: float | None = None,
) -> str:
    """Return a dot for each point, with the line of equality or a level line for comparison."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (min(xs), max(xs)), (min(ys), max(ys))
    if diagonal:
        low = high = (min(*low, *high), max(*low, *high))
    frame = Frame(low, high, names)
    marks = ""
    if diagonal:
        marks += line(frame, [(low[0], low[0]), (low[1], low[1])], "ideal")
    if level is not None:
        marks += line(frame, [(low[0], level), (low[1], level)], "ideal")
    for point in points:
        x, y = frame.at(*point)
        marks += f'<circle class="dot" cx="{x}" cy="{y}" r="3"/>'
    return frame.svg(title, marks)


def reliability(title: str, points: Sequence[tuple[float, float]], names: tuple[str, str]) -> str:
    """Return the line through points of the unit square, and the line on which both are equal."""
    frame = Frame((0.0, 1.0), (0.0, 1.0), names)
    marks = line(frame, [(0, 0), (1, 1)], "ideal") + line(frame, points, "line")
    for point in points:
        across, up = frame.at(*point)
        marks += f'<circle class="mark" cx="{across}" cy="{up}" r="4"/>'
    return frame.svg(title, marks)


def bars(title: str, rows: Sequence[tuple[str, float, float]], name: str) -> str:
    """Return a horizontal bar for each (name, value, spread), the spread as a line at its end."""
    left, width, height = 130, WIDTH, 24
    low = min([0.0, *(value - spread for _, value, spread in rows)])
    high = max([*(value + spread for _, value, spread in rows), low + 1e-9])

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 56)

    parts = []
    for index, (label, value, spread) in enumerate(rows):
        y = index * height
        x, end = sorted((place(0), place(value)))
        short = label if len(label) <= 20 else label[:19] + "…"
        parts.append(f'<text class="strong" x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(short)}</text>')
        parts.append(f'<rect class="mark" x="{x:.1f}" y="{y + 4}" width="{max(end - x, 1):.1f}" height="14" rx="2"/>')
        low_end, high_end = place(value - spread), place(value + spread)
        parts.append(f'<line class="error" x1="{low_end:.1f}" x2="{high_end:.1f}" y1="{y + 11}" y2="{y + 11}"/>')
        parts.append(f'<text x="{max(end, high_end) + 6:.1f}" y="{y + 15}">{number(value)}</text>')
    bottom = len(rows) * height
    parts.append(f'<text x="{left}" y="{bottom + 14}">{html.escape(name)}</text>')
    return drawing(title, width, bottom + 20, "".join(parts))


def spark(title: str, counts: Sequence[float], names: Sequence[str]) -> str:
    """Return a small histogram without axes; `names` stand below its two ends."""
    width, height = 200, 70
    most = max([*counts, 1])
    step = width / max(len(counts), 1)
    parts = [
        f'<rect class="mark" x="{index * step:.1f}" y="{height - count / most * height:.1f}" '
        f'width="{max(step - 1, 0.5):.1f}" height="{count / most * height:.1f}"/>'
        for index, count in enumerate(counts)
    ]
    parts.append(f'<text x="0" y="{height + 14}">{html.escape(names[0])}</text>')
    parts.append(f'<text x="{width}" y="{height + 14}" text-anchor="end">{html.escape(names[1])}</text>')
    return drawing(title, width, height + 18, "".join(parts))


def line(frame: Frame, points: Sequence[tuple[float, float]], style: str) -> str:
    """Return a line through points."""
    return f'<polyline class="{style}" points="{" ".join(",".join(frame.at(*point)) for point in points)}"/>'


def widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that isn't empty."""
    if high > low:
        return low, high
    return low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5


def ticks(low: float, high: float) -> list[float]:
    """Return some round values of a range."""
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number as it stands at an axis."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"
