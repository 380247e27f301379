"""One spawned process that works for its parent: it can die, hang or balloon without harm to anybody else.

Not a process pool of a library: Pebble 5.2 and `concurrent.futures` hand out chunks whose answers come all at once, so that
nobody knows which item killed a worker, and both are broken for good when a worker dies while it is idle.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

OUT_OF_MEMORY_EXIT = 86  # exit code of a child that gave up because it could have no more memory
_LAST_SECONDS = 5.0  # between closing its pipe and being dead
_PR_SET_PDEATHSIG = 1


class ChildDied(Exception):
    """The process ended before it answered.

    Attributes:
        exitcode: as `multiprocessing` gives it: negative for a signal.
        fresh: whether the item was the first that the process ever saw, so that no other one can be at fault.
    """

    def __init__(self, exitcode: int, fresh: bool) -> None:
        super().__init__(exitcode, fresh)
        self.exitcode, self.fresh = exitcode, fresh

    def __str__(self) -> str:
        return signal.Signals(-self.exitcode).name if self.exitcode < 0 else f"exit code {self.exitcode}"


class ChildTimeout(Exception):
    """The answer did not come in time; the process was killed."""


class Child:
    """A process that is started when it is first asked, and again after it died.

    Args:
        enter: called first in each process, with `args`; picklable.
        parent: whether it may have children of its own.
    """

    def __init__(self, enter: Callable[..., None], *args: Any, parent: bool = False) -> None:
        self._enter, self._args, self._parent = enter, args, parent
        self._process: Any = None
        self._pipe: Any = None
        self._answered = 0

    def ask(
        self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]], seconds: float
    ) -> Iterator[Any]:
        """``function(*item)`` for each item, in order, as they are answered; the function must not raise.

        Raises:
            ChildDied: by the item whose answer is due.
            ChildTimeout: likewise, when it took longer than `seconds`.
        """
        if self._process is None or not self._process.is_alive():
            self.close()
            _starter().submit(self._start).result()
        try:
            self._pipe.send((function, items))
            for _ in items:
                # Both, since a process that this one has forked may keep the pipe open.
                if not wait([self._pipe, self._process.sentinel], seconds):
                    self.close()
                    raise ChildTimeout
                if not self._pipe.poll():
                    raise EOFError
                answer = self._pipe.recv()
                self._answered += 1
                yield answer
        except (EOFError, OSError):
            self._process.join(_LAST_SECONDS)
            self._process.kill()
            self._process.join()
            raise ChildDied(self._process.exitcode, self._answered == 0) from None
        except BaseException:
            self.close()  # answers that nobody waits for must not be taken for the next ones
            raise

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, self._enter, self._args), daemon=not self._parent
        )
        self._answered = 0
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """Kill the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


@cache
def _starter() -> ThreadPoolExecutor:
    """A thread that lasts: Linux tells a child of its parent's death when the thread that started it ends."""
    return ThreadPoolExecutor(1, thread_name_prefix="mm-starter")


def _serve(pipe: Connection, enter: Callable[..., None], args: tuple[Any, ...]) -> None:
    enter(*args)
    while True:
        try:
            function, items = pipe.recv()
        except EOFError:
            return
        except MemoryError:
            os._exit(OUT_OF_MEMORY_EXIT)
        for item in items:
            pipe.send(function(*item))


def die_with_parent() -> None:
    """No orphan, no core file; whether Ctrl-C ends the work is the parent's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def silence_output() -> None:
    """Decoders written in C say what they like, in a file's own words; it belongs on nobody's terminal and in no JSON."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def forget_environment(kept: Sequence[str], **added: str) -> None:
    """Leave of the environment what is `kept`, in this process and for whoever reads ``/proc/PID/environ``."""
    left = {name: os.environ[name] for name in kept if name in os.environ}
    os.environ.clear()
    os.environ.update(left, **added)
    # What the process was started with stays where the kernel put it, whatever is unset. Fields 50 and 51 of proc_pid_stat(5),
    # of which the first two are cut off here.
    fields = re.sub(r"^.*\) ", "", Path("/proc/self/stat").read_text(), flags=re.DOTALL).split()
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)
