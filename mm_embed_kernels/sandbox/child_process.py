"""A spawned process that works for its parent, and may crash, hang or take much memory without harming it.

Process pools of libraries do not serve: Pebble 5.2 and `concurrent.futures` return the answers of a chunk all
at once, so that the item that killed a worker is unknown, and both stay broken when a worker dies while it is
idle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from mm_embed_kernels.errors import ProcessFailure
from mm_embed_kernels.sandbox.answers import ANSWER_BYTES, BadAnswer
from mm_embed_kernels.sandbox.channel import ChildChannel, LateAnswer, Parcel
from mm_embed_kernels.sandbox.lasting_thread import LastingThread
from mm_embed_kernels.sandbox.spawned_process import SpawnedProcess
from mm_embed_kernels.sandbox.stopwatch import Stopwatch, thread_count

# Exit code of a child that ended itself because an allocation failed.
OUT_OF_MEMORY_EXIT = 86
# Exit code of a child that would start children of its own while it imports its parent's main module.
UNGUARDED_EXIT = 87
# In place of an exit code: a process that has closed its channel and lives, or has too many threads.
_CLOSED, _CROWDED = 256, 257
# A process with more threads than any library starts would take all process ids of the machine.
_MOST_THREADS = 2_048
_REASONS = {_CLOSED: "a closed channel", _CROWDED: f"more than {_MOST_THREADS:,} threads"}
# Signals by which a person or the kernel's OOM killer ends a process, whatever it computes.
OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
# Time of an answer on the clock, as a far backstop.
WALL_SECONDS = 1800.0
# Own time of a child to start and to import what it is asked to call.
_START_SECONDS = 120.0
# Tries to start a child: one that fails of itself will do so again, and what the machine ends may pass.
_OWN_STARTS, _STARTS, _START_PAUSE_SECONDS = 3, 6, 0.25
# Time between the end of its pipe and that of the process.
_EXIT_SECONDS = 5.0
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
        exitcode: as `multiprocessing` gives it, negative for a signal; or one of `_REASONS`.
        fresh: whether the item was the first of the process, so that no other one can be the cause.
        outside: whether a person or the machine ended the process, whatever it computed.
    """

    def __init__(self, exitcode: int, fresh: bool) -> None:
        super().__init__(exitcode, fresh)
        self.exitcode, self.fresh = exitcode, fresh
        self.outside = -exitcode in OUTSIDE_SIGNALS

    def __str__(self) -> str:
        if self.exitcode in _REASONS:
            return _REASONS[self.exitcode]
        return signal.Signals(-self.exitcode).name if self.exitcode < 0 else f"exit code {self.exitcode}"


class ChildTimeout(Exception):
    """The answer did not come in time; the process was killed.

    Attributes:
        excess: the time that the process has exceeded, in words.
    """

    def __init__(self, excess: str) -> None:
        super().__init__(excess)
        self.excess = excess


class _NotStarted(Exception):
    """A child ended before it received its items.

    Attributes:
        cause: in words.
        outside: whether a person or the machine ended it.
    """

    def __init__(self, cause: str, outside: bool) -> None:
        super().__init__(cause, outside)
        self.cause, self.outside = cause, outside


