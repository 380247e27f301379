"""Failures of a run in one line: raise them, and recognize them in the event log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mm_assets.cells.checks import GateClosed
from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError, sentence_of
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.urls import redact_text

# Errors of a chain that are read.
_CHAIN = 50
# Metadata of the failure of a stage behind a closed gate: the stage that closed it.
_CLOSED_BY = "mm/gate_closed_by"


@contextmanager
def one_line_failures() -> Iterator[None]:
    """Convert user errors to one-line Dagster failures without retries."""
    try:
        with sql.typed_errors():
            yield
    except GateClosed as error:
        text = escape_terminal(redact_text(str(error)))
        raise dg.Failure(text, {_CLOSED_BY: error.stage}, allow_retries=False) from error
    except UserError as error:
        raise dg.Failure(escape_terminal(error), allow_retries=False) from _cause(error)
    except dg.Failure:
        raise
    except sql.OutOfMemory as error:
        raise dg.Failure(
            f"a join needs more memory than MM_SQL_MEMORY={sql.memory_limit()} allows; set it higher",
            allow_retries=False,
        ) from error
    except Exception as error:
        # A client's error that quotes a URL with its signature would stand in the event log with its causes.
        if _cause(error) is not None:
            raise
        text = sentence_of(type(error).__name__, str(error))
        raise dg.Failure(escape_terminal(redact_text(text))) from None


def _cause(error: BaseException) -> BaseException | None:
    """Return an error as the cause that Dagster's log quotes; None where its chain quotes a URL's secrets."""
    link: BaseException | None = error
    for _ in range(_CHAIN):
        if link is None:
            return error
        if redact_text(str(link)) != str(link):
            return None
        link = link.__cause__ or link.__context__
    return None


def is_closed_gate(event: dg.DagsterEvent) -> bool:
    """Return whether a step failed because the gate of an earlier stage is closed."""
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    return failure is not None and _CLOSED_BY in failure.metadata
