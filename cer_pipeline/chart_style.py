"""The common style of all pictures (colours, fonts, size), and untrusted text as printable text.

Belongs here: what every picture shares, and the escaping of text for pictures and the terminal. Does not belong here:
the content of a picture.

matplotlib is imported inside functions: the import takes a second, and few callers draw.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final[dict[str, str]] = {
    "Neutral": "#C9CDD2",
    "Anger": "#D55E00",
    "Disgust": "#009E73",
    "Fear": "#8E5BA6",
    "Happiness": "#F2C230",
    "Sadness": "#0072B2",
    "Surprise": "#56B4E9",
    "Other": "#6B7280",
}
"""Colour of every basic emotion: the palette of Okabe and Ito (2008), which is distinguishable with any colour vision,
with a darker purple for Fear, and greys for Neutral and Other."""

INK: Final = "#1F2933"  # text
QUIET: Final = "#6B7785"  # secondary text
LINE: Final = "#D9DEE4"  # rules and empty cells
PAPER: Final = "#FFFFFF"
EMPTY: Final = "#F3F5F7"  # no value

_RC: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so that pictures are the same on all machines
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.parse_math": False,  # a "$" in a file name does not start a formula
    "savefig.facecolor": PAPER,
}


def figure(width: int, height: int) -> Figure:
    """Return a figure at 100 dpi that needs no window system and no global state.

    Args:
        width: pixels.
        height: pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(made)
    return made


def settings() -> AbstractContextManager[None]:
    """Return the context manager in which every picture is drawn."""
    from matplotlib import rc_context

    return rc_context(_RC)


def png(made: Figure) -> bytes:
    """Return a figure as PNG, the same bytes on every run."""
    stream = io.BytesIO()
    made.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def printable(text: str, is_shown: Callable[[str], bool] = str.isprintable) -> str:
    r"""Return untrusted text as one line, with other characters escaped as in Python: \n, \x1b, \u202e, \U0001f98a.

    Line breaks, control characters and marks that change the direction of writing are not printable. A byte that is
    not UTF-8, which Python carries in file names as a surrogate, becomes \xff.

    Args:
        text: a file name, a transcript, a caption, a reason.
        is_shown: whether a character is kept.
    """
    return "".join(c if is_shown(c) else _escaped(c) for c in text)


def drawable(text: str, limit: int = 80) -> str:
    """Return untrusted text as one line of characters that the font has; a longer text is cut in the middle.

    Args:
        text: see `printable`.
        limit: maximum length of the result, characters.
    """
    shown = printable(text, lambda c: c == " " or (c.isprintable() and ord(c) in _glyphs()))
    if len(shown) <= limit:
        return shown
    tail = (limit - 1) // 3
    return f"{shown[: limit - 1 - tail]}…{shown[len(shown) - tail :]}"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def faded(colour: str, strength: float) -> str:
    """Return a colour mixed with `EMPTY`: strength 1 is the colour, 0 is `EMPTY`."""
    mixed = [
        round(strength * int(colour[i : i + 2], 16) + (1 - strength) * int(EMPTY[i : i + 2], 16)) for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02X}" for value in mixed)


def ink_on(colour: str) -> str:
    """Return white or `INK`, whichever has the higher contrast on a colour (relative luminance, WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if (1.05 / (luminance + 0.05)) > ((luminance + 0.05) / 0.05) else INK
