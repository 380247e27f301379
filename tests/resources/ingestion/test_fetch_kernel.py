"""A file system whose connections break: what comes back in the same run is fetched in it, what stays away is recorded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.retry_policy import Backoff
from mm_resources.compute.runner import KernelRunner
from mm_resources.ingestion.fetch_kernel import FetchKernel
from mm_resources.sources import open_source
from mm_resources.storage.store import Store
from tests.resources.specs import spec_of


class Flaky(MemoryFileSystem):
    protocol = "flaky"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    breaks: Counter[str] = Counter()  # name -> openings that still break
    opened: Counter[str] = Counter()

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        name = path.rsplit("/", 1)[-1]
        if kwargs.get("mode", args[0] if args else "rb") == "rb":
            self.opened[name] += 1
            if self.breaks[name] > 0:
                self.breaks[name] -= 1
                raise ConnectionResetError(104, "the peer has hung up")
        return super()._open(path, *args, **kwargs)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))


@pytest.fixture
def flaky() -> type[Flaky]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    for state in (Flaky.store, Flaky.breaks, Flaky.opened):
        state.clear()
    return Flaky


def test_what_comes_back_is_fetched_in_the_same_run(flaky: type[Flaky], tmp_path: Path) -> None:
    names = [f"{i}.txt" for i in range(6)]
    for name in names:
        flaky().pipe_file(f"/pond/{name}", f"text {name}".encode())
    flaky.breaks.update({"1.txt": 2, "2.txt": 99})
    spec, store = spec_of({"uri": "flaky://pond"}), Store(str(tmp_path))
    kernel = FetchKernel(spec, BlobStore(store))
    listed = open_source(spec.sources[0], {}).list()
    rows = [
        {
            "key": item.key,
            "source": "s0",
            "source_uri": item.uri,
            "locator": item.locator,
            "tag": item.tag,
            "size": item.size,
        }
        for item in listed
    ]
    compute = KernelRunner(ComputeCache(store), backoff=Backoff(attempts=4, seconds=0.001))
    report = compute.run(kernel, pa.Table.from_pylist(rows))
    assert (report.computed, report.failed) == (6, 1)
    assert flaky.opened == Counter({**dict.fromkeys(names, 1), "1.txt": 3, "2.txt": 4})
    found = compute.cache.space(kernel).reader().read_all().to_pylist()
    assert {
        row["key"]: (row["status"], row["error_class"], row["attempt"]) for row in found if row["attempt"] > 1
    } == {
        "1.txt": ("ok", None, 3),
        "2.txt": ("failed", "fetch_error", 4),
    }
