"""Memory and log settings of a whole process that works for the platform.

Importing changes nothing in the importing process. The command line, the code location and every worker call
`configure_process` when they start; a program that only reads features may do so too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

import pyarrow as pa

from mm_resources.storage.permissions import restrict_umask

# What a scan of Lance may hold read ahead of its consumer; Lance's own default is 2 GiB.
READ_AHEAD_BYTES = 64 << 20
_LIBRARY_SETTINGS = {
    # Lance reads it when it is first imported; by default it warns of each dataset that does not exist yet.
    "LANCE_LOG": "error",
    "LANCE_DEFAULT_IO_BUFFER_SIZE": str(READ_AHEAD_BYTES),
    # onnxruntime otherwise reports its use to its makers.
    "ORT_DISABLE_TELEMETRY": "1",
}
# Lance reads with dozens of threads, and glibc keeps what each has freed in an arena of its own: a third of
# a run's memory.
_M_ARENA_MAX, _ARENAS = -8, 2  # mallopt(3)


def configure_process(private: bool = True) -> None:
    """Bound the memory that Lance, Arrow and glibc keep in this process, and silence Lance's warnings.

    Variables that are set already stay as they are. Idempotent; call it before Lance is imported.

    Args:
        private: whether files of this process are for its user alone, or for the group that shares the store;
            not where it writes files that are the user's own (exports).
    """
    if private:
        restrict_umask()
    for name, value in _LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    # Arrow's own pool does not return what it has freed: a hundred MiB beside the few in use at a time.
    pa.set_memory_pool(pa.system_memory_pool())
