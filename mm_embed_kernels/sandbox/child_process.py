"""A spawned process that works for its parent, and may crash, hang or take much memory without harming it.

Process pools of libraries do not serve: Pebble 5.2 and `concurrent.futures` return the answers of a chunk all
at once, so that the item that killed a worker is unknown, and both stay broken when a worker dies while it is
idle.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mm_embed_kernels.sandbox.lasting_thread import LastingThread

# Exit code of a child that ended itself because an allocation failed.
OUT_OF_MEMORY_EXIT = 86
# Time between the end of its pipe and that of the process.
_EXIT_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
# Children ask to die with the thread that started them.
_starter = LastingThread("mm-starter")


_exiting = False


def refuse_children() -> None:
    """Start no child process from now on: this process exits, and would wait for a child born meanwhile.

    Threads that compute in the background continue to the very end, and replace a child that the exit killed.
    """
    global _exiting
    _exiting = True
    _starter.call(lambda: None)  # returns after the start in progress, whose child the caller then kills


class ChildDied(Exception):
    """The process ended before it answered.

    Attributes:
        exitcode: as `multiprocessing` gives it: negative for a signal.
        fresh: whether the item was the first of the process, so that no other one can be the cause.
    """

    def __init__(self, exitcode: int, fresh: bool) -> None:
        super().__init__(exitcode, fresh)
        self.exitcode, self.fresh = exitcode, fresh

    def __str__(self) -> str:
        return signal.Signals(-self.exitcode).name if self.exitcode < 0 else f"exit code {self.exitcode}"


class ChildTimeout(Exception):
    """The answer did not come in time; the process was killed."""


class Child:
    """A process that the first `ask` starts, and the next one after its death.

    Args:
        enter: called first in each process, with `args`; picklable.
        args: picklable.
        parent: whether the process may have children of its own.
    """

    def __init__(self, enter: Callable[..., None], *args: Any, parent: bool = False) -> None:
        self._enter, self._args, self._parent = enter, args, parent
        self._process: Any = None
        self._pipe: Any = None
        self._answers = 0

    def ask(
        self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]], seconds: float
    ) -> Iterator[Any]:
        """Stream ``function(*item)`` for each item, in order.

        Args:
            function: picklable; must not raise.
            items: its arguments, picklable.
            seconds: longest time between two answers.

        Raises:
            ChildDied: when the process ends; the item whose answer is due was the last one it worked on.
            ChildTimeout: when that item takes longer than `seconds`.
        """
        if self._process is None or not self._process.is_alive():
            self.close()
            _starter.call(self._start)
        try:
            self._pipe.send((function, items))
            for _ in items:
                # Both, since a process that the child has forked may keep the pipe open.
                if not wait([self._pipe, self._process.sentinel], seconds):
                    self.close()
                    raise ChildTimeout
                if not self._pipe.poll():
                    raise EOFError
                answer = self._pipe.recv()
                self._answers += 1
                yield answer
        except (EOFError, OSError):
            self._process.join(_EXIT_SECONDS)
            self._process.kill()
            self._process.join()
            raise ChildDied(self._process.exitcode, self._answers == 0) from None
        except BaseException:
            self.close()  # pending answers must not be read as those of the next items
            raise

    def _start(self) -> None:
        if _exiting:
            raise RuntimeError("this process is exiting and starts no child")
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, self._enter, self._args), daemon=not self._parent
        )
        self._answers = 0
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """Kill the process, even while it works."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection, enter: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Answer the parent's items, in the child, until the pipe is closed."""
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
    """End this process with its parent, leave Ctrl-C to the parent, and write no core file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def silence_output() -> None:
    """Redirect stdout and stderr to nowhere.

    Decoders written in C print lines that contain a file's own text, which must not reach a terminal or JSON
    output.
    """
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def forget_environment(names: Sequence[str], **added: str) -> None:
    """Remove all environment variables but `names`, also from ``/proc/PID/environ``, and set `added`."""
    kept = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, **added)
    # The block that the process was started with stays in its memory, whatever is unset. Its bounds are
    # fields 50 and 51 of proc_pid_stat(5), of which the first two are cut off here.
    fields = re.sub(r"^.*\) ", "", Path("/proc/self/stat").read_text(), flags=re.DOTALL).split()
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)
