"""The still picture of an animated PNG, which is shown where the animation is damaged."""

from __future__ import annotations

from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def still_png(data: bytes) -> bytes | None:
    """Return a PNG without the chunks of its animation (PNG, 3rd edition, 11.3.6); None where it has none."""
    if not data.startswith(_SIGNATURE):
        return None
    chunks = list(_chunks(data))
    kept = [content for name, content in chunks if name not in _ANIMATION]
    return _SIGNATURE + b"".join(kept) if len(kept) < len(chunks) else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Stream name and bytes of each chunk; the last one may be cut off."""
    place = len(_SIGNATURE)
    while place < len(data):
        size = 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place : place + size]
        place += size
