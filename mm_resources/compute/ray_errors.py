"""Causes of a failed connection to Ray, which differ by their messages alone.

This is the one module that reads Ray's messages (Ray 2.60); everything else catches types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class ConnectionCause(Enum):
    """The cause of a failed connection."""

    OTHER_VERSION = auto()
    NO_LOCAL_NODE = auto()
    NO_TOKEN = auto()
    NO_ANSWER = auto()


@dataclass(frozen=True)
class ConnectionFailure:
    """A failed connection.

    Attributes:
        cause: what is wrong.
        text: Ray's message, on one line.
    """

    cause: ConnectionCause
    text: str


def connection_failure(error: Exception) -> ConnectionFailure:
    """Return the cause of an error of `ray.init`. Ray states it in the exception's cause."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if "Version mismatch" in text:
        return ConnectionFailure(ConnectionCause.OTHER_VERSION, text)
    if "No node info found" in text:
        return ConnectionFailure(ConnectionCause.NO_LOCAL_NODE, text)
    # The cluster refuses the token, or a token is configured and this process has none.
    if "InvalidAuthToken" in text or "RAY_AUTH_TOKEN_PATH" in text:
        return ConnectionFailure(ConnectionCause.NO_TOKEN, text)
    return ConnectionFailure(ConnectionCause.NO_ANSWER, text)
