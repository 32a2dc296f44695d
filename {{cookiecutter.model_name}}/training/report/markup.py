"""Pieces of HTML that all sections are made of."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST_TEXT = 300
# Where there is nothing to show.
NONE = "\N{EN DASH}"


class Section(NamedTuple):
    """What the report says of one truth: a title, boxes side by side, and what stands below them."""

    title: str
    boxes: list[str]
    below: str


def escaped(value: object) -> str:
    """Return a value as text that is safe in HTML."""
    return html.escape(str(value))


def panel(title: str, content: str, note: str = "", *, broad: bool = False) -> str:
    """Return a titled box; a broad one has its line to itself."""
    below = f"<p>{escaped(note)}</p>" if note else ""
    return f'<div class="panel{" broad" if broad else ""}"><h3>{escaped(title)}</h3>{content}{below}</div>'


def panels(*boxes: str, small: bool = False) -> str:
    """Return boxes, side by side where there is room."""
    return f'<div class="panels{" small" if small else ""}">{"".join(box for box in boxes if box)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Return a table of cells that are HTML; the first of each row is its name."""
    top = "".join(f"<th>{escaped(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f'<div class="wide"><table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def shown(value: Any) -> str:
    """Return a value of a table as people read it, as HTML."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NONE
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        return picture(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        value = float(value)
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(entry) for entry in value[:6]) + (", …" if len(value) > 6 else "") + "]"
    text = str(value)
    return escaped(text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…")


def cell(value: Any) -> str:
    """Return a table cell; text is set to the left and may wrap."""
    style = ' class="text"' if isinstance(value, str) and len(value) > 30 else ""
    return f"<td{style}>{shown(value)}</td>"


def picture(pixels: npt.NDArray[Any]) -> str:
    """Return a decoded picture as an image inside the page."""
    from PIL import Image  # only a model that takes pictures has it

    image = Image.fromarray(pixels)
    image.thumbnail((192, 192))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img class="picture" alt="" src="data:image/png;base64,{content}">'
