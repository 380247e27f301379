"""Globs over paths and URLs: their roots, their alternatives, and matching of relative keys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from mm_embed_kernels.errors import UserError
from mm_resources.objects.http_client import is_web
from mm_resources.storage.filesystems import is_local as is_local  # sources import it from here

WILD = re.compile(r"[*?\[]")
_MAGIC = re.compile(r"[*?\[{]")
# In a URL a question mark begins the query.
_WEB_MAGIC = re.compile(r"[*\[{]")
_ESCAPED = re.compile(r"\[([*?\[{])\]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_ALTERNATIVES = 100_000
# Endings of a glob: letters and digits behind a dot, several of compressed files.
_ENDINGS = re.compile(r"(?:\.[A-Za-z0-9]+)+$")


def glob_root(pattern: str) -> tuple[str, str | None]:
    """Split a pattern into (longest folder prefix without a wildcard, glob below it or None for everything).

    A path that exists as it is written is no pattern; ``[*]`` and the like are the character itself.
    """
    literal = _ESCAPED.sub(r"\1", pattern).rstrip("/") or "/"
    magic = _WEB_MAGIC if is_web(pattern) else _MAGIC
    first = magic.search(_ESCAPED.sub("\0\0\0", pattern))
    if first is None or ("://" not in pattern and os.path.exists(pattern)):
        return (literal if first is None else pattern.rstrip("/")), None
    root, _, _ = pattern[: first.start()].rpartition("/")
    rest = pattern[len(root) + 1 :]
    if "://" in pattern and "://" not in root:
        root, rest = pattern[: pattern.index("://") + 3], pattern[pattern.index("://") + 3 :]
    return _ESCAPED.sub(r"\1", root), rest


def local_folder(pattern: str) -> str | None:
    """Return the real folder that a local pattern's files lie below; None for a URL."""
    if "://" in pattern:
        return None
    root, _ = glob_root(pattern)
    return os.path.realpath(root if os.path.isdir(root) else os.path.dirname(root))


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Compile a glob over relative keys.

    ``*`` and ``?`` match inside one folder, ``**`` across folders; ``{a,b}`` and ``{000..010}`` are
    alternatives. Endings match in any case: ``*.jpg`` matches IMG_1.JPG.
    """
    from fsspec.utils import glob_translate

    return re.compile(
        "|".join(f"(?:{glob_translate(_any_case_endings(each))})" for each in alternatives(pattern))
    )


def fold_endings(key: str) -> str:
    """Return a key with its endings in lower case."""
    return _ENDINGS.sub(lambda found: found[0].lower(), key)


def _any_case_endings(pattern: str) -> str:
    """Return a glob whose endings stand for both cases of each letter: ``*.jpg`` -> ``*.[jJ][pP][gG]``."""

    def both(letter: re.Match[str]) -> str:
        return f"[{letter[0].lower()}{letter[0].upper()}]"

    return _ENDINGS.sub(lambda found: re.sub("[A-Za-z]", both, found[0]), pattern)


def exclusion(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test of keys: whether a pattern of `exclude` names a key, or a folder that it lies in.

    A pattern without a slash names files and folders at any depth.
    """
    if not patterns:
        return lambda _key: False
    globs = []
    for pattern in patterns:
        own = pattern.strip("/").removeprefix("./")
        each = [own, f"{own}/**"]
        globs += each if "/" in own else [*each, *(f"**/{glob}" for glob in each)]
    compiled = [glob_regex(glob) for glob in globs]
    return lambda key: any(glob.match(key) for glob in compiled)


def alternatives(pattern: str) -> list[str]:
    """Expand braces, as shells do: ``*.{jpg,png}`` -> ``*.jpg``, ``*.png``; ``{08..10}`` -> ``08`` ...

    Raises:
        UserError: when there are too many.
    """
    if _count_alternatives(pattern) > _MOST_ALTERNATIVES:
        raise UserError(
            f"{pattern:.200}: more than {_MOST_ALTERNATIVES:,} alternatives are too many; use a wildcard"
        )
    return _expand(pattern)


def _count_alternatives(pattern: str) -> int:
    """Return an upper bound of the alternatives, before any is made; nested braces count at each level."""
    count = 1
    while braces := _BRACES.search(pattern):
        count *= len(braces[1].split(","))
        if numbers := _RANGE.fullmatch(braces[1]):
            # Longer numbers than these are too many whatever they are.
            sizes = [int(number[:12]) for number in numbers.groups()]
            count *= max(1, sizes[1] - sizes[0] + 1)
        if count > _MOST_ALTERNATIVES:
            break
        pattern = pattern[: braces.start()] + pattern[braces.end() :]
    return count


def _expand(pattern: str) -> list[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    parts = braces[1].split(",")
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        parts = [f"{number:0{width}d}" for number in range(first, last + 1)]
    return [
        each for part in parts for each in _expand(pattern[: braces.start()] + part + pattern[braces.end() :])
    ]


def key_matcher(glob: str | None) -> Callable[[str], object]:
    """Return a test of relative keys: whether a glob, or None for everything, matches one."""
    if glob is None:
        return lambda _key: True
    # Thousands of numbered shards are looked up in a set, not tried one after the other.
    if WILD.search(glob):
        return glob_regex(glob).match
    names = set(map(fold_endings, alternatives(glob)))
    return lambda key: fold_endings(key) in names


def names_dots(glob: str | None) -> bool:
    """Return whether a glob names files or folders that begin with a dot."""
    return glob is not None and "/." in f"/{glob}"
