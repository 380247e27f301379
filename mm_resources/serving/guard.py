"""The outermost layer of a service: access, bounds on bodies and their speed, headers of every answer."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mm_resources.serving.access import Access
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.metrics import ServiceMetrics
from mm_resources.serving.problems import Problem, problem_of, problem_response

# Pages have their scripts and styles in files of the service, and reach nothing else.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": PAGE_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets requests pass to an application that may ask, and are neither too large nor too slow."""

    def __init__(self, app: ASGIApp, access: Access, limits: ServiceLimits, metrics: ServiceMetrics) -> None:
        self._app, self._access, self._limits, self._metrics = app, access, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answer = time.perf_counter(), _Answer(send, self._limits.receive_seconds)
        with self._metrics.in_flight.track_inprogress():
            try:
                headers = Headers(scope=scope)
                query = scope["query_string"].decode("latin-1")
                who = self._access.require(scope["method"], scope["path"], query, headers)
                scope.setdefault("state", {})["who"] = who
                body = _Body(receive, headers, self._limits)
                await self._app(scope, body.receive, answer.send)
            except Exception as error:  # noqa: BLE001 - whatever happens, the client gets one line
                await self._answer_error(error, scope, receive, answer)
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.observe(route, scope["method"], answer.status, time.perf_counter() - began)

    async def _answer_error(self, error: Exception, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if answer.status:  # too late for another answer: the connection ends
            raise error
        problem, response = problem_of(error), None
        if problem.status == 401 and "text/html" in Headers(scope=scope).get("accept", ""):
            page = Request(scope).url
            target = quote(page.path + (f"?{page.query}" if page.query else ""), safe="")
            response = RedirectResponse(f"/login?next={target}", 303)
        made: Response = response or problem_response(problem)
        await made(scope, receive, answer.send)


class _Body:
    """The body of a request, of a bounded size, whose parts arrive in time."""

    def __init__(self, receive: Receive, headers: Headers, limits: ServiceLimits) -> None:
        has_media = headers.get("content-type", "").startswith("multipart/form-data")
        self._most = limits.upload_bytes if has_media else limits.body_bytes
        self._receive, self._seconds, self._left = receive, limits.receive_seconds, self._most
        # All of a body may take longer than one part, but not as long as its parts together.
        self._until = time.monotonic() + 4 * limits.receive_seconds
        self._whole = False
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._most:
            raise self._excess()

    def _excess(self) -> Problem:
        return Problem("request_too_large", f"the body has more than {self._most:,} bytes; send less")

    async def receive(self) -> Message:
        if self._whole:  # what follows is the end of the connection
            return await self._receive()
        seconds = min(self._seconds, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, seconds))
        except TimeoutError:
            raise Problem("request_timeout", "the body arrives too slowly; send it again", 408) from None
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._excess()
        return message


class _Answer:
    """The answer to a request, with the headers of every answer, whose parts leave in time."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        # A client that reads nothing must not hold a training set open.
        await asyncio.wait_for(self._send(message), self._seconds)
