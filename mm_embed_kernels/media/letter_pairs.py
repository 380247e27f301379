"""Likelihood of bytes as a text in a language and an encoding, by pairs of neighbouring letters.

The pairs were counted by chardet in texts of 48 languages. They are compared as characters here, and on one
scale: a likelihood over the same bytes, whatever the language and the encoding are, so that all readings of a
text together have the probability 1 (Bayes).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

# Prior weights of languages, those of the most texts first; of others, `_RARE_LANGUAGE`.
_LANGUAGES = {
    "en": 1.0, "de": 0.8, "fr": 0.8, "es": 0.8, "ru": 0.8, "it": 0.6, "pt": 0.6, "zh": 0.6, "ja": 0.6,
    "el": 0.6, "pl": 0.5, "nl": 0.4, "tr": 0.4, "ko": 0.4, "sv": 0.4, "cs": 0.3, "hu": 0.3, "da": 0.3,
    "no": 0.3, "fi": 0.3, "ro": 0.3, "uk": 0.3, "ar": 0.3, "he": 0.3, "th": 0.3, "hr": 0.2, "bg": 0.2,
    "fa": 0.2, "vi": 0.2, "sk": 0.1, "sl": 0.1, "sr": 0.1, "id": 0.1, "be": 0.1, "et": 0.05, "lt": 0.05,
    "lv": 0.05,
}  # fmt: skip
_RARE_LANGUAGE = 0.03
# Groups of languages: the encoding of the counted pairs, and the encodings of their texts, with the weight of
# each.
_WESTERN = "br cy da de en es fi fr ga id is it ms nl no pt sv"
_GROUPS: tuple[tuple[str, str, dict[str, float]], ...] = (
    (_WESTERN, "cp1252", {
        "cp1252": 1.0, "iso8859-1": 0.5, "iso8859-15": 0.2, "cp850": 0.15, "cp437": 0.1, "mac-roman": 0.1}),
    ("cs hr hu pl ro sk sl", "cp1250", {
        "cp1250": 1.0, "iso8859-2": 0.5, "cp852": 0.15, "mac-latin2": 0.05, "iso8859-16": 0.03}),
    ("be bg mk ru sr uk", "cp1251", {
        "cp1251": 1.0, "koi8-r": 0.4, "koi8-u": 0.1, "cp866": 0.3, "iso8859-5": 0.15, "mac-cyrillic": 0.1,
        "cp855": 0.02}),
    ("el", "cp1253", {"cp1253": 1.0, "iso8859-7": 0.5, "cp737": 0.15, "mac-greek": 0.05, "cp869": 0.02}),
    ("tr", "cp1254", {"cp1254": 1.0, "iso8859-9": 0.5, "cp857": 0.15, "mac-turkish": 0.05}),
    ("et lt lv", "cp1257", {"cp1257": 1.0, "iso8859-13": 0.4, "iso8859-4": 0.1, "cp775": 0.1}),
    ("he", "cp1255", {"cp1255": 1.0, "iso8859-8": 0.3, "cp862": 0.1}),
    ("ar fa", "cp1256", {"cp1256": 1.0, "iso8859-6": 0.3, "cp720": 0.001}),
    ("th", "cp874", {"cp874": 1.0, "tis-620": 0.5}),
    ("vi", "cp1258", {"cp1258": 1.0}),
    ("eo mt", "iso8859-3", {"iso8859-3": 0.5}),
    ("kk", "kz1048", {"kz1048": 0.05, "ptcp154": 0.02}),
    ("tg", "koi8-t", {"koi8-t": 0.05}),
)  # fmt: skip
# Encodings of more than one byte: their pairs are those of bytes.
_WIDE = {
    "shift_jis": ("ja/cp932", 1.0),
    "cp932": ("ja/cp932", 0.9),
    "euc_jp": ("ja/euc_jis_2004", 0.4),
    "gb18030": ("zh/gb18030", 1.0),
    "big5": ("zh/big5hkscs", 0.6),
    "euc_kr": ("ko/euc_kr", 0.8),
    "cp949": ("ko/cp949", 0.7),
    "johab": ("ko/johab", 0.03),
}
# Probability of a sign beyond ASCII at any place, of signs in any language and of all others.
_SIGNS = {
    **dict.fromkeys("’“”–…«»„", 3e-3),
    **dict.fromkeys("€£°‘—•·‚\u00a0", 1e-3),
    **dict.fromkeys("§©®™×±µ½²³№¿¡´º", 5e-4),
    **dict.fromkeys("ª¼¾", 2e-4),
    **dict.fromkeys("¹÷¥¢‹›¶†¸¨", 5e-5),
}
_ODD_SIGN = 1e-6
# Pairs that were not counted: weight of the letter's own share, and that of a letter the language lacks.
_SMOOTHING, _UNSEEN = 4.0, 0.02
# A letter of a loan word or a name, and the letters that are more common in these than others.
_LOAN, _LOAN_LETTERS = 2e-3, "éèêëïîñöüäåøæçáàâãíóôúß"
# A word in Latin letters inside a text of another script.
_FOREIGN_WORD = 0.1
# A letter beyond ASCII is a capital.
_CAPITAL = 0.6
_SPACE, _OTHER = 0, 1
_ASCII = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class _Language:
    """The letters of a language, numbered from 2, and the logarithm of P(letter | letter before)."""

    letters: dict[str, int]
    logs: np.ndarray[Any, Any]


def encodings() -> list[str]:
    """Return the names of all encodings whose texts can be weighed."""
    single = (name for _, _, codecs in _GROUPS for name in codecs)
    return list(dict.fromkeys([*single, *_WIDE]))


def log_likelihoods(data: bytes, encoding: str) -> np.ndarray[Any, Any]:
    """Return the logarithms of P(bytes, language, encoding), one for each language of the encoding."""
    padded = np.frombuffer(b" " + data + b" ", np.uint8).astype(np.int64)
    pairs, counts = np.unique(padded[:-1] << 8 | padded[1:], return_counts=True)
    first, second = pairs >> 8, pairs & 255
    found = []
    if encoding in _WIDE:
        table, weight = _WIDE[encoding]
        prior = weight * _LANGUAGES[table.partition("/")[0]]
        found.append(np.log(prior) + _wide_logs(table)[first, second] @ counts)
    signs = _sign_logs(encoding)
    for languages, _, codecs in () if encoding in _WIDE else _GROUPS:
        if encoding not in codecs:
            continue
        other = float(signs[second] @ counts)
        for name in languages.split():
            ids, logs = _ids(encoding, name), _language(name).logs
            prior = codecs[encoding] * _LANGUAGES.get(name, _RARE_LANGUAGE)
            found.append(np.log(prior) + float(logs[ids[first], ids[second]] @ counts) + other)
    return np.asarray(found)


def mean_log_likelihood(data: bytes, encoding: str) -> float:
    """Return the mean logarithm of P for a pair with a letter, in the most likely language."""
    padded = b" " + data + b" "
    letters = [byte > 127 or chr(byte).isalpha() for byte in padded]
    pairs = sum(one or other for one, other in pairwise(letters))
    return float(log_likelihoods(data, encoding).max()) / max(1, pairs)


@cache
def _tables() -> dict[str, bytes]:
    """Return chardet's counts of pairs of bytes, 256 x 256, by language and encoding."""
    from chardet.models import load_models

    return load_models()


