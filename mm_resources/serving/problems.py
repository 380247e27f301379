"""Errors as problem details (RFC 9457): each has a class of the registry as its type, and one line."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mm_embed_kernels.error_classes import lookup
from mm_embed_kernels.errors import ProcessFailure, SampleError, UserError
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.sandbox.answers import BadAnswer
from mm_embed_kernels.sandbox.child_process import ChildDied, ChildTimeout
from mm_embed_kernels.sql import OutOfMemory
from mm_embed_kernels.urls import redact_text
from mm_resources.features.removed_rows import RemovedRows
from mm_resources.storage.file_hashes import DamagedFiles
from mm_resources.storage.lance_errors import is_filter_error, is_missing_file, is_unanswered
from mm_resources.tables.stage_tables import NotMaterialized

_log = logging.getLogger(__name__)
PROBLEM_TYPE = "application/problem+json"
# The classes of requests, with the status of each.
STATUSES: dict[str, int] = {
    str(kind["error_class"]): int(str(kind["status"]))
    for kind in (
        {"error_class": "bad_request", "status": 422},
        {"error_class": "unauthorized", "status": 401},
        {"error_class": "forbidden", "status": 403},
        {"error_class": "not_found", "status": 404},
        {"error_class": "request_timeout", "status": 503},
        {"error_class": "request_too_large", "status": 413},
        {"error_class": "busy", "status": 429},
        {"error_class": "internal_error", "status": 500},
        {"error_class": "store_error", "status": 503},
        {"error_class": "model_crash", "status": 503},
        {"error_class": "memory_limit", "status": 503},
        {"error_class": "forgotten", "status": 410},
        {"error_class": "blob_missing", "status": 404},
        {"error_class": "blob_damaged", "status": 500},
    )
}
# Seconds after which a request that met no room, or no model, may be sent again.
_RETRY_AFTER = 1
_LONGEST = 500


class Problem(Exception):
    """A request that is not answered.

    Args:
        error_class: of the registry of error classes.
        detail: one line: what, which, why, what to do.
        status: of HTTP; by default that of the class.
    """

    def __init__(self, error_class: str, detail: str, status: int = 0) -> None:
        super().__init__(error_class, detail)
        self.error_class, self.detail = error_class, detail
        self.status = status or STATUSES.get(error_class, 422)


def problem_of(error: BaseException) -> Problem:
    """Return the problem that an error is; one of the program itself shows nothing of its cause."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RemovedRows):
        return Problem("forgotten", str(error))
    if isinstance(error, NotMaterialized):
        return Problem("not_found", str(error))
    if isinstance(error, ProcessFailure | ChildDied | ChildTimeout | BadAnswer):
        return Problem("model_crash", f"the model's process ended: {error}; send the request again")
    if isinstance(error, SampleError):
        return Problem(error.error_class, error.message)
    if isinstance(error, DamagedFiles):
        return Problem("store_error", str(error), 500)
    if isinstance(error, UserError):
        return Problem("bad_request", str(error))
    if isinstance(error, OutOfMemory):
        return Problem("memory_limit", "the request takes more memory than a statement may; narrow it down")
    if isinstance(error, Exception) and is_filter_error(error):
        return Problem("bad_request", f"the filter cannot be applied: {error}")
    if isinstance(error, OSError) or is_missing_file(error) or _is_unanswered(error):
        _log.warning("the store does not answer: %s", one_line(error))
        return Problem("store_error", "the store does not answer; send the request again")
    _log.error("%s", redact_text("".join(traceback.format_exception(error))))
    return Problem("internal_error", "a mistake of the program; its cause is in the log of the service")


def _is_unanswered(error: BaseException) -> bool:
    return isinstance(error, Exception) and is_unanswered(error)


def one_line(text: object) -> str:
    """Return a text in one line of a bounded length, without secrets and control characters."""
    return escape_terminal(redact_text(" ".join(str(text).split())))[:_LONGEST]


def problem_body(problem: Problem) -> dict[str, Any]:
    """Return the members of a problem's document."""
    entry = lookup(problem.error_class)
    return {
        "type": problem.error_class,
        "title": entry.meaning if entry else problem.error_class,
        "status": problem.status,
        "detail": one_line(problem.detail),
        "action": entry.action if entry else "",
    }


def problem_response(problem: Problem, headers: Mapping[str, str] = {}) -> Response:
    """Return a problem as the answer to a request."""
    more = dict(headers)
    if problem.status in (429, 503):
        more["Retry-After"] = str(_RETRY_AFTER)
    if problem.status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="mm"'
    body = json.dumps(problem_body(problem), ensure_ascii=False).encode()
    return Response(body, problem.status, more, PROBLEM_TYPE)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "not_found" if error.status_code == 404 else "bad_request"
    detail = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
    return problem_response(Problem(kind, detail, error.status_code), error.headers or {})


async def _answer_validation(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(map(str, item['loc'][1:])) or item['loc'][0]}: {item['msg']}" for item in error.errors()
    ]
    return problem_response(Problem("bad_request", "; ".join(faults[:3])))


async def _answer_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
    return problem_response(problem_of(error))


def answer_with_problems(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    # By their types: the handler of `Exception` itself would also raise the error again.
    for kind in (Problem, UserError, SampleError, OSError, ChildDied, ChildTimeout, BadAnswer, OutOfMemory):
        app.add_exception_handler(kind, _answer_error)
