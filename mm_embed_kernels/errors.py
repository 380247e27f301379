"""Errors of samples, recorded as failures while the batch continues, and of users, printed as one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from signal import SIGINT
from typing import Any

from mm_embed_kernels.error_classes import require_declared
from mm_embed_kernels.escapes import escape_surrogates
from mm_embed_kernels.identity import digest
from mm_embed_kernels.urls import redact_text

# Characters of a message that are read, and stored; of a line for a person.
_READ, _STORED, _LINE = 8_000, 500, 10_000
_VOLATILE = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{16,}|'[^']*'|\"[^\"]*\"|\d+")


class SampleError(Exception):
    """One sample cannot be processed; becomes a failure event.

    Args:
        error_class: a name of the registry, `mm_embed_kernels.error_classes`.
        message: one line that a person can act on.
        retryable: True when the same bytes may pass later (a network fault), False when they never will.

    Raises:
        ValueError: when the error class is not declared.
    """

    def __init__(self, error_class: str, message: str, retryable: bool = False) -> None:
        require_declared(error_class)
        self._fill(error_class, message, retryable)

    def _fill(self, error_class: str, message: str, retryable: bool) -> None:
        super().__init__(error_class, redact_text(message[:_READ]), retryable)
        self.error_class = error_class
        # Clients quote URLs with their signatures. Decoders quote the bytes that they refuse; no table holds
        # unpaired surrogates, which become escapes.
        line = redact_text(" ".join(message[:_READ].split()))[:_STORED]
        self.message = escape_surrogates(line)
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore without the check: the plug-in that declares the class may not be imported here."""
        return restore_error, self.args

    def __str__(self) -> str:
        return f"{self.error_class}: {self.message}"


def restore_error(error_class: str, message: str, retryable: bool) -> SampleError:
    """Return the error of another process, whose class may not be declared in this one."""
    error = SampleError.__new__(SampleError)
    error._fill(error_class, message, retryable)
    return error


class UserError(Exception):
    """A mistake that the user can correct; printed as one line without a traceback, of a bounded length.

    Its text shows URLs without their users, queries and fragments, which may be secrets.
    """

    def __init__(self, *parts: object) -> None:
        super().__init__(*(_redact_line(part) if isinstance(part, str) else part for part in parts))


def _redact_line(part: str) -> str:
    text = redact_text(part[: 2 * _LINE])
    is_whole = len(part) <= 2 * _LINE and len(text) <= _LINE
    return text if is_whole else f"{text[:_LINE]}... ({len(part):,} characters)"


class ProcessFailure(UserError, RuntimeError):
    """Processes of this machine end without an answer: the run ends in one line, and no sample is blamed."""


# Errors whose text alone says little, by class, and the sentence that it completes.
_SENTENCES = {"KeyError": "there is no entry {}", "IndexError": "there is no entry at a position: {}"}
_WORDS = {
    "MemoryError": "out of memory", "TimeoutError": "no answer in time",
    "EOFError": "the data ends too early", "RecursionError": "it is nested too deep",
    "AssertionError": "a condition of the program does not hold",
}  # fmt: skip
_CLASS = re.compile(r"(?:\b[A-Za-z_]\w*\.)*\b[A-Z]\w*(?:Error|Exception|Failure|Timeout|Warning): (?=\S+ \S)")


def sentence_of(kind: str, message: str) -> str:
    """Return what an error says as a sentence: its message, without the names of classes.

    Args:
        kind: name of the error's class, of which the words stand where the message is empty.
        message: its message.
    """
    text = " ".join(message.split())
    name = kind.rpartition(".")[2]
    if not text:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.removesuffix("Error")).lower()
        return _WORDS.get(name, words or "no cause is given")
    return _SENTENCES[name].format(text) if name in _SENTENCES else without_classes(text)


def without_classes(message: str) -> str:
    """Return a message without the names of error classes in front of its sentences."""
    return _CLASS.sub("", message)


def unknown_choice(name: str, value: str, choices: Iterable[str]) -> UserError:
    """Return the error of a setting whose value is none of its choices."""
    known = list(choices)
    near = difflib.get_close_matches(value.lower(), known, 1, 0.7)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"{name} {value!r} is not known; there are: {', '.join(known) or 'none'}{meant}")


class Interrupted(Exception):
    """The user stopped the command; committed work stays, and the same command continues after it.

    Attributes:
        signal: number of the signal that stopped it.
    """

    def __init__(self, signal: int = SIGINT) -> None:
        super().__init__(signal)
        self.signal = signal


def error_fingerprint(stage: str, error_class: str, message: str) -> str:
    """Return a digest of the cause, without the message's numbers, hashes, addresses and quoted names."""
    return digest("error", stage, error_class, _VOLATILE.sub("*", message))[:16]
