"""Answers of a child that is not trusted: plain values as msgpack, counted before they are built.

An answer consists of None, booleans, numbers, strings, bytes, times, lists, tuples, dicts, arrays of numbers,
and `SampleError`s. A few bytes can stand for deep or wide nests of lists, so that the parent counts values
and depth of a message first, without building any.
"""

from __future__ import annotations

import re
import struct
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgpack

from mm_embed_kernels.errors import SampleError, restore_error

if TYPE_CHECKING:
    import numpy as np

# Most bytes of an answer, by default; values in it; and lists and dicts within each other.
ANSWER_BYTES = 256 << 20
ANSWER_VALUES = 2_000_000
ANSWER_DEPTH = 16
# What a value raises that msgpack does not pack.
_UNPACKABLE = (TypeError, ValueError, OverflowError, RecursionError, msgpack.PackException)
# Bytes from which on, and below which, an answer is sent without a copy.
_LARGE_BYTES, _MOST_PART_BYTES = 64 << 10, 1 << 31
_ARRAY, _ERROR, _TUPLE, _TIME = 1, 2, 3, 4  # types of msgpack's extensions
_ERROR_CLASS = re.compile(r"[a-z][a-z0-9_]{0,79}")
_NUMBERS = "?biufc"  # kinds of NumPy's types
_MAX_DIMENSIONS, _HEAD_BYTES = 8, 256
# msgpack's first byte -> bytes of the value behind it; a length in front of the bytes that it counts; or a
# length in front of the values that it counts (of pairs, for dicts).
_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **{0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
}
_BYTE, _SHORT, _LONG = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_COUNTED = {
    **{0xC4: _BYTE, 0xC5: _SHORT, 0xC6: _LONG, 0xD9: _BYTE, 0xDA: _SHORT},
    0xDB: _LONG,
}
# Extensions: a length, or the place of the length in front; then the type, then the bytes.
_EXTENSIONS: dict[int, Any] = {
    0xD4: 1,
    0xD5: 2,
    0xD6: 4,
    0xD7: 8,
    0xD8: 16,
    0xC7: _BYTE,
    0xC8: _SHORT,
    0xC9: _LONG,
}
# First byte, length and type of an extension of many bytes.
_LARGE_EXTENSION = struct.Struct(">BIB")
_NESTED = {0xDC: (_SHORT, 1), 0xDD: (_LONG, 1), 0xDE: (_SHORT, 2), 0xDF: (_LONG, 2)}


class BadAnswer(Exception):
    """An answer that is refused; the message completes "the answer is refused: "."""


def pack_answer(answer: Any) -> bytes:
    """Return an answer as bytes; one that is no plain value becomes a `SampleError`.

    Raises:
        MemoryError: when the memory of this process ends.
    """
    try:
        return _pack(answer)
    except MemoryError:  # no fault of the value; msgpack's own base class is that of all errors
        raise
    except _UNPACKABLE as error:
        cause = f"the answer is no plain value: {type(error).__name__}: {error}"
        return _pack(SampleError("bad_answer", cause))


def pack_parts(answer: Any) -> list[bytes | memoryview]:
    """Return an answer as `pack_answer` does, in parts; large bytes and arrays are not copied.

    Raises:
        MemoryError: when the memory of this process ends.
    """
    try:
        return _parts(answer)
    except _UNPACKABLE:
        return [pack_answer(answer)]


def _parts(value: Any) -> list[bytes | memoryview]:
    if type(value) is bytes and _LARGE_BYTES <= len(value) < _MOST_PART_BYTES:
        return [b"\xc6" + _LONG.pack(len(value)), value]
    if type(value) is tuple:
        inner = [msgpack.Packer().pack_array_header(len(value)), *chain.from_iterable(map(_parts, value))]
        size = sum(map(len, inner))
        if _LARGE_BYTES <= size < _MOST_PART_BYTES:
            return [_LARGE_EXTENSION.pack(0xC9, size, _TUPLE), *inner]
    size = getattr(value, "nbytes", 0)  # before NumPy is imported for others
    if isinstance(size, int) and _LARGE_BYTES <= size < _MOST_PART_BYTES:
        import numpy as np

        if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
            head, data = _array_parts(value)
            return [_LARGE_EXTENSION.pack(0xC9, len(head) + len(data), _ARRAY), head, data]
    return [_pack(value)]


def unpack_answer(body: bytes | memoryview) -> Any:
    """Return what a child has packed.

    Raises:
        BadAnswer: for bytes that no honest child sends.
    """
    _check_size(body)
    try:
        return _unpack(body)
    except BadAnswer:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the bytes of a stranger make a parser raise
        raise BadAnswer(f"{type(error).__name__}: {error}") from None


def _unpack(body: bytes | memoryview) -> Any:
    """Return the value of a message; what is large in it is copied once."""
    if len(body) > _LARGE_BYTES and body[0] == 0xC9:
        _, size, kind = _LARGE_EXTENSION.unpack_from(body)
        if size == len(body) - _LARGE_EXTENSION.size:
            return _restore(kind, memoryview(body)[_LARGE_EXTENSION.size :])
    return msgpack.unpackb(body, ext_hook=_restore, strict_map_key=True)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_replace, strict_types=True)
    return packed


