"""A queue of OpenLineage events, sent in the background: a dead server costs a run nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import cache
from typing import Any, Protocol

_log = logging.getLogger(__name__)
# Events that wait; older ones are dropped, with a warning.
MOST = 1_000
# Modules of transports that the extra does not install.
_PACKAGES = {"confluent_kafka": "openlineage-python[kafka]"}


class Client(Protocol):
    """A sender of events: `openlineage.client.OpenLineageClient`."""

    def emit(self, event: Any) -> None: ...


class EventQueue:
    """Events that a thread sends, one after the other.

    Attributes:
        dropped: events that were not sent.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.dropped = 0
        self._waiting: deque[Any] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._slow = False
        threading.Thread(target=self._run, name="mm-openlineage", daemon=True).start()

    def put(self, event: Any) -> None:
        """Add an event; returns at once."""
        with self._changed:
            if len(self._waiting) >= MOST:
                self._waiting.popleft()
                self._drop("too many wait", 1)
            self._waiting.append(event)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent, for at most so many seconds; no longer after it once was in vain.

        Returns:
            Whether all is sent.
        """
        end = time.monotonic() + (0 if self._slow else seconds)
        with self._changed:
            while self._waiting or self._busy:
                left = end - time.monotonic()
                if left <= 0:
                    self._slow = True
                    return False
                self._changed.wait(left)
        return True

    def _drop(self, why: str, count: int) -> None:
        if not self.dropped:
            _log.warning(f"OpenLineage events are not sent: {why}; the run goes on without them")
        self.dropped += count

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                event, self._busy = self._waiting.popleft(), True
            try:
                self.client.emit(event)
            except Exception as error:  # noqa: BLE001 - lineage is never in the way of a run
                self._drop(type(error).__name__, 1)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()


def is_wanted() -> bool:
    """Return whether the environment configures OpenLineage, by a variable of its client.

    Its client would write to the console where nothing is configured, and read `openlineage.yml` of any
    working folder.
    """
    disabled = os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true"
    named = any(
        name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__")
        for name in os.environ
    )
    return named and not disabled


@cache
def open_queue() -> EventQueue | None:
    """Return the queue of this process; None where the client cannot be configured."""
    try:
        from openlineage.client import OpenLineageClient

        return EventQueue(OpenLineageClient())
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(str(error.name), "mm-features[observe]")
        _log.warning(f"no lineage is sent: {error.name} is missing; pip install '{package}'")
    except Exception as error:  # noqa: BLE001 - lineage is never in the way of a run
        # Without the message, which may quote the configuration with its key.
        _log.warning(
            f"no lineage is sent: the configuration of OpenLineage is wrong ({type(error).__name__})"
        )
    return None
