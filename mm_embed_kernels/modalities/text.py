"""Text: detect the encoding and decode to Unicode; measure length, symbols and language; cut into chunks."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media import canaries
from mm_embed_kernels.media.language import detect_language
from mm_embed_kernels.media.media_type import Media, head_of, is_printable
from mm_embed_kernels.media.text_encoding import decode
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, Modality, Preview, Segment
from mm_embed_kernels.signals.text import text_signals
from mm_embed_kernels.similarity import shingles

# MiniLM-class models read 256 word pieces, about 1,000 characters of English.
CHUNK_CHARACTERS = 1_000


class Text(Modality):
    """Plain text in any encoding that can be detected."""

    name = "text"
    embedder = "minilm"
    hub_embedder = "st:sentence-transformers/all-MiniLM-L6-v2"
    libraries = (
        "chardet",
        "filetype",
        "ftfy",
        "phonenumbers",
        "py3langid",
        "rensa",
        "semantic-text-splitter",
    )
    probe_seconds = 0.0003
    probe_version = "6"
    segment_version = "5"
    segment_seconds = 0.0003
    signals: ClassVar[list[pa.Field]] = [
        field("encoding", pa.string(), "detected encoding of the bytes"),
        field(
            "read_share",
            pa.float64(),
            "bytes that form whole characters: below 1 where the text ends inside one (see on_partial)",
        ),
        field("characters", pa.int64(), "characters without surrounding white space", ge=0),
        field("words", pa.int64(), "white-space separated words", ge=0),
        field(
            "language_confidence",
            pa.float64(),
            "probability of the detected language (py3langid)",
            ge=0,
            le=1,
        ),
        field(
            "letter_share", pa.float64(), "letters among the characters that are not white space", ge=0, le=1
        ),
        field(
            "digit_share", pa.float64(), "digits among the characters that are not white space", ge=0, le=1
        ),
        field(
            "symbol_share",
            pa.float64(),
            "neither letters nor digits among the characters that are not white space",
            ge=0,
            le=1,
        ),
        field("distinct_word_share", pa.float64(), "distinct words among the words", ge=0, le=1),
        field("replacement_characters", pa.int64(), "U+FFFD: traces of an earlier wrong decoding", ge=0),
        field(
            "duplicate_line_share",
            pa.float64(),
            "lines that repeat an earlier one, among the lines that are not empty",
            ge=0,
            le=1,
        ),
        field(
            "repeated_5gram_share",
            pa.float64(),
            "characters in sequences of five words that occur more than once",
            ge=0,
            le=1,
        ),
        field(
            "boilerplate_share",
            pa.float64(),
            "characters in lines of web boilerplate: cookies, terms, lorem ipsum",
            ge=0,
            le=1,
        ),
        field(
            "mojibake", pa.int64(), "sequences that look like text decoded with a wrong encoding (ftfy)", ge=0
        ),
        field("emails", pa.int64(), "e-mail addresses", ge=0),
        field("phone_numbers", pa.int64(), "phone numbers in international form (phonenumbers)", ge=0),
        field("ip_addresses", pa.int64(), "public IP addresses", ge=0),
        *shingles.SIGNALS,
    ]

    packed = shingles.PACKED

    def canary(self) -> bytes:
        return canaries.WORDS.encode()

    def claims(self, mime: str) -> bool:
        return mime.startswith("text/")

    def require(self, data: Media) -> str:
        """Return the media type; printable content is text here, whatever signature it begins with."""
        head = head_of(data)
        return "text/plain" if head and is_printable(head) else super().require(data)

    def probe(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: bytes, whole: bool) -> dict[str, Any]:
        """Return the row of a text; unless it must be `whole`, of its whole characters."""
        # An empty text is a valid sample, which the rule `empty` drops.
        mime = self.require(data) if data else "text/plain"
        text, encoding, left = decode(data)
        if left and whole:
            raise SampleError(
                "truncated",
                f"the text ends inside a character: {left} of {len(data):,} bytes are left over ({encoding})",
            )
        body = text.strip()
        words = body.split()
        solid, letters, digits = (
            sum(map(len, words)),
            sum(map(str.isalpha, body)),
            sum(map(str.isdigit, body)),
        )
        total = max(1, solid)
        language, confidence = detect_language(body) if letters else (None, None)
        minhash, sketch = shingles.signature(body)
        return {
            "mime": mime,
            "language": language,
            "encoding": encoding,
            "read_share": 1 - left / max(1, len(data)),
            "characters": len(body),
            "words": len(words),
            "language_confidence": confidence,
            "letter_share": letters / total,
            "digit_share": digits / total,
            "symbol_share": (solid - letters - digits) / total,
            "distinct_word_share": len({word.casefold() for word in words}) / max(1, len(words)),
            "replacement_characters": body.count("\ufffd"),
            **text_signals(body, words),
            "minhash": minhash,
            "shingles": sketch,
        }

    def segment(self, data: bytes) -> list[Segment]:
        text, _, _ = decode(data)
        return [
            Segment(span=f"chars={start}-{start + len(chunk)}", text=chunk, cost=len(chunk))
            for start, chunk in _splitter().chunk_indices(text)
        ]

    def preview(self, data: bytes) -> Preview:
        return Preview(text=decode(data)[0][:PREVIEW_CHARS])


@cache
def _splitter() -> Any:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(CHUNK_CHARACTERS)
