"""A breaker: the count of children that ended one after the other, without one answer in between."""

from __future__ import annotations

import threading

from mm_embed_kernels.errors import ProcessFailure
from mm_embed_kernels.sandbox.child_process import OUT_OF_MEMORY_EXIT, ChildDied, ChildTimeout

# Children in a row that were ended from outside, after which a canary shows whether the items are the cause.
_MOST_KILLED = 8
# Children in a row that crashed before any child gave any answer. Later crashes are those of their items, of
# which a folder of damaged files may hold many.
_MOST_CRASHED = 32


class DeathCount:
    """Counts the deaths of a sandbox's children; its threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = False
        self.clear()

    def clear(self) -> None:
        """Count anew."""
        self._killed = self._crashed = 0

    def add_answer(self) -> None:
        """Note an answer, of an item or a canary."""
        self._answered = True
        self.clear()

    def add_death(self, end: ChildDied | ChildTimeout) -> bool:
        """Note the end of a child, and return whether enough have died for a canary."""
        if isinstance(end, ChildTimeout) or end.exitcode == OUT_OF_MEMORY_EXIT:
            return False
        with self._lock:
            self._killed += end.outside
            self._crashed += not end.outside and not self._answered
            return self._killed >= _MOST_KILLED or self._crashed >= _MOST_CRASHED

    def failure(self, fault: str) -> ProcessFailure:
        """Return the failure of a machine whose children die, canaries included.

        Args:
            fault: of a canary.
        """
        with self._lock:
            died = max(self._killed, self._crashed)
        return ProcessFailure(
            f"{died} child processes died in a row without one answer, and a healthy sample fails, too: "
            f"{fault}; no sample is blamed; free memory of this machine (the kernel kills what takes much), "
            "or mend the libraries that decode (`mm doctor` checks the sandbox); run the same command again"
        )
