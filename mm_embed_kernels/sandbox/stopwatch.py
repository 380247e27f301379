"""The time that a child itself takes, as distinct from that in which a busy machine keeps it waiting."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

# Longest and shortest time between two looks at a child that has not answered.
_LONGEST_TICK, _SHORTEST_TICK = 1.0, 0.05
# Looks within the own time of an item.
_TICKS = 8
# A child that uses less of a core than this, while all its threads sleep, waits for nothing but itself.
_IDLE_SHARE = 0.05
# States of a thread (proc_pid_stat(5)) that sleeps or has ended.
_ASLEEP = frozenset("SIZX")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def thread_count(pid: int) -> int:
    """Return the number of threads of a process; 0 where /proc does not show it."""
    try:
        return max(0, os.stat(f"/proc/{pid}/task").st_nlink - 2)
    except OSError:
        return 0


class Stopwatch:
    """Measures one answer of a child.

    Not charged: time in which the child is stopped, waits for a core or for a disk, or in which its parent
    was kept from looking. Threads that compute at once are charged once. The child is first looked at after
    one tick, so that quick answers cost nothing; that tick is not charged.

    Args:
        pid: of the child.
        own_seconds: in which it may compute, or sleep although nothing hinders it (a deadlock).
        wall_seconds: on the clock: a far backstop for a child that is stopped or starved without end.
    """

    def __init__(self, pid: int, own_seconds: float, wall_seconds: float) -> None:
        self._pid, self._own_seconds, self._wall_seconds = pid, own_seconds, wall_seconds
        self.tick = min(_LONGEST_TICK, max(_SHORTEST_TICK, own_seconds / _TICKS))
        self._began = self._last = time.monotonic()
        self._cpu: float | None = None
        self._own = 0.0

    def excess(self) -> str:
        """Return what the child has exceeded, in words; "" while it is within its allowance."""
        now = time.monotonic()
        passed, self._last = min(now - self._last, 2 * self.tick), now
        cpu, states = _activity(self._pid)
        if self._cpu is not None:
            self._own += _own_time(passed, cpu - self._cpu, states)
        self._cpu = cpu
        if self._own > self._own_seconds:
            return f"{self._own_seconds:g} s"
        if now - self._began > self._wall_seconds:
            return f"{self._wall_seconds:g} s on the clock, stopped or starved by the machine"
        return ""


def _own_time(passed: float, cpu: float, states: str) -> float:
    """Return the part of a span that is the child's own.

    Args:
        passed: seconds of the span.
        cpu: seconds of all threads on a core.
        states: of its threads, one letter each.
    """
    if not states:  # /proc does not show the child to its parent: the clock alone ends it
        return 0.0
    if cpu < _IDLE_SHARE * passed:
        return passed if _ASLEEP.issuperset(states) else 0.0
    # On a machine with enough cores, threads that are ready to run all run.
    ready = min(states.count("R"), len(os.sched_getaffinity(0)))
    return min(passed, cpu / max(1, ready))


def _activity(pid: int) -> tuple[float, str]:
    """Return the CPU seconds of a process, and the states of its threads, one letter each."""
    cpu, states = 0.0, ""
    # Threads end meanwhile; so may the process, which its parent then notices by itself. Where /proc is
    # mounted with `hidepid`, it shows no process that is closed to others.
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        fields = _stat(Path(f"/proc/{pid}/stat"))
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                states += _stat(thread / "stat")[0]
    return cpu, states


def _stat(path: Path) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state, on; a name may contain anything."""
    return re.sub(r"^.*\) ", "", path.read_text(errors="replace"), flags=re.DOTALL).split()
