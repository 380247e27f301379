"""Media types by content: a blob's bytes, and the type that its first bytes have."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from collections.abc import Hashable
from pathlib import Path
from typing import BinaryIO

from mm_embed_kernels.media.signatures import media_type_of
from mm_embed_kernels.media.text_encoding import escaped_text, wide_encoding

# A blob: its bytes, or a local file of them where they are too many for memory.
Media = bytes | Path

HEAD_BYTES = 8192

_TEXT_LIKE = {"application/json", "application/xml", "application/x-ndjson"}
# Formats whose signature is a word or some letters ("BM", "MAC ", "BZh", or a G every 188 bytes, as in a
# genome), but for those that may be written in ASCII themselves, and two of four letters that no text has.
_WORD_SIGNATURES = re.compile(
    r"(image|audio|video)/(?!fits$|ogg$|x-flac$|x-portable-anymap$|x-x(pix|bit)map$|x-yuv4mpeg$|vnd\.radiance$)"
    r"|application/x-(bzip2|msdownload|shockwave-flash)$"
)
# Control characters that no text holds.
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\r\f\x1b\b")
# An Ogg file begins with one page for each stream, which names the codec.
_OGG_VIDEO = re.compile(rb"OggS.{24,280}?(\x80theora|BBCD\0|OVP80|\x01video\0)", re.DOTALL)


def open_media(data: Media) -> BinaryIO:
    """Open a seekable stream over a blob, for the caller to close."""
    return data.open("rb") if isinstance(data, Path) else io.BytesIO(data)


def content_key(data: Media) -> Hashable:
    """Return a key that identifies a blob: the digest of bytes, the state of a file."""
    if isinstance(data, bytes):
        return hashlib.blake2b(data).digest()
    info = data.stat()
    return data, info.st_size, info.st_mtime_ns


def head_of(data: Media) -> bytes:
    """Return the first bytes of a blob, by which its media type is decided."""
    with open_media(data) as stream:
        return stream.read(HEAD_BYTES)


def sniff(head: bytes) -> str:
    """Return the media type of a blob's first bytes.

    By the signatures of the `filetype` library and of `signatures`, else by whether the bytes are text.
    """
    import filetype

    if not head:
        return "application/x-empty"
    if head[128:132] == b"DICM":  # the bytes before it are free, and often a TIFF's signature
        return "application/dicom"
    kind = filetype.guess(head)
    # A text that begins with such a word is no picture, no sound and no program.
    mime = str(kind.mime) if kind else media_type_of(head)
    is_text = mime is not None and _WORD_SIGNATURES.match(mime) is not None and is_printable(head)
    if mime is not None and mime not in _TEXT_LIKE and not is_text:
        return "video/ogg" if mime == "audio/ogg" and _OGG_VIDEO.search(head) else mime
    if head.lstrip()[:256].lower().startswith((b"<svg", b"<?xml")) and b"<svg" in head.lower():
        return "image/svg+xml"
    return "text/plain" if _reads_as_text(head) else "application/octet-stream"


def is_printable(head: bytes) -> bool:
    """Return whether the head is UTF-8 without control characters; its last character may be cut off."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return "\ufffd" not in text and "".join(text.split()).isprintable()


def _reads_as_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return True  # UTF-16 or UTF-32 with a byte order mark
    if b"\0" in head:
        return wide_encoding(head) is not None
    # The last character of a longer text may be cut off.
    if b"\x0e" in head and (escaped_text(head) or (len(head) == HEAD_BYTES and escaped_text(head[:-1]))):
        return True
    control = len(head) - len(head.translate(None, _CONTROL))
    return control <= len(head) // 100
