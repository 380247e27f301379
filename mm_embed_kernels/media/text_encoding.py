"""Encodings of texts: by byte order mark, by escape sequences, else by the evidence of their characters.

Short texts in one-byte encodings are valid in dozens of them. What decides is how likely the letters are
behind each other in the languages of an encoding (`letter_pairs`), how common both are, and whether signs and
letters stand where they may. A reading that is not far more likely than all others together is none.
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.letter_pairs import encodings, log_likelihoods, mean_log_likelihood
from mm_embed_kernels.media.text_plausibility import (
    has_measure,
    is_russian_word,
    log_plausibility,
    stands_by_number,
)

# UTF-32's mark begins with UTF-16's, so it is tried first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-be", "utf-32-le", "utf-16-le", "utf-16-be")
# Bytes that are weighed, and those of a line before its first one beyond ASCII.
_WEIGHED_BYTES, _CONTEXT = 4_096, 128
# Controls, but for white space, backspace and escape, and characters of private use.
_ODD = re.compile("[\0-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ue000-\uf8ff]")
# Escape sequences of ISO 2022, whose seven-bit bytes are valid ASCII as well, and the brackets of HZ.
_ISO_2022 = re.compile(rb"\x1b\$[@AB]|\x1b\$[()][A-G]|\x1b\([IJ]")
_ISO_2022_CODECS = ("iso2022_kr", "iso2022_jp", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004")
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")
_FOREIGN = re.compile(rb"[\x80-\xff]")
# A text of fewer bytes is no evidence, unless ASCII letters surround its others.
_LEAST_BYTES = 4
# Share of the best reading in the weight of all different ones, below which none is believed: of a text with
# one byte beyond ASCII, with two, and with more. One letter is little evidence: `Dobr\xec den` is Czech in
# one encoding and looks like Italian in another one.
_FLOORS = {1: 0.955, 2: 0.92}
MIN_CONFIDENCE = 0.78
# A character that says enough by itself, in the encoding that most files have.
_TELLING_SIGNS = "©®™"
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])’(?=[^\W\d_])")
# Mean logarithm of the probability of a letter, below which a reading is no text. The least likely right ones
# of some 2,000 short texts had -4.8, bytes at random and texts in EBCDIC at most -5.2.
_LEAST_LIKELY = -5.0
# Words of French in texts of any language of Windows-1252, too short for a language to be detected.
_LOAN_WORD, _LOAN_WORD_LETTERS, _LOANED = 5.0, 40, frozenset("éèêëïîôûùâàäöüçñ")
_WESTERN = ("cp1252", "iso8859-15")
_LEAST_WIDE, _CUT_OFF = 3, 0.75
_MARKS_OF_CJK = "\u3001\u3002\uff0c\uff01\uff1f"
# Words in capitals of ASCII, such as USB, are of any language.
_ACRONYM = re.compile(rb"(?<![A-Za-z\x80-\xff])[A-Z][A-Z0-9]+(?![A-Za-z\x80-\xff])")


def decode(data: bytes) -> tuple[str, str, int]:
    """Decode bytes to Unicode.

    Returns:
        The text, the name of the encoding, and the number of bytes at the end that begin a character which is
        cut off.

    Raises:
        SampleError: ``encoding_unknown`` when no encoding decodes the bytes without an error, or none with
            confidence.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    decoder = "utf-8-sig" if encoding == "utf-8" else encoding
    if encoding == "utf-8" and (found := escaped_text(data)):
        return *found, 0
    if encoding == "utf-8" and (wide := wide_encoding(data)):
        encoding = decoder = wide
    try:
        return data.decode(decoder), encoding, 0
    except UnicodeDecodeError as error:
        # The two reasons are constants of CPython's codecs, which have no other mark of an incomplete end.
        # One Latin-1 letter at the end of ASCII looks like the beginning of a UTF-8 character, so a cut UTF-8
        # text is only recognized by other characters before it.
        if error.reason in ("unexpected end of data", "truncated data") and (
            encoding != "utf-8" or not data[: error.start].isascii()
        ):
            return data[: error.start].decode(decoder), encoding, len(data) - error.start
        if encoding != "utf-8":
            raise SampleError(
                "encoding_unknown",
                f"the text is read as {encoding}, but byte {error.start:,} is no part of such",
            ) from None
        return *_decode_by_evidence(data), 0


