"""A breaker: the count of children that ended one after the other, without one answer in between."""

from __future__ import annotations

import threading

from mm_embed_kernels.errors import ProcessFailure
from mm_embed_kernels.sandbox.child_process import OUT_OF_MEMORY_EXIT, ChildDied, ChildTimeout

# Children in a row that were ended from outside, whatever they computed.
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
        """Note an answer."""
        self._answered = True
        self.clear()

    def add_death(self, end: ChildDied | ChildTimeout) -> None:
        """Note the end of a child.

        Raises:
            ProcessFailure: when too many have died.
        """
        if isinstance(end, ChildTimeout) or end.exitcode == OUT_OF_MEMORY_EXIT:
            return
        with self._lock:
            self._killed += end.outside
            self._crashed += not end.outside and not self._answered
            killed, crashed = self._killed, self._crashed
        if killed >= _MOST_KILLED:
            raise ProcessFailure(
                f"{killed} child processes were ended by {end} in a row, without one answer; no sample is "
                "blamed; free memory of this machine (the kernel kills what takes much), and run the same "
                "command again"
            )
        if crashed >= _MOST_CRASHED:
            raise ProcessFailure(
                f"{crashed} child processes died in a row, the last with {end}, and none has answered; no "
                "sample is blamed; `mm doctor` checks the sandbox; mend the libraries that decode, and run "
                "the same command again"
            )
