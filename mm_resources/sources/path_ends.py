"""Paths of tables and files that share their end: whichever is longer ends with the other."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property


def path_parts(path: str) -> tuple[str, ...]:
    """Return the names of a path of any system; names that a Mac has decomposed are composed."""
    parts: list[str] = []
    for part in unicodedata.normalize("NFC", path).replace("\\", "/").split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return tuple(parts)


def share_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether the longer path ends with the shorter one."""
    common = min(len(one), len(other))
    return common > 0 and one[-common:] == other[-common:]


class PathEnds:
    """Paths by their ends.

    Args:
        paths: the paths, such as the keys of a table's rows.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = paths

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The paths by the last name, made when the first is looked for."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self._paths:
            if parts := path_parts(path):
                found[parts[-1]].append(path)
        return dict(found)

    def of(self, path: str) -> list[str]:
        """Return the paths that share their end with a path, without those of a longer common end."""
        own = path_parts(path)
        found = [
            (min(len(own), len(parts)), other)
            for other in self._by_name.get(own[-1] if own else "", ())
            if share_end(own, parts := path_parts(other))
        ]
        longest = max((length for length, _ in found), default=0)
        return [other for length, other in found if length == longest]
