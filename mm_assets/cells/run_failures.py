"""Failures of a run in one line: raise them, and recognize them in the event log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError

# Metadata of the failure of a stage behind a closed gate: the stage that closed it.
_CLOSED_BY = "mm/gate_closed_by"


class GateClosed(Exception):
    """The gate of an upstream stage is closed.

    Attributes:
        stage: the stage that closed it.
        reason: the stored verdict.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"the gate of {stage} is closed: {reason}")
        self.stage, self.reason = stage, reason


@contextmanager
def one_line_failures() -> Iterator[None]:
    """Convert user errors to one-line Dagster failures without retries."""
    try:
        with sql.typed_errors():
            yield
    except GateClosed as error:
        raise dg.Failure(str(error), {_CLOSED_BY: error.stage}, allow_retries=False) from error
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except sql.OutOfMemory as error:
        raise dg.Failure(
            f"a join needs more memory than MM_SQL_MEMORY={sql.memory_limit()} allows; set it higher",
            allow_retries=False,
        ) from error


def is_closed_gate(event: dg.DagsterEvent) -> bool:
    """Return whether a step failed because the gate of an earlier stage is closed."""
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    return failure is not None and _CLOSED_BY in failure.metadata
