"""What a deployment pays: a small table, by which the ledger's figures become money."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.metering import Usage

GB = 1e9
_HOUR = 3600.0


@dataclass(frozen=True)
class Prices:
    """Prices in one currency; 1 GB is 10^9 bytes.

    The defaults are assumptions, in the order of what large clouds list for machines by the hour in 2025: a core of a
    general-purpose machine, a GPU of the A10 to L4 class, an object store's standard class, with traffic inside one region free.

    Attributes:
        currency: its code, as printed.
        cpu_hour: one core for one hour.
        gpu_hour: one GPU for one hour.
        gb_month: one GB stored for one month.
        gb_read, gb_written: one GB read from or written to store and sources.
        gb_transferred: one GB that came from a source beyond the machine, on top of reading it.
    """

    currency: str = "USD"
    cpu_hour: float = 0.05
    gpu_hour: float = 1.0
    gb_month: float = 0.023
    gb_read: float = 0.0
    gb_written: float = 0.0
    gb_transferred: float = 0.0

    def of(self, used: Usage) -> float:
        """The price of what was used."""
        time = used.cpu_seconds * self.cpu_hour + used.gpu_seconds * self.gpu_hour
        data = (
            used.bytes_read * self.gb_read
            + used.bytes_written * self.gb_written
            + used.bytes_transferred * self.gb_transferred
        )
        return time / _HOUR + data / GB

    def stored(self, size: int) -> float:
        """The price of keeping so many bytes for a month."""
        return size / GB * self.gb_month


def load_prices(path: Path | None) -> Prices:
    """The price table of a deployment, which may name some prices and leave the rest as they are by default.

    Raises:
        UserError: for a file that cannot be read or holds anything else.
    """
    if path is None:
        return Prices()
    import yaml

    try:
        found: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"MM_PRICES {path} cannot be read: {' '.join(str(error).split())}") from None
    known = {item.name for item in fields(Prices)}
    if not isinstance(found, dict) or not set(found) <= known:
        strange = (
            f" {', '.join(sorted(map(str, set(found) - known)))} is none of them"
            if isinstance(found, dict)
            else ""
        )
        raise UserError(
            f"MM_PRICES {path} is no price table:{strange or ' it holds no names'}; there are: {', '.join(sorted(known))}"
        )
    for name, value in found.items():
        if name == "currency":
            sound = isinstance(value, str) and value.isalpha()
        else:
            sound = (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and math.isfinite(value)
                and value >= 0
            )
        if not sound:
            raise UserError(
                f"MM_PRICES {path}: {name}: {value!r} is no {'currency code' if name == 'currency' else 'price'}"
            )
    return Prices(**found)
