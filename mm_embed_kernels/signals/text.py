"""Signals of a text: repetition, boilerplate, damage and personal data."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import Any

# Phrases by which C4 drops lines (Raffel et al., 2020, section 2.2), and the notices that have replaced them.
_BOILERPLATE = re.compile(
    r"lorem ipsum|javascript|terms of (?:use|service)|privacy policy|cookie policy"
    r"|(?:uses?|use of|accept(?: all)?) cookies|all rights reserved|sign up for our newsletter",
    re.IGNORECASE,
)
# Sequences of words, and the number of first words in which they are counted, since each is held in memory.
_SEQUENCE, _WORDS = 5, 50_000
# Every repetition is bounded, so that no text makes the expressions slow.
_EMAIL = re.compile(r"(?<![\w.%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)"
)


def text_signals(text: str, words: list[str]) -> dict[str, Any]:
    """Measure repetition, boilerplate, damage and personal data, by column of `Text.signals`."""
    from ftfy.badness import badness

    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return {
        "duplicate_line_share": 1 - len(set(lines)) / max(1, len(lines)) if lines else 0.0,
        "repeated_5gram_share": repeated_share(words),
        "boilerplate_share": sum(len(line) for line in lines if _BOILERPLATE.search(line))
        / max(1, sum(map(len, lines))),
        "mojibake": int(badness(text)),
        "emails": len(_EMAIL.findall(text)),
        "phone_numbers": phone_numbers(text),
        "ip_addresses": sum(map(_is_public, _IP.findall(text))),
    }


def repeated_share(words: list[str]) -> float:
    """Return the share of characters in sequences of five words that occur more than once, 0 to 1.

    Rae et al., "Scaling Language Models" (2021), table A1. Of a text of more than 50,000 words the first
    50,000 count.
    """
    words = words[:_WORDS]
    sequences = [tuple(words[i : i + _SEQUENCE]) for i in range(len(words) - _SEQUENCE + 1)]
    counts = Counter(sequences)
    repeated = [False] * len(words)
    for start, sequence in enumerate(sequences):
        if counts[sequence] > 1:
            repeated[start : start + _SEQUENCE] = [True] * _SEQUENCE
    return sum(len(word) for word, again in zip(words, repeated, strict=True) if again) / max(
        1, sum(map(len, words))
    )


def phone_numbers(text: str) -> int:
    """Count phone numbers in international form (``+49 ...``); others look like any number."""
    if "+" not in text:
        return 0
    import phonenumbers

    return sum(1 for _ in phonenumbers.PhoneNumberMatcher(text, None))


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
