"""Colors of XPM pictures in the one form that Pillow reads right: six hexadecimal digits, or None."""

from __future__ import annotations

import re

# A line of the table of colors, up to the color of the key `c`.
_COLOR = re.compile(rb'(?m)(^\s*"[^"\n]*?[ \t]c[ \t]+)(#[0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*)(?=[ \t"])')
# Lines between those of the table that say nothing, which Pillow takes for colors.
_EMPTY = re.compile(rb"(?m)^[ \t]*(?:/\*[^\n]*\*/)?[ \t]*\r?\n")
# Names that X11 defines otherwise than CSS does.
_X11 = {"gray": "bebebe", "grey": "bebebe", "green": "00ff00", "maroon": "b03060", "purple": "a020f0"}


def plain_xpm(data: bytes) -> bytes:
    """Return an XPM file whose colors have six digits, of which Pillow reads the last, and no names."""
    head, rest = data[:9], _EMPTY.sub(b"", data[9:])
    return head + b"\n" + _COLOR.sub(lambda match: match[1] + _plain(match[2].decode()).encode(), rest)


def _plain(color: str) -> str:
    """Return a color as `#RRGGBB`; what is none, as it is."""
    from PIL import ImageColor

    if color.startswith("#"):
        digits, third = color[1:], len(color[1:]) // 3
        if len(digits) not in (3, 6, 9, 12):
            return color
        parts = (digits[place : place + third] for place in range(0, len(digits), third))
        return "#" + "".join(part[:2] if third > 1 else part * 2 for part in parts)
    name = color.lower()
    if shade := re.fullmatch(r"gr[ae]y(\d{1,2}|100)", name):
        return "#" + f"{int(int(shade[1]) * 2.55 + 0.5):02x}" * 3
    known = _X11.get(name) or ImageColor.colormap.get(name)
    return f"#{str(known).lstrip('#')}" if known else color