def _replace(value: Any) -> Any:
    """Return a value that msgpack packs in place of one that it does not."""
    # NumPy starts threads where it is imported, which a child does not before it is confined.
    import numpy as np

    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
        return msgpack.ExtType(_ARRAY, b"".join(_array_parts(value)))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, SampleError):
        return msgpack.ExtType(_ERROR, _pack([value.error_class, value.message, value.retryable]))
    if isinstance(value, datetime):
        return msgpack.ExtType(_TIME, value.isoformat().encode())
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, _pack(list(value)))
    plain: Any
    for plain in (bool, int, float, str, bytes, list, dict):
        if isinstance(value, plain):  # of a subclass
            return plain(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


def _array_parts(value: np.ndarray[Any, Any]) -> tuple[bytes, memoryview]:
    """Return type and shape of an array, packed, and its numbers."""
    import numpy as np

    flat = np.ascontiguousarray(value).reshape(-1)
    return _pack([value.dtype.str, list(value.shape)]), flat.view(np.uint8).data


def _restore(kind: int, data: bytes | memoryview) -> Any:
    """Return the value of an extension."""
    if kind == _TUPLE:
        inner = _unpack(data)
        if isinstance(inner, list):
            return tuple(inner)
    elif kind == _ERROR:
        _check_size(data)
        error_class, message, retryable = msgpack.unpackb(data)
        named = isinstance(error_class, str) and _ERROR_CLASS.fullmatch(error_class)
        if named and isinstance(message, str) and isinstance(retryable, bool):
            # Undeclared here where only the child has imported the plug-in that declares it.
            return restore_error(error_class, message, retryable)
    elif kind == _TIME:
        return datetime.fromisoformat(bytes(data).decode())
    elif kind == _ARRAY:
        return _restore_array(data)
    raise BadAnswer(f"msgpack extension {kind} is malformed")


def _restore_array(data: bytes | memoryview) -> np.ndarray[Any, Any]:
    import numpy as np

    _check_size(data)  # of its head
    unpacker = msgpack.Unpacker(
        max_array_len=_MAX_DIMENSIONS,
        max_map_len=0,
        max_ext_len=0,
        max_bin_len=0,
        max_str_len=8,
    )
    unpacker.feed(data[:_HEAD_BYTES])
    name, shape = unpacker.unpack()
    dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 4 else np.dtype(object)
    if dtype.kind not in _NUMBERS or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise BadAnswer("an array is not one of numbers")
    at = unpacker.tell()
    flat = np.frombuffer(data, dtype, offset=at) if at < len(data) else np.zeros(0, dtype)
    return flat.reshape(shape).copy()


def _check_size(body: bytes | memoryview) -> None:
    """Check the number and depth of the values of a message.

    Raises:
        BadAnswer: when there are too many, or the message ends early.
    """
    values, at, end = 0, 0, len(body)
    open_lists: list[int] = []  # values still due, from the outermost list to the innermost
    due = 1
    while True:
        while not due:
            if not open_lists:
                return
            due = open_lists.pop()
        due -= 1
        values += 1
        if at >= end:
            raise BadAnswer("it ends early")
        nested, at = _step(body, at)
        if nested >= 0:
            open_lists.append(due)
            due = nested
        if values + due > ANSWER_VALUES:
            raise BadAnswer(f"it has more than {ANSWER_VALUES:,} values")
        if len(open_lists) > ANSWER_DEPTH:
            raise BadAnswer(f"its lists are nested deeper than {ANSWER_DEPTH}")


def _step(body: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the number of values in the list or dict at a place, -1 for others, and the next place."""
    first = body[at]
    at += 1
    if first < 0x80 or first >= 0xE0:
        return -1, at
    if first < 0x90:
        return 2 * (first & 0x0F), at
    if first < 0xA0:
        return first & 0x0F, at
    if first < 0xC0:
        return -1, at + (first & 0x1F)
    try:
        if first in _FIXED:
            return -1, at + _FIXED[first]
        if first in _COUNTED:
            return -1, at + _COUNTED[first].size + _COUNTED[first].unpack_from(body, at)[0]
        if first in _EXTENSIONS:
            return _step_into(body, at, _EXTENSIONS[first])
        length, each = _NESTED[first]
        return each * length.unpack_from(body, at)[0], at + length.size
    except (KeyError, IndexError, struct.error):
        raise BadAnswer("it is not msgpack") from None


def _step_into(body: bytes | memoryview, at: int, length: Any) -> tuple[int, int]:
    """Return the next place behind an extension, with -1; of a tuple, that of its list, with 1 value."""
    size = length
    if isinstance(length, struct.Struct):
        (size,) = length.unpack_from(body, at)
        at += length.size
    return (1, at + 1) if body[at] == _TUPLE else (-1, at + 1 + size)
