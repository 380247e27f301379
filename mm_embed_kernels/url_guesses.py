"""Values of URLs that may be secrets under any name: guessed by their look, replaced by their digest.

A digest takes the place of the value in everything that is stored and shown, so that another value is another
address. What consists of words, numbers, dates and sizes stays, and so do parameters that name an object.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import unquote

_DIGEST = re.compile(r"~[0-9a-f]{16}")
# What separates the words and numbers of a plain value.
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")
# A word, an abbreviation, a number, or a size, time or version: `1920x1080`, `02T00`, `mp4`, `300px`.
_PLAIN = re.compile(
    r"[A-Za-z]?[a-z]{0,15}|[A-Z]{1,5}|\d{1,12}|\d{1,6}[xXT]\d{1,6}Z?|[A-Za-z]{1,3}\d{1,4}|\d{1,6}[A-Za-z]{1,3}"
)
_MOST_CHARACTERS, _MOST_WORDS = 96, 12
# Names of parameters that identify the requested object, not the client.
_OBJECTS = {
    *("id", "ids", "uuid", "guid", "v", "ver", "version", "rev", "revision", "generation", "slug", "title"),
    *("file", "filename", "name", "path", "object", "item", "doc", "document", "dataset", "image", "photo"),
    *("video", "audio", "src", "source", "url", "uri", "href", "q", "query", "search", "page", "tag", "tags"),
    *("key", "prefix", "lang", "format", "type", "category", "responsecontentdisposition"),
}
_NO_OBJECTS = ("sessid", "sessionid", "clientid", "accessid", "keyid", "userid", "accountid")


def is_suspect(name: str, value: str) -> bool:
    """Return whether a value may be a secret.

    Args:
        name: of the parameter; "" for a value without one.
        value: percent-encoded or not.
    """
    if not value or _DIGEST.fullmatch(value) or _names_object(name):
        return False
    text = unquote(value)
    if "://" in text:
        text = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://", "", text)
    words = _SEPARATORS.split(text)
    is_short = len(text) <= _MOST_CHARACTERS and len(words) <= _MOST_WORDS
    return text.isascii() and not (is_short and all(_PLAIN.fullmatch(word) for word in words))


def blind(value: str) -> str:
    """Return the digest that takes the place of a value; of a digest, itself."""
    if _DIGEST.fullmatch(value):
        return value
    return "~" + hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@lru_cache(maxsize=4_096)  # the same few names in millions of URLs
def _names_object(name: str) -> bool:
    collapsed = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    return collapsed in _OBJECTS or (collapsed.endswith("id") and not collapsed.endswith(_NO_OBJECTS))
