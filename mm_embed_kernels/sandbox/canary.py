"""Canaries: calls that a healthy child answers, made where children die one after the other.

Where the canary is answered, the items are the cause of the deaths, however many; otherwise the machine or a
library is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels.sandbox.answers import BadAnswer
from mm_embed_kernels.sandbox.child_process import Child, ChildDied, ChildTimeout

# Memory that a canary takes: a machine that cannot spare it for one child computes nothing.
_BYTES = 64 << 20
# Children that are tried until one answers, and the own time of each.
_TRIES, _SECONDS = 3, 120.0


def _do_nothing() -> None:
    """Return at once."""


@dataclass(frozen=True)
class Canary:
    """A call that takes some memory; picklable.

    Attributes:
        function: what the items' function depends on; it raises nothing in a healthy child.
        item: its arguments.
    """

    function: Callable[..., Any] = _do_nothing
    item: tuple[Any, ...] = ()

    def __call__(self) -> str:
        """Return what the call raises, in words, "" for nothing; runs inside the sandbox."""
        taken = b"\1" * _BYTES
        try:
            self.function(*self.item)
        except Exception as error:  # noqa: BLE001 - a broken library may raise anything; the parent reports it
            return f"{type(error).__name__}: {error}"
        assert len(taken) == _BYTES
        return ""

    def fault_in(self, child: Child) -> str:
        """Call the canary in new processes of a child; return why none is healthy, in words, or "".

        Raises:
            ProcessFailure: when no process can be started.
        """
        fault = ""
        for _ in range(_TRIES):
            child.close()
            try:
                (answer,) = child.ask(self, [()], _SECONDS)
            except ChildDied as end:
                fault = f"its process died with {end}"
            except BadAnswer as refused:
                fault = f"its answer is refused: {refused}"
            except ChildTimeout as end:
                fault = f"it takes longer than {end.excess}"
            else:
                fault = str(answer)[:1000]
            if not fault:
                return ""
        return fault
