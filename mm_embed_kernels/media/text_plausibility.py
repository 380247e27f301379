"""Plausibility of a text by where its characters beyond ASCII stand: evidence for its encoding."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cache

_RARE_LETTERS, _COMMON_SIGNS = "ªºƒˆ", "£€¥¢§©®™°±×÷µ"
# Penalties of `plausibility` for a character beyond ASCII on average, above which a text is none.
_MOST_ODD = 0.35
# Plausibility of letters of another script that each stand alone: what an `à` is elsewhere.
_LONE, _LATIN = 0.05, ("LATIN", "MICRO", "FEMININE", "MASCULINE")
# Words of one letter that Cyrillic texts have between names in Latin letters, ...
_WORDS = frozenset("виоксуя")
# ... and those of languages in Latin letters; others are none.
_LATIN_WORDS, _NO_WORD = frozenset("àáâéèêíìóòôúùåäöøæőį"), 0.3


def plausibility(text: str) -> float:
    """Return how well the characters beyond ASCII stand where they stand, 0 to 1; 0 for text of no language.

    Letters of two scripts in one word, capitals behind small letters, and signs inside a word each count
    against a reading.
    """
    foreign = [char for char in text if not char.isascii()]
    penalty = 3 if len({_script(char) for char in foreign if char.isalpha() and char != "µ"}) > 1 else 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if not char.isascii():
            penalty += _penalty_of(before, char, after)
    if penalty > max(3, _MOST_ODD * len(foreign)):
        return 0.0
    return math.exp(-penalty) * _lone_fit(text)


def _lone_fit(text: str) -> float:
    """Return how well letters beyond ASCII fit that are words of their own, 0 to 1."""
    words = re.findall(r"[^\W\d_]+", text)
    other = [word.lower() for word in words if not any(_script(char) in _LATIN for char in word)]
    among_latin = any(map(str.isascii, words))
    if other and among_latin and max(map(len, other)) == 1 and not _WORDS.issuperset(other):
        return _LONE
    lone = {word.lower() for word in words if len(word) == 1 and _script(word) == "LATIN"}
    return 1.0 if all(word.isascii() or word in _LATIN_WORDS for word in lone) else _NO_WORD


def _penalty_of(before: str, char: str, after: str) -> int:
    """Return what the place of a character between two others costs, see `plausibility`."""
    kind = unicodedata.category(char)
    if char == "µ":
        return 2 * before.isalpha()  # the prefix of a unit
    if kind[0] == "L":
        penalty = 2 * ((kind == "Lu" and before.islower()) or (kind == "Ll" and after.isupper()))
        penalty += 2 * after.isdigit() + (char in _RARE_LETTERS)
        return penalty + 2 * sum(
            other.isalpha() and _script(other) != _script(char) for other in (before, after)
        )
    if (char in "“„«‘‚‹" and before.isalnum()) or (char in "”»›" and after.isalnum()):
        return 2
    if kind[0] == "S" and char not in _COMMON_SIGNS:
        return 2
    inside = before.isalpha() and (after.isalpha() or kind == "Sm")
    return 2 * (inside and char != "’" and (kind[0] == "S" or kind in ("No", "Cf", "Po")))


@cache
def _script(char: str) -> str:
    name = unicodedata.name(char, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA", "IDEOGRAPHIC") else name
