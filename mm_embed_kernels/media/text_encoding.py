"""Encodings of texts: by byte order mark, by escape sequences, else by the evidence of their characters.

Short texts in one-byte encodings are valid in dozens of them. What decides is how well the characters fit the
language (chardet), how common the encoding is, and whether letters of one word belong to one script.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.language import detect_language
from mm_embed_kernels.media.text_plausibility import plausibility

# UTF-32's mark begins with UTF-16's, so it is tried first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-be", "utf-32-le", "utf-16-le", "utf-16-be")
_DETECTED_BYTES, _WEIGHED_BYTES, _LIKELY = 200_000, 4_096, 16
# Controls, but for white space, backspace and escape, and characters of private use.
_ODD = re.compile("[\0-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ue000-\uf8ff]")
# Escape sequences of ISO 2022, whose seven-bit bytes are valid ASCII as well, and the brackets of HZ.
_ISO_2022 = re.compile(rb"\x1b\$[@AB]|\x1b\$[()][A-G]|\x1b\([IJ]")
_ISO_2022_CODECS = ("iso2022_kr", "iso2022_jp", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004")
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")
# How much rarer than Windows-1252 and the national encodings in files of today others are.
_RARITY = (
    (
        re.compile(r"^(cp125[0-8]|shift_jis|cp932|euc|gb|big5|cp949|koi8|tis|cp874|johab|iso2022|hz)"),
        1.0,
    ),
    (re.compile(r"^(iso8859-(1|2|5|7|8|9|15)$|latin)"), 0.7),
    (re.compile(r"^(cp437|cp850|cp852|cp866|cp862)$"), 0.3),
    (re.compile(r"^iso8859-"), 0.1),
    (re.compile(r"^mac-(roman|cyrillic)$"), 0.15),
)
_RARE = 0.03
# Languages of the encodings of Latin letters; one in another language is as unlikely as it is certain.
_LANGUAGES = (
    (
        re.compile(r"^(cp1252|iso8859-(1|15)|cp437|cp850|mac-roman)$"),
        frozenset(
            {
                "en",
                "de",
                "fr",
                "es",
                "pt",
                "it",
                "nl",
                "sv",
                "da",
                "no",
                "nb",
                "nn",
                "fi",
                "is",
                "ca",
                "eu",
                "gl",
            }
            | {"ga", "af", "lb", "oc", "wa", "an", "br", "fo", "sw", "id", "ms", "tl", "la", "eo"}
        ),
    ),
    (
        re.compile(r"^(cp1250|iso8859-(2|16)|cp852|mac-latin2)$"),
        frozenset({"pl", "cs", "sk", "hu", "hr", "sl", "bs", "sr", "ro", "sq", "de"}),
    ),
    (re.compile(r"^(cp1257|iso8859-(4|13))$"), frozenset({"lt", "lv", "et"})),
    (re.compile(r"^(cp1254|iso8859-9|mac-turkish)$"), frozenset({"tr", "az", "ku"})),
)
_MISFIT = 0.1
# Words of French in texts of any language of Windows-1252, which are too short to be told by a language.
_LOAN_WORD, _LOAN_WORD_LETTERS = 1.6, 40
# Letters beyond ASCII of languages, with those of their common loan words; others are rare in them.
_ALPHABETS = {
    "cs": "áčďéěíňóřšťúůýž", "sk": "áäčďéíĺľňóôŕšťúýž", "pl": "ąćęłńóśźż", "hu": "áéíóöőúüű",
    "hr": "čćđšž", "sl": "čšž", "ro": "ăâîșțşţ", "de": "äöüßéèàç", "fr": "àâæçéèêëîïôœùûüÿñ",
    "es": "áéíñóúüç", "it": "àèéìíîòóùú", "pt": "áâãàçéêíóôõúü", "en": "éèêëïîôöüçñâáàæœäøå",
    "sv": "åäöéüàø", "da": "æøåéäö", "nb": "æøåéäö", "no": "æøåéäö", "fi": "äöåšž",
    "nl": "éëïóöüèêàç", "tr": "çğıöşüâîûİ", "et": "äöõüšž", "lv": "āčēģīķļņšūž", "lt": "ąčęėįšųūž",
}  # fmt: skip
# A text of fewer bytes is no evidence, unless ASCII letters surround its others.
_LEAST_BYTES = 4
# chardet's confidence in a text that its languages do not explain.
_UNEXPLAINED = 0.02
# Share of the best reading in the weight of all different ones, below which none is believed.
MIN_CONFIDENCE = 0.35
_LEAST_WIDE, _CUT_OFF = 3, 0.75
# Encodings in which kana are evidence enough.
_JAPANESE = ("shift_jis", "euc_jp")
_MARKS_OF_CJK = "\u3001\u3002\uff0c\uff01\uff1f"
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fc]")


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
    readings: dict[str, tuple[float, str]] = {}
    for encoding, head, weight in _readings(data):
        # Encodings that read alike are one reading, as good as the best of them.
        readings[head] = max(readings.get(head, (0.0, "")), (weight, encoding))
    ranked = sorted(readings.values(), reverse=True)
    total = sum(weight for weight, _ in ranked)
    for number, (weight, encoding) in enumerate(ranked):
        text = _decode_strictly(data, encoding)
        if text is None:
            total -= weight
            continue
        if weight < MIN_CONFIDENCE * total:
            other = next((name for _, name in ranked[number + 1 :] if _decode_strictly(data, name)), "others")
            raise SampleError(
                "encoding_unknown",
                f"the text reads as {encoding} and as {other}, and neither is likely ({weight / total:.0%})",
            )
        return text, encoding
    raise SampleError("encoding_unknown", f"{len(data):,} bytes read as text in no known encoding")


def _readings(data: bytes) -> Iterator[tuple[str, str, float]]:
    """Stream the most likely encodings, each with the beginning of the text as it reads it and its weight."""
    import chardet

    explained = {"cp1252": _UNEXPLAINED, **dict.fromkeys(_JAPANESE, 0.0)}
    for guess in chardet.detect_all(data[:_DETECTED_BYTES], ignore_threshold=True):
        try:
            name = codecs.lookup(guess["encoding"] or "").name
        except LookupError:
            continue
        explained[name] = max(explained.get(name, 0.0), guess["confidence"])
    likely = sorted(explained, key=lambda name: -explained[name] * _commonness(name))[:_LIKELY]
    for name in dict.fromkeys([*likely, "cp1252", *_JAPANESE]):
        head = _head(data, name)
        if head is None:
            continue
        explanation, kana = explained[name], len(_KANA.findall(head))
        if name in _JAPANESE and kana >= max(2, sum(not char.isascii() for char in head) / 3):
            explanation = max(explanation, 0.5)
        if kana and name.startswith(("gb", "big5")):
            explanation *= _MISFIT
        weight = explanation * _commonness(name) * plausibility(head) * _language_fit(name, head)
        if name == "cp1252" and _is_loan_word(head):
            weight *= _LOAN_WORD
        if weight > 0:
            yield name, head, weight


def _head(data: bytes, encoding: str) -> str | None:
    """Return the beginning of the text, as `_decode_strictly`; the last character may be cut off."""
    if len(data) <= _WEIGHED_BYTES:
        return _decode_strictly(data, encoding)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[:_WEIGHED_BYTES])
    except UnicodeDecodeError:
        return None
    return None if _ODD.search(text) else text


@cache
def _commonness(encoding: str) -> float:
    return next((value for names, value in _RARITY if names.match(encoding)), _RARE)


def _language_fit(encoding: str, text: str) -> float:
    """Return how well the language of a reading fits an encoding of Latin letters, 0.1 to 1."""
    for names, languages in _LANGUAGES:
        if names.match(encoding):
            # The letters of ASCII tell the language of most texts, whatever the others are.
            plain = "".join(char if char.isascii() else " " for char in text)
            fit = 1.0
            for language, certainty in (detect_language(text), detect_language(plain)):
                fit *= 1.0 if language in languages else 1 - (1 - _MISFIT) * certainty
                letters = {char.lower() for char in text if not char.isascii() and char.isalpha()}
                fit *= 0.7 ** len(letters - set(_ALPHABETS.get(language, letters)))
            return fit
    return 1.0


def _is_loan_word(text: str) -> bool:
    """Return whether a short text has letters of French or English alone, but ligatures."""
    letters = {char.lower() for char in text if not char.isascii() and char.isalpha()}
    alphabets = (set(_ALPHABETS[language]) - set("æœ") for language in ("fr", "en"))
    return bool(letters) and len(text) <= _LOAN_WORD_LETTERS and any(map(letters.issubset, alphabets))
