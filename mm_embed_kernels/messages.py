"""Parts of messages for people."""

from __future__ import annotations

from collections.abc import Sequence


def message_line(error: BaseException) -> str:
    """Return the message of an error of any library in one line."""
    return " ".join(str(error).split())


def first_items(items: Sequence[str], most: int) -> list[str]:
    """Return the first items of a list and, as one more, how many follow."""
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return [*items[:most], *more]
