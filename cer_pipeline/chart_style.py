"""One look for all pictures: a fixed colour per label, safe text, no window system.

Belongs here: colours, fonts, and making untrusted text harmless. Does not belong here: any particular picture.

matplotlib is imported inside functions: it takes a second, and only a few callers draw.
"""

from __future__ import annotations

import io
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
"""Colour of every basic emotion: hues of Okabe and Ito (2008), which people with any colour vision tell apart, with a
darker purple for Fear, and greys for the two labels without an emotion."""

INK: Final = "#1F2933"  # text
QUIET: Final = "#6B7785"  # secondary text
LINE: Final = "#D9DEE4"  # rules and empty cells
PAPER: Final = "#FFFFFF"
EMPTY: Final = "#F3F5F7"  # where there is nothing

_RC: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so that pictures look the same everywhere
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
    "text.parse_math": False,  # a "$" in a file name is no formula
    "savefig.facecolor": PAPER,
}


def figure(width: int, height: int) -> Figure:
    """A figure of some pixels at 100 dpi, drawn without a window system and without any global state.

    Args:
        width: pixels.
        height: pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(made)
    return made


def settings():
    """Context in which every picture is made."""
    from matplotlib import rc_context

    return rc_context(_RC)


def png(made: Figure) -> bytes:
    """A figure as PNG, the same bytes on every run."""
    stream = io.BytesIO()
    made.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def safe(text: str, limit: int = 80) -> str:
    r"""Untrusted text as one line that shows what it holds.

    Line breaks, control characters, marks that change the direction of writing, bytes that are no text and signs that
    the font lacks are written as \x0a or \u{1f600}; what is too long is cut in the middle.

    Args:
        text: a file name, a word that was heard, a reason.
        limit: longest result, characters.
    """
    shown = "".join(c if _drawable(c) else _escaped(c) for c in text)
    if len(shown) <= limit:
        return shown
    tail = (limit - 1) // 3
    return f"{shown[: limit - 1 - tail]}…{shown[len(shown) - tail :]}"


def _drawable(character: str) -> bool:
    return character == " " or (character.isprintable() and ord(character) in _glyphs())


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python carries it in names
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def faded(colour: str, strength: float) -> str:
    """A colour mixed with `EMPTY`: 1 leaves it as it is, 0 takes all of it away."""
    mixed = [
        round(strength * int(colour[i : i + 2], 16) + (1 - strength) * int(EMPTY[i : i + 2], 16)) for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02X}" for value in mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on a colour (relative luminance, WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if (1.05 / (luminance + 0.05)) > ((luminance + 0.05) / 0.05) else INK
