"""Amounts of money and bytes as a person reads them: no powers of ten, no more digits than they are worth."""

from __future__ import annotations

import math

_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


def format_amount(amount: float) -> str:
    """Return an amount of money: with cents from 1 on, below that with two digits that are not 0."""
    size = abs(amount)
    if size == 0:
        return "0"
    if size < 1e-6:
        return "less than 0.000001"
    if size >= 1:
        return f"{amount:,.2f}" if size < 10_000 else f"{amount:,.0f}"
    return f"{amount:.{1 - math.floor(math.log10(size))}f}"


def format_bytes(count: float) -> str:
    """Return a number of bytes in the unit that leaves less than a thousand: ``95.7 KB``."""
    size, unit = float(count), 0
    while abs(size) >= 999.5 and unit + 1 < len(_UNITS):
        size, unit = size / 1000, unit + 1
    return f"{size:,.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:,.1f} {_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """Return a time in the unit that a person counts in: seconds, minutes, hours or days."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
