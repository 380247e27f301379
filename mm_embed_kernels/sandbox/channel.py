"""Messages between a process and its child, over a socket: pickled to the child, as plain values back.

The child is not trusted: what it sends is never unpickled, and has a bound on its size and on the time that
it takes.
"""

from __future__ import annotations

import array
import io
import pickle
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm_embed_kernels.sandbox.answers import ANSWER_BYTES, BadAnswer, pack_parts, unpack_answer
from mm_embed_kernels.sandbox.held_file import HeldFile, UnopenedFile
from mm_embed_kernels.sandbox.main_module import NAMES, load_main

# Length of the message, and number of its descriptors.
_HEADER = struct.Struct("<QI")
# Time for a message to pass, however slow the machine, and least time for an answer that has begun; a child
# that stops in its middle is no longer heard.
_SECONDS, _ANSWER_SECONDS, _BYTES_PER_SECOND = 120.0, 30.0, 1 << 20
_READ_BYTES = 1 << 20
# Room for an answer at first, whatever it says of its size, and most of it that is kept for the next one.
_FIRST_BYTES, _KEPT_BYTES = 1 << 20, 16 << 20
_DESCRIPTORS = 250  # the kernel takes 253 at a time


class LateAnswer(Exception):
    """An answer that has begun and does not come to its end.

    Attributes:
        seconds: in which it did not.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Parcel:
    """An object, pickled, with the descriptors that travel with it; several children may be sent it.

    Raises:
        Exception: whatever pickling it raises, which no child is the cause of.
    """

    def __init__(self, message: Any) -> None:
        sink = io.BytesIO()
        self._pickler = _Pickler(sink)
        try:
            self._pickler.dump(message)
        except BaseException:
            self.close()
            raise
        self.body, self.descriptors = sink.getbuffer(), self._pickler.descriptors

    def __enter__(self) -> Parcel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pickler.close()


class Channel:
    """The parent's end: sends objects, and receives answers; `multiprocessing.connection.wait` takes it.

    Attributes:
        answer_bytes: most bytes of an answer.
    """

    def __init__(self, connected: socket.socket, answer_bytes: int = ANSWER_BYTES) -> None:
        self._socket, self.answer_bytes = connected, answer_bytes
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def poll(self) -> bool:
        """Return whether a message has begun to arrive; False at the end of the stream."""
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def send(self, message: Any) -> None:
        """Send an object; open files and paths of files travel as descriptors.

        Raises:
            OSError: when the child does not take it.
        """
        with Parcel(message) as parcel:
            self.send_parcel(parcel)

    def send_parcel(self, parcel: Parcel) -> None:
        """Send an object that is pickled; raises as `send`."""
        body, descriptors = parcel.body, parcel.descriptors
        self._deadline = time.monotonic() + _SECONDS + len(body) / _BYTES_PER_SECOND
        self._send(_HEADER.pack(len(body), len(descriptors)))
        for start in range(0, len(descriptors), _DESCRIPTORS):
            self._set_timeout()
            socket.send_fds(self._socket, [b"f"], descriptors[start : start + _DESCRIPTORS])
        self._send(body)

    def recv(self, seconds: float = 0.0) -> Any:
        """Return the next answer, which has begun to arrive.

        Args:
            seconds: time for all of it, if that is more than an answer of its size has anyway.

        Raises:
            EOFError: at the end of the stream.
            BadAnswer: for one that is malformed or too large.
            LateAnswer: for one that does not come to its end.
        """
        began, limit = time.monotonic(), max(seconds, _ANSWER_SECONDS)
        try:
            self._deadline = began + limit
            size, descriptors = _HEADER.unpack(self._receive(_HEADER.size))
            if descriptors or size > self.answer_bytes:
                raise BadAnswer(f"it has {size:,} bytes, more than {self.answer_bytes:,}")
            limit = max(limit, size / _BYTES_PER_SECOND)
            self._deadline = began + limit
            body = self._receive(size)
        except TimeoutError:
            raise LateAnswer(limit) from None
        return unpack_answer(body)

    def close(self) -> None:
        self._socket.close()

    def _send(self, body: bytes | memoryview) -> None:
        self._set_timeout()
        self._socket.sendall(body)

    def _receive(self, size: int) -> memoryview:
        """Return the next bytes, until the next call; the pages of a fresh buffer would cost more."""
        buffer, filled = self._buffer, 0
        while filled < size:
            if filled == len(buffer):  # it is what it said: room for as much again
                # A new one: the last answer may still be looked at.
                buffer = buffer + bytes(min(size - filled, max(filled, _FIRST_BYTES)))
            self._set_timeout()
            count = self._socket.recv_into(memoryview(buffer)[filled:size])
            if not count:
                raise EOFError
            filled += count
        if len(buffer) <= _KEPT_BYTES:
            self._buffer = buffer
        return memoryview(buffer)[:size]

    def _set_timeout(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class ChildChannel:
    """The child's end: receives objects, and sends answers."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def recv(self) -> Any:
        """Return the next object.

        Raises:
            EOFError: when the parent has closed its end.
        """
        size, count = _HEADER.unpack(self._receive(_HEADER.size))
        descriptors: list[int] = []
        while len(descriptors) < count:
            due = min(_DESCRIPTORS, count - len(descriptors))
            # Not `socket.recv_fds`, which leaves them open for programs to inherit.
            _, extra, _, _ = self._socket.recvmsg(1, socket.CMSG_LEN(4 * due), socket.MSG_CMSG_CLOEXEC)
            held = array.array("i")
            for _, _, data in extra:
                held.frombytes(data)
            if not held:
                raise EOFError
            descriptors += held
        return _Unpickler(io.BytesIO(self._receive(size)), descriptors).load()

    def send(self, answer: Any) -> None:
        """Send an answer."""
        first, *more = pack_parts(answer)
        self._socket.sendall(_HEADER.pack(len(first) + sum(map(len, more)), 0) + first)
        for part in more:
            self._socket.sendall(part)

    def _receive(self, size: int) -> bytearray:
        body = bytearray(size)
        view, filled = memoryview(body), 0
        while filled < size:
            count = self._socket.recv_into(view[filled:], min(size - filled, _READ_BYTES))
            if not count:
                raise EOFError
            filled += count
        return body