def escaped_text(data: bytes) -> tuple[str, str] | None:
    """Return text and encoding of bytes with the escapes of ISO 2022 or HZ; None where they have none."""
    if not data.isascii():
        return None
    if _ISO_2022.search(data):
        for name in _ISO_2022_CODECS:
            if text := _decode_strictly(data, name):
                return text, name
        if b"\x1b$)A" in data and (text := _iso_2022_cn(data)):
            return text, "iso2022_cn"
    if _HZ.search(data) and (text := _decode_strictly(data, "hz")):
        return text, "hz"
    return None


def _iso_2022_cn(data: bytes) -> str | None:
    """Return the text of ISO-2022-CN (RFC 1922) with the characters of GB 2312 between shifts."""
    parts = re.split(rb"[\x0e\x0f]", re.sub(rb"\x1b\$\)A", b"", data))
    shifted = (bytes(byte | 0x80 if byte > 0x20 else byte for byte in part) for part in parts[1::2])
    plain = (part for part in parts[0::2])
    pieces = [piece for pair in zip(plain, [*shifted, b""], strict=False) for piece in pair]
    return _decode_strictly(b"".join(pieces), "gb2312")


def wide_encoding(data: bytes) -> str | None:
    """Return the encoding of UTF-16 or UTF-32 without a mark, by its zero bytes; None for anything else."""
    if b"\0" not in data:
        return None
    weights = {name: _wide_weight(data, name) for name in _WIDE}
    best = max(weights, key=weights.__getitem__)
    return best if weights[best] >= 0.8 else None


