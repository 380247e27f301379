"""The process of a service: an address, connections that may not linger, a graceful stop."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mm_resources.serving.limits import ServiceLimits

# Seconds in which answers in work may end after a signal.
_STOP_SECONDS = 30
_IDLE_SECONDS = 20


class PatientProtocol(H11Protocol):
    """HTTP/1.1 whose clients must send the head of a request in time; uvicorn itself waits for ever."""

    head_seconds = ServiceLimits.receive_seconds
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head that has begun."""
        super().data_received(data)
        if self._head_timer is None and self._waits():
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._end_slow_head)

    def _end_slow_head(self) -> None:
        self._head_timer = None
        # Between two requests, uvicorn's own limit on idle connections holds.
        if self._waits() and not self.transport.is_closing():
            self.transport.close()


def run_service(app: ASGIApp, host: str, port: int, limits: ServiceLimits) -> None:
    """Serve an application until a signal stops the process; answers in work are completed.

    Raises:
        OSError: where the address is in use.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        # Its lines would hold the queries of URLs.
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=64 << 10,
    )
    uvicorn.Server(config).run()
