"""Plausibility of a text by where its characters beyond ASCII stand: evidence for its encoding."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cache

_RARE_LETTERS = "ƒˆ"
# Penalties of `log_plausibility` for a character beyond ASCII on average, above which a text is none.
_MOST_ODD = 2.0
# A sign where it does not stand in any language, and one that lacks its other half.
_MISPLACED, _UNPAIRED = 4, 4
# Plausibility of letters of another script that each stand alone: what an `à` is elsewhere.
_LONE, _LATIN = 0.05, ("LATIN", "MICRO", "FEMININE", "MASCULINE")
# Words of one letter that Cyrillic texts have between names in Latin letters, ...
_WORDS = frozenset("виоксуя")
# ... and those of languages in Latin letters; `è` is one of Italian alone, and others are none.
_LATIN_WORDS, _NO_WORD = frozenset("àáâéèêíìóòôúùåäöøæőį"), 0.1
_ITALIAN, _ITALIAN_WORD = "è", 0.3
# A diameter, which is also a letter and a word of Danish; a power behind a longer word than that of a unit.
_DIAMETER, _POWER = re.compile(r"(?<!\w)[Øø] ?\d"), re.compile(r"[^\W\d_]{3,}[²³¹]")
_MEASURE = re.compile(r"(?<!\w)[Øø] ?\d|\d ?µ[A-Za-z]")
# Signs by those of which one stands behind, or before, where they are whole.
_OPENING = {"„": '“”"', "‚": "‘’'", "“": '”"', "‘": "’'", "«": "»", "»": "«", "‹": "›", "¿": "?", "¡": "!"}
_CLOSING = {"“": "„", "‘": "‚", "”": '“„”"', "»": "«", "«": "»", "›": "‹"}
# Signs that stand before or behind a number, blanks left out.
_NUMERIC = re.compile(r"(?<=\d)\s?[€£¥¢%°±×÷§‰№½¼¾²³¹]|[€£¥±×÷§№½¼¾Øø]\s?(?=\d)|(?<=\bn)[°º]|(?<=\bN)[°º]")
_NUMBER_SIGNS = "€£¥¢±×÷‰°"
_FRACTIONS, _POWERS = "½¼¾", "²³¹"
_CJK_SIGNS = re.compile("[\u3000-\u303f\uff00-\uff65]")
_WORD = re.compile(r"[^\W\d_]{3,}")


def log_plausibility(text: str) -> float:
    """Return how well the characters beyond ASCII stand where they do, at most 0; -inf for no text.

    Letters of two scripts in one word, capitals behind small letters, and signs inside a word, without a
    number or without their other half each count against a reading.
    """
    foreign = [char for char in text if not char.isascii()]
    scripts = {_script(char) for char in foreign if char.isalpha() and char not in "µªº"}
    penalty = 3 if len(scripts) > 1 else 0
    numeric = {place for match in _NUMERIC.finditer(text) for place in range(*match.span())}
    for place, (before, char, after) in enumerate(zip(" " + text, text, text[1:] + " ", strict=False)):
        # Signs of CJK stand between characters without blanks.
        is_free = char.isascii() or _CJK_SIGNS.match(char) or (place in numeric and not char.isalpha())
        if not is_free:
            penalty += _penalty_of(before, char, after)
            ends, found = (
                (_CLOSING, text[:place]) if _closes(before, after) else (_OPENING, text[place + 1 :])
            )
            penalty += _UNPAIRED * (char in ends and not any(end in found for end in ends[char]))
    penalty += sum(_MISPLACED for word in _WORD.findall(text) if not word.isascii() and _is_shouted(word))
    penalty += _MISPLACED * len(_POWER.findall(text))
    if _CJK_SIGNS.search(text) and "CJK" not in scripts:
        penalty += 2 * _MISPLACED
    if penalty > max(8, _MOST_ODD * len(foreign)):
        return -math.inf
    return math.log(_lone_fit(text)) - penalty


def has_measure(text: str) -> bool:
    """Return whether a text has a diameter or a unit with the prefix µ."""
    return bool(_MEASURE.search(text))


def is_russian_word(text: str) -> bool:
    """Return whether what is beyond ASCII is a word of one letter, as Cyrillic texts have between names."""
    foreign = [word for word in text.split() if not word.isascii()]
    return len(foreign) == 1 and foreign[0] in _WORDS


def stands_by_number(text: str) -> bool:
    """Return whether all characters beyond ASCII are signs that stand by a number, such as £5."""
    return text.isascii() or _NUMERIC.sub("", text).isascii()


def _closes(before: str, after: str) -> bool:
    """Return whether a sign between two characters ends what another one has begun."""
    return bool(before.strip()) and not after.isalnum()


def _is_shouted(word: str) -> bool:
    """Return whether a word begins with two capitals and goes on in small letters."""
    return word[:2].isupper() and word[2].islower()


def _lone_fit(text: str) -> float:
    """Return how well letters beyond ASCII fit that are words of their own, 0 to 1."""
    words = re.findall(r"[^\W\d_]+", _DIAMETER.sub(" ", text))
    other = [word.lower() for word in words if not any(_script(char) in _LATIN for char in word)]
    among_latin = any(map(str.isascii, words))
    if other and among_latin and max(map(len, other)) == 1 and not _WORDS.issuperset(other):
        return _LONE
    lone = {word.lower() for word in words if len(word) == 1 and _script(word) == "LATIN"}
    if not all(word.isascii() or word in _LATIN_WORDS for word in lone):
        return _NO_WORD
    return _ITALIAN_WORD if _ITALIAN in lone else 1.0


def _penalty_of(before: str, char: str, after: str) -> int:
    """Return what the place of a character between two others costs, see `log_plausibility`."""
    kind = unicodedata.category(char)
    if char == "µ":
        return 2 * before.isalpha()  # the prefix of a unit
    if char in "ªº":
        return 0 if before.isdigit() or before == "." else _MISPLACED
    if kind[0] == "L":
        penalty = _MISPLACED * ((kind == "Lu" and before.islower()) or (kind == "Ll" and after.isupper()))
        penalty += 2 * after.isdigit() + (char in _RARE_LETTERS)
        return penalty + _MISPLACED * sum(
            other.isalpha() and _script(other) != _script(char) for other in (before, after)
        )
    inside = before.isalpha() and after.isalpha()
    if char in "„‚“‘«‹¿¡":
        never_closes = char in "„‚‹¿¡"
        return _MISPLACED * (
            (before.isalnum() and (after.isalnum() or never_closes)) or (char in "¿¡" and not after.isalpha())
        )
    if char in "”»›":
        return _MISPLACED * (after.isalnum() and before.isalnum())
    if char in _FRACTIONS:
        return _MISPLACED * (before.isalpha() or after.isalpha())
    if char in _NUMBER_SIGNS:
        return _MISPLACED if before.isalpha() or after.isalpha() else 2
    if char in _POWERS:
        return 0 if before.isalpha() and not after.isalnum() else 2
    if char == "\u00a0":
        return 0 if before.strip() and after.strip() else 2
    if char in "™®©†‡•…—–":
        starts = not before.isalnum() and after.isalpha() and char in "™®†‡…"
        return _MISPLACED * (inside and char != "—") + 2 * starts
    if kind[0] == "S":
        return _MISPLACED if inside else 2
    return _MISPLACED * (
        inside and char not in "’·" and kind in ("No", "Cf", "Po", "Pd", "Pi", "Pf", "Ps", "Cc")
    )


@cache
def _script(char: str) -> str:
    name = unicodedata.name(char, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA", "IDEOGRAPHIC") else name
