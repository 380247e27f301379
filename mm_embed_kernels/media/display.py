"""Frames as a player displays them: the display matrix of the film, and the shape of its pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# Terms a, b, c, d of a display matrix (ISO/IEC 14496-12, `tkhd`) by EXIF orientation.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
# A wider or narrower pixel is an error of the header.
_MOST_ASPECT = 8.0
_THUMBNAIL = (16, 12)


@dataclass(frozen=True, eq=False)
class Display:
    """Orientation and size of the displayed frames of a film.

    Attributes:
        orientation: of the stored frames, 1 to 8 as in EXIF.
        width: pixels of a stored frame, stretched so that they are square.
        height: likewise.
        first: uint8, thumbnail of the first frame as displayed.
    """

    orientation: int
    width: int
    height: int
    first: np.ndarray[Any, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a displayed frame."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def pixels(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
        """Return an `av.VideoFrame` as displayed, uint8 [height, width, 3]; by default in its own size."""
        width, height = size or self.size
        if self.orientation >= 5:
            width, height = height, width
        return turn_frame(frame.to_ndarray(format="rgb24", width=width, height=height), self.orientation)

    def resembles_first(self, frame: np.ndarray[Any, Any]) -> bool:
        """Return whether a frame is the first one, read by another decoder."""
        from PIL import Image

        small = np.asarray(Image.fromarray(frame).resize(_THUMBNAIL, Image.Resampling.BOX), int)
        return bool(np.abs(small - self.first).mean() < 16)


def display_of(track: Any, frame: Any) -> Display:
    """Return the display of a film.

    Args:
        track: `av.VideoStream`.
        frame: its first `av.VideoFrame`.
    """
    from PIL import Image

    aspect = float(track.sample_aspect_ratio or 1)
    if not 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:
        aspect = 1.0
    width, height = max(1, round(frame.width * aspect)), frame.height
    plain = Display(_orientation(frame), width, height, np.zeros(0))
    first = Image.fromarray(plain.pixels(frame)).resize(_THUMBNAIL, Image.Resampling.BOX)
    return Display(plain.orientation, width, height, np.asarray(first, int))


def _orientation(frame: Any) -> int:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    most = max(abs(a), abs(b), abs(c), abs(d), 1)
    return _ORIENTATIONS.get((round(a / most), round(b / most), round(c / most), round(d / most)), 1)


def turn_frame(pixels: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """Return [height, width, ...] of an EXIF orientation as it is displayed."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = orientation in (3, 4, 7, 8)
    columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])
