"""Times in UTC, as tables store them."""

from __future__ import annotations

from datetime import UTC, datetime


def in_utc(moment: datetime) -> datetime:
    """Return the same instant in UTC; a time without a zone is read as UTC.

    Importing pandera sets ``PYARROW_IGNORE_TIMEZONE``, under which pyarrow stores an aware time's wall clock:
    only times that are in UTC already are stored right, whatever was imported before.
    """
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
