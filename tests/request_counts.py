"""Counts of what is asked of a store: reads and listings of a folder, requests to S3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mm_resources.storage.store import Store

_READS = ("read", "read_range", "names", "entry", "entries", "tags")


@contextmanager
def count_requests(store: Store) -> Iterator[Counter[str]]:
    """Count what this process asks of a store, by kind; Lance's own requests are not seen."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patched:
        if store.is_local:
            for name in _READS:
                patched.setattr(Store, name, _counted(getattr(Store, name), counts, name))
        else:
            import s3fs

            real = s3fs.S3FileSystem._call_s3

            async def call(fs: Any, method: str, *words: Any, **named: Any) -> Any:
                counts[method] += 1
                return await real(fs, method, *words, **named)

            patched.setattr(s3fs.S3FileSystem, "_call_s3", call)
        yield counts


def _counted(real: Callable[..., Any], counts: Counter[str], name: str) -> Callable[..., Any]:
    def counted(*words: Any, **named: Any) -> Any:
        counts[name] += 1
        return real(*words, **named)

    return counted
