"""A process of a fresh interpreter, with the parent's import path, few variables, and one socket.

`multiprocessing` imports the parent's main module first, hands its secret key over, and unpickles what the
child answers; none of these suits a process that is to be confined.
"""

from __future__ import annotations

import multiprocessing.spawn
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from typing import Any

from mm_embed_kernels.sandbox.channel import Channel, ChildChannel
from mm_embed_kernels.sandbox.confinement import close_descriptors, hide_memory
from mm_embed_kernels.sandbox.main_module import describe_main, name_main

# The import path comes in one argument, so that nothing is imported before it is set.
_BOOT = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); "
    "from mm_embed_kernels.sandbox.spawned_process import spawn_main; spawn_main(int(sys.argv.pop()))"
)


class SpawnedProcess:
    """A running process, with the methods of `multiprocessing.Process` that its parent needs.

    Args:
        serve: called in the process, with its `ChildChannel` and `arguments`; picklable.
        arguments: picklable.
        environment: all variables of the process.
        answer_bytes: most bytes of an answer.

    Attributes:
        channel: the parent's end of its messages.
        pid: number of the process.
        sentinel: readable once the process has ended, for `multiprocessing.connection.wait`.
    """

    def __init__(
        self,
        serve: Callable[..., None],
        arguments: tuple[Any, ...],
        environment: Mapping[str, str],
        answer_bytes: int,
    ) -> None:
        hide_memory()
        described = describe_main()
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.channel, self.pid = Channel(mine, answer_bytes), self._process.pid
        try:
            self.sentinel = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # Not in every Python and kernel; the channel, too, is readable once the process has ended.
            self.sentinel = os.dup(mine.fileno())
        try:
            self.channel.send(described)
            self.channel.send((serve, arguments))
        except OSError:
            pass  # it has ended, which the first item finds

    @property
    def exitcode(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.returncode

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end of the process, at most so long."""
        wait([self.sentinel], seconds)
        if seconds is None:
            self._process.wait()
        else:
            self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Release the descriptors of a process that has ended."""
        if self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1
        self.channel.close()


def spawn_main(descriptor: int) -> None:
    """Do what the parent asks of this process; runs in the child."""
    close_descriptors([descriptor])
    channel = ChildChannel(socket.socket(fileno=descriptor))
    name_main(channel.recv())
    serve, arguments = channel.recv()
    serve(channel, *arguments)


def _command(descriptor: int) -> list[str]:
    """Return the command that starts a child with the interpreter, its flags, and the import path."""
    executable = os.fsdecode(multiprocessing.spawn.get_executable() or sys.executable)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as multiprocessing does
    path = "\n".join(os.path.abspath(entry) for entry in sys.path)  # "" is the current folder
    return [executable, *flags, "-P", "-c", _BOOT, str(descriptor), path]
