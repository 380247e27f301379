"""Text: decoded to Unicode by detection, described by length, symbol and language signals, cut into chunks."""

from __future__ import annotations

import codecs
from collections import Counter
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities.base import Media, Modality, Segment, head_of, is_printable

# MiniLM-class models read 256 word pieces, about 1,000 characters of English.
CHUNK_CHARACTERS = 1_000
_LANGUAGE_CHARACTERS = 2_000


class Text(Modality):
    """Plain text in any encoding that can be detected."""

    name = "text"
    embedder = "minilm"
    hub_embedder = "st:sentence-transformers/all-MiniLM-L6-v2"
    libraries = ("charset-normalizer", "py3langid", "semantic-text-splitter", "filetype")
    probe_seconds = 0.0003
    segment_seconds = 0.0003
    signals: ClassVar[list[pa.Field]] = [
        field("encoding", pa.string(), "encoding of the bytes, as detected"),
        field("characters", pa.int64(), "characters, surrounding white space left out", ge=0),
        field("words", pa.int64(), "white-space separated words", ge=0),
        field("language_confidence", pa.float64(), "probability of the detected language (py3langid)", ge=0, le=1),
        field("letter_share", pa.float64(), "letters among the characters that are not white space", ge=0, le=1),
        field("digit_share", pa.float64(), "digits among them", ge=0, le=1),
        field("symbol_share", pa.float64(), "neither letters nor digits among them", ge=0, le=1),
        field("distinct_word_share", pa.float64(), "distinct words among the words", ge=0, le=1),
        field("replacement_characters", pa.int64(), "U+FFFD: traces of an earlier wrong decoding", ge=0),
    ]

    def claims(self, mime: str) -> bool:
        return mime.startswith("text/")

    def require(self, data: Media) -> str:
        """What is declared as text and is printable throughout is text, though it may begin like another format."""
        try:
            return super().require(data)
        except SampleError as error:
            if error.error_class in ("wrong_modality", "unsupported_format") and is_printable(head_of(data)):
                return "text/plain"
            raise

    def probe(self, data: bytes) -> dict[str, Any]:
        # An empty text is a sample that a rule drops, not a broken one.
        mime = self.require(data) if data else "text/plain"
        text, encoding = decode(data)
        body = text.strip()
        words = body.split()
        solid = [char for char in body if not char.isspace()]
        kinds = Counter("letter" if char.isalpha() else "digit" if char.isdigit() else "symbol" for char in solid)
        total = max(1, len(solid))
        language, confidence = detect_language(body) if kinds["letter"] else (None, None)
        return {
            "mime": mime,
            "language": language,
            "encoding": encoding,
            "characters": len(body),
            "words": len(words),
            "language_confidence": confidence,
            "letter_share": kinds["letter"] / total,
            "digit_share": kinds["digit"] / total,
            "symbol_share": kinds["symbol"] / total,
            "distinct_word_share": len({word.casefold() for word in words}) / max(1, len(words)),
            "replacement_characters": body.count("\ufffd"),
        }

    def segment(self, data: bytes) -> list[Segment]:
        text, _ = decode(data)
        return [
            Segment(span=f"chars={start}-{start + len(chunk)}", text=chunk, cost=len(chunk))
            for start, chunk in _splitter().chunk_indices(text)
        ]


def decode(data: bytes) -> tuple[str, str]:
    """Bytes to Unicode: byte order mark, then strict UTF-8, then detection by charset-normalizer.

    Returns:
        The text and the name of the encoding.

    Raises:
        SampleError: ``encoding_unknown`` when no encoding reads the bytes without damage.
    """
    # UTF-32's mark begins with UTF-16's, so it is looked for first.
    marks = (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    )
    encoding = next((name for mark, name in marks if data.startswith(mark)), "utf-8")
    try:
        return data.decode("utf-8-sig" if encoding == "utf-8" else encoding), encoding
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data).best()
        if best is None:
            raise SampleError("encoding_unknown", f"{len(data)} bytes read as text in no known encoding") from None
        return str(best), best.encoding


def detect_language(text: str) -> tuple[str, float]:
    """ISO 639-1 code and its probability, from the first 2,000 characters (langid.py's naive Bayes model)."""
    language, probability = _language_model().classify(text[:_LANGUAGE_CHARACTERS])
    return str(language), min(1.0, max(0.0, float(probability)))


@cache
def _language_model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _splitter() -> Any:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(CHUNK_CHARACTERS)
