"""TODO."""

from __future__ import annotations

import os
import re

from mm_embed_kernels.errors import UserError
from mm_resources.objects.http_client import is_web

_MAGIC = re.compile(r"[*?\[{]")


_WEB_MAGIC = re.compile(r"[*\[{]")


WILD = re.compile(r"[*?\[]")


_BRACES = re.compile(r"\{([^{}]*)\}")


_RANGE = re.compile(r"(\d+)\.\.(\d+)")


_MOST_ALTERNATIVES = 100_000


_ESCAPED = re.compile(r"\[([*?\[{])\]")


def glob_root(pattern: str) -> tuple[str, str | None]:
    """(longest folder prefix without a wildcard, glob below it or None for the whole).

    A path that exists as it is written is no pattern; ``[*]`` and its like stand for the character itself.
    """
    literal = _ESCAPED.sub(r"\1", pattern).rstrip("/") or "/"
    # In a URL a question mark begins the query.
    magic = _WEB_MAGIC if is_web(pattern) else _MAGIC
    found = magic.search(_ESCAPED.sub("\0\0\0", pattern))
    if found is None or ("://" not in pattern and os.path.exists(pattern)):
        return (literal if found is None else pattern.rstrip("/")), None
    root, _, _ = pattern[: found.start()].rpartition("/")
    rest = pattern[len(root) + 1 :]
    if "://" in pattern and "://" not in root:
        root, rest = pattern[: pattern.index("://") + 3], pattern[pattern.index("://") + 3 :]
    return _ESCAPED.sub(r"\1", root), rest


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over relative keys: ``*`` and ``?`` inside one folder, ``**`` across folders, ``{a,b}`` and ``{000..010}`` alternatives."""
    from fsspec.utils import glob_translate

    return re.compile("|".join(f"(?:{glob_translate(each)})" for each in alternatives(pattern)))


def alternatives(pattern: str) -> list[str]:
    """``*.{jpg,png}`` -> ``*.jpg``, ``*.png``; ``{08..10}`` -> ``08``, ``09``, ``10``, as WebDataset and shells write shards.

    Raises:
        UserError: when there are too many.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    parts = found[1].split(",")
    if numbers := _RANGE.fullmatch(found[1]):
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        if last - first < _MOST_ALTERNATIVES:
            parts = [f"{number:0{width}d}" for number in range(first, last + 1)]
        else:
            raise UserError(f"{pattern}: {last - first + 1:,} alternatives are too many; use a wildcard")
    return [
        each
        for part in parts
        for each in alternatives(pattern[: found.start()] + part + pattern[found.end() :])
    ]


def asks_for_dots(rest: str | None) -> bool:
    return rest is not None and "/." in f"/{rest}"