def _wide_weight(data: bytes, encoding: str) -> float:
    """Return how well characters of two or four bytes fit a text: 2 for ASCII, 1 for other letters, or 0."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(data[:_WEIGHED_BYTES])
    except UnicodeDecodeError:
        return 0.0
    if _has_odd(text):
        return 0.0
    if not text or len(text) < _LEAST_WIDE or any(char in "\v\b\x1b" for char in text):
        return 0.0
    # Four bytes are rarely valid by chance; two nearly always form some ideograph.
    ideograph = 1.0 if encoding.startswith("utf-32") else 0.5
    if ideograph < 1 and not any(map(str.isascii, text)):
        return 0.0
    weights = (
        2.0
        if char.isascii()
        else ideograph
        if "\u3400" <= char <= "\u9fff"
        else float(char.isalnum() or char in _MARKS_OF_CJK)
        for char in text
    )
    # Bytes of something else end within a character as often as not.
    ends_within = len(data) <= _WEIGHED_BYTES and decoder.getstate()[0]
    return sum(weights) / len(text) * (_CUT_OFF if ends_within else 1.0)


def _decode_strictly(data: bytes, encoding: str) -> str | None:
    """Return the text, or None where the encoding does not read it, or as characters of no language."""
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None
    return None if _has_odd(text) else text


def _has_odd(text: str) -> bool:
    """Return whether characters of a text are of no language."""
    return bool(_ODD.search(text)) or any(unicodedata.category(char) == "Cn" for char in set(text))


def _decode_by_evidence(data: bytes) -> tuple[str, str]:
    """Return text and encoding of bytes that are not UTF-8; raises as `decode`."""
    tried = data.decode("utf-8", "replace")
    wrong = tried.count("\ufffd")
    # Legacy encodings hardly ever form valid UTF-8, so bytes that are mostly valid are damaged UTF-8.
    if sum(not char.isascii() for char in tried) - wrong > wrong:
        raise SampleError(
            "encoding_unknown",
            f"the text is UTF-8 but for {wrong} places: it was damaged, or put together from several",
        )
    if len(data) < _LEAST_BYTES and not any(byte < 0x80 and chr(byte).isalpha() for byte in data):
        raise SampleError("encoding_unknown", f"{len(data)} bytes are too few to tell their encoding")
    ranked = rank_readings(data)
    for number, (share, encoding) in enumerate(ranked):
        text = _decode_strictly(data, encoding)
        if text is None:
            continue
        if share < _least_share(data, text):
            other = next((name for _, name in ranked[number + 1 :] if _decode_strictly(data, name)), "others")
            raise SampleError(
                "encoding_unknown",
                f"the text reads as {encoding} and as {other}, and neither is likely ({share:.0%})",
            )
        if (mean := mean_log_likelihood(_language_evidence(_evidence(data)), encoding)) < _LEAST_LIKELY:
            raise SampleError(
                "encoding_unknown",
                f"the text reads best as {encoding}, whose letters then follow each other as in no language "
                f"({math.exp(mean):.2%} each)",
            )
        return text, encoding
    raise SampleError("encoding_unknown", f"{len(data):,} bytes read as text in no known encoding")


def _least_share(data: bytes, text: str) -> float:
    """Return the share of a reading among all, below which it is not believed."""
    foreign = [char for char in text if not char.isascii()]
    floor = _FLOORS.get(len(_FOREIGN.findall(data)), MIN_CONFIDENCE)
    if floor == MIN_CONFIDENCE or is_russian_word(text):
        return MIN_CONFIDENCE
    # Other encodings may read the same.
    if text not in (_decode_strictly(data, encoding) for encoding in _WESTERN):
        return floor
    telling = len(foreign) == len(_APOSTROPHE.findall(text)) or has_measure(text) or stands_by_number(text)
    loaned = _LOANED.issuperset(char.lower() for char in foreign) and text[:1].lower() != "ç"
    return MIN_CONFIDENCE if loaned or telling or set(foreign) <= set(_TELLING_SIGNS) else floor


def rank_readings(data: bytes) -> list[tuple[float, str]]:
    """Return the share of each reading among all that differ, and its most likely encoding, best first."""
    evidence = _evidence(data)
    words = _language_evidence(evidence)
    readings: dict[str, list[tuple[float, str]]] = {}
    for encoding in encodings():
        text = _head(evidence, encoding)
        if text is not None and (fit := log_plausibility(text)) > -math.inf:
            weight = float(np.logaddexp.reduce(log_likelihoods(words, encoding))) + fit
            if encoding == "cp1252" and (_is_loan_word(text) or has_measure(text)):
                weight += math.log(_LOAN_WORD)
            # Encodings that read alike are one reading.
            readings.setdefault(text, []).append((weight, encoding))
    alike = [
        (float(np.logaddexp.reduce([weight for weight, _ in group])), max(group)[1])
        for group in readings.values()
    ]
    total = np.logaddexp.reduce([weight for weight, _ in alike]) if alike else 0.0
    return sorted(((math.exp(weight - total), encoding) for weight, encoding in alike), reverse=True)


def _language_evidence(evidence: bytes) -> bytes:
    """Return evidence without words that are of any language."""
    return _ACRONYM.sub(lambda match: b" " * len(match[0]), evidence)


def _evidence(data: bytes) -> bytes:
    """Return the lines with bytes beyond ASCII, up to `_WEIGHED_BYTES`; others tell nothing."""
    found: list[bytes] = []
    size = place = 0
    while size < _WEIGHED_BYTES and (match := _FOREIGN.search(data, place)):
        first = match.start()
        # Bytes of ASCII before the first other one are characters of their own, in every encoding.
        start = max(data.rfind(b"\n", place, first) + 1, place, first - _CONTEXT)
        end = data.find(b"\n", first) + 1 or len(data)
        found.append(data[start : min(end, start + _WEIGHED_BYTES - size)])
        size += len(found[-1])
        place = end
    return b"".join(found)


def _head(data: bytes, encoding: str) -> str | None:
    """Return evidence as an encoding reads it, as `_decode_strictly`; the last character may be cut off."""
    if len(data) < _WEIGHED_BYTES:
        return _decode_strictly(data, encoding)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return None
    return None if _has_odd(text) else text


def _is_loan_word(text: str) -> bool:
    """Return whether a short text has letters of French or English alone, inside words."""
    letters = {char.lower() for char in text if not char.isascii() and char.isalpha()}
    lone = any(len(word) == 1 and not word.isascii() for word in text.split())
    return bool(letters) and len(text) <= _LOAN_WORD_LETTERS and not lone and letters <= _LOANED
