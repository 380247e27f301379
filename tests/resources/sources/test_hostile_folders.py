"""A folder of traps through listing and ingestion: each entry has a record, nothing is read that is no file, nothing hangs."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels import sql
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, FetchKernel
from mm_resources.registry.registry import Registry
from tests.resources.specs import freeze, list_samples, spec_of

_REQUESTS = f"""
SELECT {FETCH_KEY} AS key, sample_id, source, source_uri, locator, tag, size FROM listing JOIN flavours USING (source) WHERE error_class IS NULL
"""


def fetched(registry: Registry, spec: DatasetSpec) -> dict[str, str]:
    """Return the outcome of each entry: ``ok``, or the class of its failure in the listing or the fetch."""
    rows = {
        row["key"]: row for name in ("text", "image", "audio") for row in list_samples(registry, spec, name)
    }
    kernel = FetchKernel(spec, BlobStore(registry.store))
    found = {key: row["error_class"] for key, row in rows.items()}
    keys = {row["sample_id"]: key for key, row in rows.items()}
    stage = kernel.stages()[0]
    stage.setup()
    for name in ("text", "image", "audio"):
        requests = sql.fetch(
            _REQUESTS, listing=registry.listings.listing(spec, name), flavours=kernel.flavours()
        )
        for asked, row in zip(
            requests.to_pylist(), stage.run(requests).to_pylist() if requests.num_rows else [], strict=True
        ):
            found[keys[asked["sample_id"]]] = row["error_class"] or "ok"
    return found


@pytest.mark.parametrize("modality", ["text", "auto"])
def test_a_folder_of_traps(registry: Registry, data: Path, tmp_path: Path, modality: str) -> None:
    (data / "circle").symlink_to("circle")
    (data / "ping").symlink_to("pong")
    (data / "pong").symlink_to("ping")
    (data / "up").symlink_to(".")
    (data / "out").symlink_to("/etc/passwd")
    (data / "zeros").symlink_to("/dev/zero")
    os.mkfifo(data / "pipe")
    plug = socket.socket(socket.AF_UNIX)
    short = os.path.relpath(data / "plug")  # a socket's path has 107 bytes at most
    plug.bind(short if len(short) < 107 else str(tmp_path / "plug"))
    (data / ("n" * 255)).write_text("a long name")
    (data / "new\nline").write_text("a name of two lines")
    with open(os.fsencode(data) + b"/\xff\xfe.txt", "wb") as stream:
        stream.write(b"a name that is not UTF-8")
    (data / "empty").touch()
    spec = spec_of({"uri": str(data), "modality": modality})
    assert freeze(registry, spec) == [""]
    found = fetched(registry, spec)
    plug.close()
    expected = {
        "a.txt": "ok", "b.txt": "ok", "c.txt": "ok", "n" * 255: "ok", "new\nline": "ok", "empty": "ok", "circle": "not_found", "ping": "not_found",
        "pong": "not_found", "up": "linked_folder", "out": "path_escape", "zeros": "path_escape", "pipe": "not_a_file",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    (odd,) = (key for key in found if key.startswith("\\xff"))
    assert found[odd] == "ok"
    assert set(found) <= {*expected, odd, "plug"}


def test_a_file_that_grows_while_it_is_read(registry: Registry, data: Path) -> None:
    """A log that somebody writes to: what was listed is gone, which is said; the others are untouched."""
    log, stop = data / "log.txt", threading.Event()
    log.write_bytes(b"line\n" * 1_000)
    spec = spec_of({"uri": str(data)})
    assert freeze(registry, spec) == [""]

    def grow() -> None:
        with log.open("ab", buffering=0) as stream:
            while not stop.wait(0.001):
                stream.write(b"line\n" * 100)

    writer = threading.Thread(target=grow)
    writer.start()
    stop.wait(0.05)
    found: dict[str, Any] = fetched(registry, spec)
    stop.set()
    writer.join()
    assert found == {"a.txt": "ok", "b.txt": "ok", "c.txt": "ok", "log.txt": "source_changed"}


def test_a_file_that_is_swapped_for_a_pipe_or_is_gone(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    assert freeze(registry, spec) == [""]
    (data / "a.txt").unlink()
    (data / "b.txt").unlink()
    os.mkfifo(data / "b.txt")
    # A reader of a pipe waits for its writer, who is not there.
    assert fetched(registry, spec) == {"a.txt": "not_found", "b.txt": "not_a_file", "c.txt": "ok"}
