"""Types for the errors of Lance and LanceDB, some of which differ by their messages alone.

This is the one module that reads such messages (pylance 14, LanceDB 0.40); everything else catches types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mm_embed_kernels.messages import message_line

# `, /home/.../scanner.rs:842:32` behind a message.
_PLACE = re.compile(r",? ?/\S+\.rs:\d+:\d+")
# The object store repeats requests that got no answer, or one of a server in trouble.
_UNANSWERED = re.compile(r"error sending request|after [1-9]\d* retries|timed out|connection (refused|reset)")
# A file inside a dataset: `Not found: tmp/store/t.lance/data/0110.lance`.
_MISSING_FILE = re.compile(r"not found.*\.lance/|\.lance/.*not found", re.DOTALL)
_CONFLICTS = ("conflict", "too many concurrent writers", "incompatible transaction")


class Fenced(RuntimeError):
    """Another writer has precedence: a newer run, a dead-run mark, a moved pin or alias.

    Nothing was published.
    """


class CommitConflict(OSError):
    """Another writer committed first, and this commit does not apply on top of its version."""


@contextmanager
def commit_conflicts() -> Iterator[None]:
    """Raise a commit that lost a race as `CommitConflict`; any other error passes unchanged."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if any(words in str(error).lower() for words in _CONFLICTS):
            raise CommitConflict(str(error)) from error
        raise


def is_missing(error: Exception) -> bool:
    """Return whether a dataset could not be opened because it, its version or its tag does not exist."""
    return isinstance(error, FileNotFoundError) or "not found" in str(error).lower()


def is_missing_file(error: BaseException) -> bool:
    """Return whether a file of a dataset is gone, whatever reads it: Lance, LanceDB, a stream in DuckDB."""
    return _MISSING_FILE.search(str(error).lower()) is not None


def is_unanswered(error: Exception) -> bool:
    """Return whether a remote store has not answered Lance, which raises a ValueError when it opens one."""
    return _UNANSWERED.search(str(error).lower()) is not None


def is_filter_error(error: Exception) -> bool:
    """Return whether a filter failed on the rows that it was applied to, whatever reads their stream."""
    return "applying filter expression" in str(error)


def is_lance_error(error: BaseException) -> bool:
    """Return whether Lance raised an error; its panics, at unexpected bytes, are no Exceptions."""
    return isinstance(error, OSError | RuntimeError | ValueError) or type(error).__name__ == "PanicException"


def cause_of(error: BaseException) -> str:
    """Return the message of an error in one line, without the place in Lance's source."""
    return _PLACE.sub("", message_line(error))
