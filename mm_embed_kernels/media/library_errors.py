"""Causes of errors of media libraries, which differ by their messages alone.

This is the one module that reads such messages (PyAV 18 with FFmpeg 8, soundfile 0.14 with libsndfile 1.2,
Pillow 13, decord2 3.4); everything else catches types.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mm_embed_kernels.errors import SampleError


def means_out_of_memory(text: str) -> bool:
    """Return whether a library's message means that an allocation failed; libraries have no type for it."""
    return re.search(r"cannot allocate|out of memory|bad_alloc|malloc", text, re.IGNORECASE) is not None


def library_error(error: Exception, where: str) -> SampleError:
    """Map an error of FFmpeg or libsndfile to ``memory_limit``, ``truncated`` or ``decode_error``.

    Args:
        error: what the library raised.
        where: what failed; begins the message.
    """
    # The library's message without the file's name.
    text = f"{where}: {getattr(error, 'strerror', None) or getattr(error, 'error_string', None) or error}"
    if means_out_of_memory(text):
        return SampleError("memory_limit", text)
    cut = re.search(r"end of file|moov atom not found|truncated", text, re.IGNORECASE)
    return SampleError("truncated" if cut else "decode_error", text)


def pillow_error(error: BaseException, is_cut_off: Callable[[], bool]) -> SampleError:
    """Map an error of Pillow: no memory, an unknown format, a file that is cut off, or damaged bytes.

    Args:
        error: what Pillow raised.
        is_cut_off: returns whether the bytes themselves show that their end is missing.
    """
    message = f"{type(error).__name__}: {error}"
    if means_out_of_memory(message):
        return SampleError("memory_limit", message)
    if isinstance(error, NotImplementedError) or re.search(
        r"unsupported|not supported|unknown|unrecogni[sz]ed|cannot handle", message, re.I
    ):
        return SampleError("unsupported_format", message)
    cut = isinstance(error, EOFError) or "truncated" in message.lower() or is_cut_off()
    return SampleError("truncated" if cut else "decode_error", message)


def lacks_length(error: Exception) -> bool:
    """Return whether decord refuses a container, such as Ogg, that does not state its length."""
    return "duration/frame-count" in str(error)


def decord_error(error: Exception) -> SampleError:
    """Return the error of frames that decord cannot read."""
    # Decord's message: what failed, without its stack.
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SampleError("decode_error", f"decord cannot read the frames: {text.partition('] ')[2] or text}")