class Child:
    """A process that the first `ask` starts, and the next one after its death.

    Args:
        enter: called first in each process, with `args`; picklable. It confines the process.
        args: picklable.
        environment: returns all variables of the process; by default it has none.
        answer_bytes: most bytes of an answer.
    """

    def __init__(
        self,
        enter: Callable[..., None],
        *args: Any,
        environment: Callable[[], Mapping[str, str]] = dict,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        self._enter, self._args = enter, args
        self._environment, self._answer_bytes = environment, answer_bytes
        self._process: Any = None
        self._pipe: Any = None
        self._answers = 0

    def ask(
        self,
        function: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        seconds: float,
        wall_seconds: float = WALL_SECONDS,
    ) -> Iterator[Any]:
        """Stream ``function(*item)`` for each item, in order.

        Args:
            function: picklable; must not raise.
            items: its arguments, picklable.
            seconds: own time (see `Stopwatch`) for each answer; the start of the process and its imports are
                not counted.
            wall_seconds: time for each answer on the clock.

        Raises:
            ChildDied: when the process ends; the item whose answer is due was the last one it worked on.
            ChildTimeout: when that item takes longer than it may.
            BadAnswer: when its answer is refused.
            ProcessFailure: when no process can be started.
        """
        self._hand_over(function, items)
        try:
            for _ in items:
                answer = self._receive(seconds, wall_seconds)
                self._answers += 1
                yield answer
        except (EOFError, OSError):
            raise ChildDied(self._end(), self._answers == 0) from None
        except BaseException:
            self.close()  # pending answers must not be read as those of the next items
            raise

    def _hand_over(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> None:
        """Send the items to a child that says that it has received them; replace one that ends before."""
        with Parcel((function, items)) as parcel:
            for tries in range(1, _STARTS + 1):
                try:
                    return self._hand_to_child(parcel)
                except _NotStarted as end:
                    if tries >= (_STARTS if end.outside else _OWN_STARTS):
                        raise ProcessFailure(
                            f"{tries} child processes ended before they began to work, the last with "
                            f"{end.cause}; no sample is blamed; free memory and process ids of this machine, "
                            "or mend what its Python imports, and run the same command again"
                        ) from None
                time.sleep(_START_PAUSE_SECONDS * 2**tries)

    def _hand_to_child(self, parcel: Parcel) -> None:
        if self._process is None or not self._process.is_alive() or self._pipe.poll():
            self.close()  # one that speaks when it is not asked answers for others
            try:
                _starter.call(self._start)
            except OSError as error:
                raise _NotStarted(f"{type(error).__name__}: {error}", outside=True) from None
        try:
            self._pipe.send_parcel(parcel)
            refusal = self._receive(_START_SECONDS, WALL_SECONDS)
        except (EOFError, OSError):
            end = ChildDied(self._end(), self._answers == 0)
            if end.exitcode == OUT_OF_MEMORY_EXIT:
                raise end from None  # the items are larger than its memory
            if end.exitcode == UNGUARDED_EXIT and end.fresh:  # else a taken-over decoder may say so
                raise ProcessFailure(
                    "no child process can start, since each runs the main script again; put what the script "
                    'does under `if __name__ == "__main__":`'
                ) from None
            raise _NotStarted(str(end), end.outside or self._answers > 0) from None
        except ChildTimeout as end:
            raise _NotStarted(f"nothing done after {end.excess}", outside=False) from None
        except BadAnswer as refused:
            self.close()
            raise _NotStarted(f"an answer that is refused: {refused}", outside=True) from None
        except BaseException:
            self.close()
            raise
        if refusal is not None:
            answers = self._answers
            self.close()
            if answers:  # those of this process are not its parent's code
                raise _NotStarted("an answer out of turn", outside=True)
            raise ProcessFailure(f"a child process cannot load what it is to call: {refusal}")

    def _receive(self, seconds: float, wall_seconds: float) -> Any:
        """Wait for the next message of the child."""
        watch = Stopwatch(self._process.pid, seconds, wall_seconds)
        self._require_few_threads()
        # Both, since a process that the child has forked may keep the pipe open.
        while not wait([self._pipe, self._process.sentinel], watch.tick):
            if excess := watch.excess():
                self.close()
                raise ChildTimeout(excess)
            self._require_few_threads()
        if not self._pipe.poll():
            raise EOFError
        try:
            return self._pipe.recv(seconds)
        except LateAnswer as late:
            self.close()
            raise ChildTimeout(f"{late.seconds:g} s for its answer") from None

    def _require_few_threads(self) -> None:
        if thread_count(self._process.pid) > _MOST_THREADS:
            self.close()
            raise ChildDied(_CROWDED, self._answers == 0)

    def _end(self) -> int:
        """Reap the process whose pipe has ended, and return its exit code."""
        self._process.join(_EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return _CLOSED
        return int(self._process.exitcode)

    @property
    def has_answered(self) -> bool:
        """Return whether a process runs that has answered before."""
        return self._process is not None and self._process.is_alive() and self._answers > 0

    def _start(self) -> None:
        if _exiting:
            raise RuntimeError("this process is exiting and starts no child")
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            os._exit(UNGUARDED_EXIT)  # without output: the parent reports the cause
        self._answers = 0
        self._process = SpawnedProcess(
            _serve, (self._enter, self._args), self._environment(), self._answer_bytes
        )
        self._pipe = self._process.channel

    def close(self) -> None:
        """Kill the process, even while it works."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None


def _serve(pipe: ChildChannel, enter: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Answer the parent's items, in the child, until the pipe is closed."""
    enter(*args)
    with suppress(BrokenPipeError):  # the parent is gone
        while True:
            try:
                function, items = pipe.recv()
            except EOFError:
                return
            except MemoryError:
                os._exit(OUT_OF_MEMORY_EXIT)
            except Exception as error:  # noqa: BLE001 - whatever an import of the function's module raises
                pipe.send(f"{type(error).__name__}: {error}")
                return
            pipe.send(None)  # received: what follows is the time of the items
            for item in items:
                try:
                    pipe.send(function(*item))
                except MemoryError:
                    os._exit(OUT_OF_MEMORY_EXIT)


def silence_output() -> None:
    """Redirect stdout and stderr to nowhere.

    Decoders written in C print lines that contain a file's own text, which must not reach a terminal or JSON
    output.
    """
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