@cache
def _group_of(language: str) -> str:
    return next(codec for languages, codec, _ in _GROUPS if language in languages.split())


@cache
def _language(name: str) -> _Language:
    """Return the letters and pairs of a language, with capitals counted as small letters."""
    codec = _group_of(name)
    counted = np.frombuffer(_tables()[f"{name}/{codec}"], np.uint8).reshape(256, 256)
    chars = [_fold(bytes([byte]).decode(codec, "replace")) for byte in range(256)]
    letters = {char: number for number, char in enumerate(dict.fromkeys([*_ASCII, *filter(None, chars)]), 2)}
    ids = np.array([letters.get(char, _SPACE) for char in chars])
    counts = np.zeros((len(letters) + 2, len(letters) + 2))
    np.add.at(counts, (ids[:, None].repeat(256, 1), ids[None].repeat(256, 0)), counted)
    # What is no letter is free where it stands behind another such.
    counts[_SPACE, _SPACE] = 0
    logs = _logarithms(counts)
    loans = [letters[char] for char in _LOAN_LETTERS if char in letters]
    logs[2:, loans] = np.logaddexp(logs[2:, loans], np.log(_LOAN / len(_LOAN_LETTERS)))
    logs[_SPACE, _SPACE] = 0
    if name not in _WESTERN.split() and sum(_is_latin(char) for char in letters) < len(letters) / 2 + 1:
        _allow_latin_words(logs)
    return _Language(letters, logs)


