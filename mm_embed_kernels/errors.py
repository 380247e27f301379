"""The two kinds of trouble: a sample's (recorded, the batch goes on) and the user's (one clear line)."""

from __future__ import annotations

import re

from mm_embed_kernels.identity import digest

# Causes that may be gone in seconds: tried again inside the run. Other retryable ones wait for a person or a later run.
TRANSIENT = ("fetch_error", "store_error")
_VOLATILE = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{16,}|'[^']*'|\"[^\"]*\"|\d+")


class SampleError(Exception):
    """One sample cannot go on: becomes a failure event.

    Args:
        error_class: a short, stable word for the cause (``truncated``, ``zero_length``, ``wrong_modality`` ...).
        message: one line that a person can act on.
        retryable: True when the same bytes may pass later (a network fault), False when they never will.
    """

    def __init__(self, error_class: str, message: str, retryable: bool = False) -> None:
        super().__init__(error_class, message, retryable)  # all in args, so that it survives pickling
        self.error_class = error_class
        # Decoders quote what they choke on: unpaired surrogates, which no table holds, are shown as escapes.
        self.message = " ".join(message.split())[:500].encode("utf-8", "backslashreplace").decode("utf-8")
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.error_class}: {self.message}"


class UserError(Exception):
    """A mistake that the user can mend; shown as one line without a traceback."""


class Interrupted(Exception):
    """The user asked to stop; what is committed stays, and the same command goes on there."""


def error_fingerprint(stage: str, error_class: str, message: str) -> str:
    """Same cause, same value: numbers, hashes, addresses and quoted names are left out of the message."""
    return digest("error", stage, error_class, _VOLATILE.sub("*", message))[:16]
