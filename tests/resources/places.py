"""Folders to list, on disk and in a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source
from mm_resources.storage.filesystems import fsspec_options
from tests.s3 import BUCKET


def bucket() -> Any:
    """Return the file system of the server that the fixture `s3` starts."""
    import fsspec

    return fsspec.filesystem("s3", **fsspec_options("s3://"))


class Place:
    """A folder to list, on disk or in a bucket."""

    def __init__(self, root: str) -> None:
        self.root = root
        if "://" not in root:
            os.makedirs(root)

    def put(self, *names: str, data: bytes | None = None) -> None:
        for name in names:
            body = name.encode() if data is None else data
            if "://" in self.root:
                bucket().pipe_file(f"{self.root}/{name}", body)
            else:
                (path := Path(self.root, name)).parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)

    def source(self, uri: str = "", schema: dict[str, str] | None = None, **spec: Any) -> Source:
        return open_source(
            SourceSpec(**{"name": "s", "modality": "text", "uri": f"{self.root}/{uri}".rstrip("/"), **spec}),
            schema or {},
        )

    def samples(self, uri: str = "", **spec: Any) -> dict[str, Listed]:
        found = list(self.source(uri, **spec).list())
        by_key = {item.key: item for item in found}
        assert len(by_key) == len(found)
        return by_key


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return Place(str(tmp_path / "data"))
    request.getfixturevalue("s3")
    return Place(f"s3://{BUCKET}/{uuid4().hex}")


@pytest.fixture
def disk(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "data"))