def loads(pickled: bytes) -> Any:
    """Unpickle, in a child, what may come from the parent's main module."""
    return _Unpickler(io.BytesIO(pickled), ()).load()


class _Pickler(pickle.Pickler):
    """Sends an open file or the path of a file as a descriptor, since the child may open none itself."""

    def __init__(self, sink: io.BytesIO) -> None:
        super().__init__(sink, protocol=pickle.HIGHEST_PROTOCOL)
        self.descriptors: list[int] = []
        self._opened: list[Any] = []

    def persistent_id(self, item: Any) -> Any:
        if isinstance(item, Path):
            try:
                item = item.open("rb", buffering=0)
            except IsADirectoryError:
                return None
            except OSError as error:
                return -1, str(item), error.strerror or type(error).__name__
            self._opened.append(item)
        elif not isinstance(item, io.IOBase) or isinstance(item, io.BytesIO):
            return None
        self.descriptors.append(item.fileno())
        return len(self.descriptors) - 1, str(item.name), item.writable()

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


class _Unpickler(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, descriptors: Sequence[int]) -> None:
        super().__init__(source)
        self._descriptors = descriptors

    def persistent_load(self, held: tuple[int, str, bool | str]) -> Any:
        place, name, writable = held
        if isinstance(writable, str):
            return UnopenedFile.from_cause(name, writable)
        if writable:
            return open(self._descriptors[place], "r+b", buffering=0)
        return HeldFile.from_descriptor(name, self._descriptors[place])

    def find_class(self, module: str, name: str) -> Any:
        if module in NAMES:
            load_main()
        return super().find_class(module, name)
