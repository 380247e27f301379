"""Folders to list, on disk and in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mm_embed_kernels.spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source


class Place:
    """A folder to list, on disk or in fsspec's memory file system."""

    def __init__(self, root: str) -> None:
        self.root = root
        if "://" not in root:
            os.makedirs(root)

    def put(self, *names: str, data: bytes | None = None) -> None:
        import fsspec

        for name in names:
            body = name.encode() if data is None else data
            if "://" in self.root:
                fsspec.filesystem("memory").pipe_file(f"{self.root}/{name}", body)
            else:
                (path := Path(self.root, name)).parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)

    def source(self, uri: str = "", schema: dict[str, str] | None = None, **spec: Any) -> Source:
        return open_source(SourceSpec(**{"name": "s", "modality": "text", "uri": f"{self.root}/{uri}".rstrip("/"), **spec}), schema or {})

    def listed(self, uri: str = "", **spec: Any) -> dict[str, Listed]:
        found = list(self.source(uri, **spec).list())
        by_key = {item.key: item for item in found}
        assert len(by_key) == len(found)
        return by_key


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "disk":
        yield Place(str(tmp_path / "data"))
        return
    import fsspec

    root = f"memory://{uuid4().hex}"
    yield Place(root)
    fs = fsspec.filesystem("memory")
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def disk(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "data"))
