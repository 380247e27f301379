"""Headers of HTTP responses, within bounds: a server may send any bytes and claim any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm_embed_kernels.escapes import escape_surrogates

if TYPE_CHECKING:
    from aiohttp import ClientResponse

# 2^63 has 19 digits.
_DIGITS = 18


def entity_tag(response: ClientResponse) -> str:
    """Return the entity tag, weak or strong, else date and size."""
    etag = _header(response, "ETag").removeprefix("W/").strip()
    return etag or "-".join(
        filter(None, (_header(response, "Last-Modified"), _header(response, "Content-Length")))
    )


def validator_of(response: ClientResponse) -> str:
    """Return the value for If-Range; "" where nothing proves that a range belongs to the same object."""
    etag = response.headers.get("ETag", "")
    # Ranges of a body in a content coding count its coded bytes, which are not the bytes that are stored.
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return "" if encoded or etag.startswith("W/") else etag


def whole_size(response: ClientResponse) -> int | None:
    """Return the bytes of the whole object, if the response states it."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    size = size or response.headers.get("Content-Length", "")
    return int(size) if is_byte_count(size) else None


def _header(response: ClientResponse, name: str) -> str:
    """Return a header as text; a server may send any bytes."""
    return escape_surrogates(response.headers.get(name, ""))


def is_byte_count(text: str) -> bool:
    """Return whether a header's text is a number of bytes that a table can hold."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
