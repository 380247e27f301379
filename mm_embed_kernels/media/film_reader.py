"""The reader of films' frames that is chosen: FFmpeg (PyAV), or decord where it gives the same frames.

FFmpeg is the default, since it is right wherever decord is and beyond (docs/explanation/film-readers.md).
"""

from __future__ import annotations

import os

from mm_embed_kernels.errors import unknown_choice

VARIABLE, FFMPEG, DECORD = "MM_FILM_READER", "ffmpeg", "decord"
FILM_READERS = (FFMPEG, DECORD)
# Packages by whose versions frames differ.
_LIBRARIES = {FFMPEG: ("av",), DECORD: ("av", "decord2")}


def film_reader() -> str:
    """Return the reader that ``MM_FILM_READER`` names.

    Raises:
        UserError: when it is none of `FILM_READERS`.
    """
    named = os.environ.get("MM_FILM_READER") or FFMPEG
    if named not in FILM_READERS:
        raise unknown_choice(VARIABLE, named, FILM_READERS)
    return named


def reader_libraries() -> tuple[str, ...]:
    """Return the packages of the chosen reader, as a kernel declares them: another reader, another result."""
    return _LIBRARIES[film_reader()]
