"""Values of a FITS picture by its header: Pillow reads neither their zero and scale nor their axes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mm_embed_kernels.errors import SampleError

_BLOCK, _MOST_BLOCKS = 2_880, 64
_CARD = re.compile(rb"(BITPIX|NAXIS\d?|BZERO|BSCALE|BLANK) *= *([-+0-9.EeDd]+)")


@dataclass(frozen=True)
class FitsValues:
    """A value is ``zero + scale * stored`` (FITS standard 4.0, 4.4.2.5).

    Attributes:
        zero: value of a stored zero.
        scale: of stored values.
        blank: stored integer that is no value, or None.
    """

    zero: float = 0.0
    scale: float = 1.0
    blank: float | None = None


def fits_values(data: bytes) -> FitsValues:
    """Return how the values of a FITS file are stored.

    Raises:
        SampleError: ``unsupported_format`` for a cube, such as one of colors.
    """
    cards: dict[str, float] = {}
    for at in range(0, min(len(data), _MOST_BLOCKS * _BLOCK), 80):
        card = data[at : at + 80]
        if card[:8] == b"END     ":
            if cards.get("NAXIS"):
                break
            cards.clear()  # a header without a picture, which the next one holds
        if (found := _CARD.match(card)) and found[1].decode() not in cards:
            try:
                cards[found[1].decode()] = float(found[2].upper().replace(b"D", b"E"))
            except ValueError:
                continue
    axes = [int(cards.get(f"NAXIS{number}", 1)) for number in range(1, int(cards.get("NAXIS", 2)) + 1)]
    if any(length > 1 for length in axes[2:]):
        size = " x ".join(f"{length:,}" for length in axes)
        raise SampleError(
            "unsupported_format", f"a FITS file of {len(axes)} axes ({size}); only pictures of two are read"
        )
    return FitsValues(cards.get("BZERO", 0.0), cards.get("BSCALE", 1.0) or 1.0, cards.get("BLANK"))