def _logarithms(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return log P(second | first) of counted pairs, with `_SMOOTHING`."""
    alone = counts.sum(axis=0) + _UNSEEN
    alone /= alone.sum()
    return np.asarray(
        np.log((counts + _SMOOTHING * alone) / (counts.sum(axis=1, keepdims=True) + _SMOOTHING))
    )


def _allow_latin_words(logs: np.ndarray[Any, Any]) -> None:
    """Weigh words in ASCII letters inside a text of another script as English ones."""
    english = _language("en").logs
    latin = slice(2, 2 + len(_ASCII))
    logs[latin, latin] = english[latin, latin]
    logs[latin, _SPACE] = english[latin, _SPACE]
    logs[_SPACE, latin] = english[_SPACE, latin] + np.log(_FOREIGN_WORD)


@cache
def _ids(encoding: str, language: str) -> np.ndarray[Any, Any]:
    """Return the number of the letter that each byte of a one-byte encoding is, int [256]."""
    letters = _language(language).letters
    chars = (bytes([byte]).decode(encoding, "replace") for byte in range(256))
    return np.array([letters.get(folded, _OTHER) if (folded := _fold(char)) else _SPACE for char in chars])


@cache
def _sign_logs(encoding: str) -> np.ndarray[Any, Any]:
    """Return log P of each byte as a sign, and the cost of capitals, float64 [256]; 0 for ASCII."""
    logs = np.zeros(256)
    for byte in range(128, 256) if encoding not in _WIDE else ():
        char = bytes([byte]).decode(encoding, "replace")
        if not _fold(char):
            logs[byte] = np.log(_SIGNS.get(char, _ODD_SIGN))
        elif char != char.lower():
            logs[byte] = np.log(_CAPITAL)
    return logs


@cache
def _wide_logs(table: str) -> np.ndarray[Any, Any]:
    """Return log P of each byte behind another one, for an encoding of several bytes, float64 [256, 256]."""
    counts = np.frombuffer(_tables()[table], np.uint8).reshape(256, 256).astype(np.float64)
    logs = _logarithms(counts)
    letters = np.array([ord(char) for char in _ASCII])
    english = _language("en").logs
    # Between bytes of ASCII alone the text is English, and all that is no letter is free.
    ids = np.zeros(128, np.int64)
    ids[letters], ids[letters - 32] = np.arange(len(letters)) + 2, np.arange(len(letters)) + 2
    plain = english[ids[:, None], ids[None]]
    starts = (ids[:, None] == _SPACE) & (ids[None] != _SPACE)
    logs[:128, :128] = plain + np.where(starts, np.log(_FOREIGN_WORD), 0.0)
    return logs


def _fold(char: str) -> str:
    """Return a letter or mark as a small letter; "" for anything else."""
    if char == "\ufffd" or char in "ªºƒˆµ" or unicodedata.category(char[:1] or " ")[0] not in "LM":
        return ""
    return char.lower()[:1]


@cache
def _is_latin(char: str) -> bool:
    return unicodedata.name(char, "").startswith("LATIN")
