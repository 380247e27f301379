"""Price table of a deployment, which turns the ledger's figures into money."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.messages import message_line
from mm_resources.metering import Usage

GB = 1e9
_HOUR = 3600.0


@dataclass(frozen=True)
class Prices:
    """Prices in one currency; 1 GB is 10^9 bytes.

    The defaults are assumptions, close to the list prices of large clouds for hourly machines in 2025: a core
    of a general-purpose machine, a GPU of the A10 to L4 class, an object store's standard class, with traffic
    inside one region free.

    Attributes:
        currency: code of the currency, as printed.
        cpu_hour: one core for one hour.
        gpu_hour: one GPU for one hour.
        gb_month: one GB stored for one month.
        gb_read, gb_written: one GB read from or written to store and sources.
        gb_transferred: one GB from a source beyond the machine, on top of `gb_read`.
    """

    currency: str = "USD"
    cpu_hour: float = 0.05
    gpu_hour: float = 1.0
    gb_month: float = 0.023
    gb_read: float = 0.0
    gb_written: float = 0.0
    gb_transferred: float = 0.0

    def of(self, used: Usage) -> float:
        """Return the price of a usage."""
        time = used.cpu_seconds * self.cpu_hour + used.gpu_seconds * self.gpu_hour
        data = (
            used.bytes_read * self.gb_read
            + used.bytes_written * self.gb_written
            + used.bytes_transferred * self.gb_transferred
        )
        return time / _HOUR + data / GB

    def of_storage(self, size: int) -> float:
        """Return the price of storing so many bytes for a month."""
        return size / GB * self.gb_month


def load_prices(path: Path | None) -> Prices:
    """Read the price table of a deployment; prices that it does not name keep their defaults.

    Args:
        path: YAML file; None: all defaults.

    Raises:
        UserError: for a file that cannot be read, or with other names or values.
    """
    if path is None:
        return Prices()
    import yaml

    try:
        table: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"MM_PRICES {path} cannot be read: {message_line(error)}") from None
    names = {item.name for item in fields(Prices)}
    if not isinstance(table, dict) or not set(table) <= names:
        unknown = (
            f"unknown: {', '.join(sorted(map(str, set(table) - names)))}"
            if isinstance(table, dict)
            else "it has no names"
        )
        raise UserError(
            f"MM_PRICES {path} is no price table: {unknown}; there are: {', '.join(sorted(names))}"
        )
    for name, value in table.items():
        if not _is_valid(name, value):
            kind = "currency code" if name == "currency" else "price"
            raise UserError(f"MM_PRICES {path}: {name}: {value!r} is no {kind}")
    return Prices(**table)


def _is_valid(name: str, value: Any) -> bool:
    if name == "currency":
        return isinstance(value, str) and value.isalpha()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0
