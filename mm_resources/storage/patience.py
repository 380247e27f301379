"""Reads that wait for a store that is away for some seconds: a server restarts, a network is interrupted."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from mm_embed_kernels.messages import message_line
from mm_resources.backoff import backoff_pause
from mm_resources.storage.lance_errors import is_unanswered

# How long a store may be away, and the longest pause between two tries.
AWAY_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 4.0
_AWAY = frozenset(
    {
        errno.EBUSY,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
# Words in the names of the exceptions of client libraries about a server that does not answer.
_UNANSWERED = ("Connect", "Timeout", "Disconnected", "HTTPClient")
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def read_patiently(read: Callable[[], _Result]) -> _Result:
    """Call a function that only reads, or that may be repeated; again while the store is away.

    The first reads of a command and of a stage are such. Later ones belong to samples, which the runner tries
    again.
    """
    began, tries = time.monotonic(), 0
    while True:
        try:
            return read()
        except (OSError, ValueError) as error:
            if not _is_away(error) or time.monotonic() - began > AWAY_SECONDS:
                raise
            tries += 1
            if tries == 1:
                _log.warning(f"the store does not answer, and is waited for: {message_line(error)}")
        time.sleep(backoff_pause(tries, _FIRST_PAUSE, _LONGEST_PAUSE))


def _is_away(error: OSError | ValueError) -> bool:
    """Return whether the store does not answer, as distinct from an answer that refuses."""
    if isinstance(error, ValueError):
        return is_unanswered(error)
    if error.errno in _AWAY or isinstance(error, TimeoutError):
        return True
    cause = type(error.__cause__ or error).__name__
    return any(word in cause for word in _UNANSWERED) or is_unanswered(error)
