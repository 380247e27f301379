"""The medium of a failed sample as a file that a person can look at."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import file_hash
from mm_embed_kernels.sql import literal
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.sources import open_source
from mm_resources.tables.failure_events import FailureFilter

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}$")


@dataclass(frozen=True)
class Opened:
    """A failed sample's bytes in a file.

    Attributes:
        origin: where they come from: the store, or the source as it is now.
        size: bytes.
        failures: stage, error_class, message and attempt of what failed.
    """

    sample_id: str
    modality: str
    path: Path
    origin: str
    size: int
    content_hash: str
    source_uri: str
    failures: list[dict[str, Any]]


def open_failed(catalog: Catalog, cells: list[Cell], sample_id: str, to: Path | None = None) -> Opened:
    """Write the bytes of a failed sample to `to` (by default a file in this folder that is named after it).

    They are the blob's, verified; or the source's, where they were never stored or are lost.

    Raises:
        UserError: in one line, when the sample has not failed, its bytes cannot be had, or the file exists.
    """
    cell, failures = _failures(catalog, cells, sample_id)
    listed = _row(catalog, "dataset_registry", cell, f"sample_id = {literal(sample_id)}")
    if listed["error_class"]:
        raise UserError(
            f"{sample_id} has no bytes of its own: the listing refuses it ({listed['error_class']}: {listed['message']}); "
            f"it stands in {listed['source_uri']}"
        )
    suffix = _SUFFIX.search(PurePosixPath(listed["key"]).name)
    path = to or Path(sample_id + (suffix[0] if suffix else ""))
    raw = _row(catalog, "raw_assets", cell, f"sample_id = {literal(sample_id)}")
    with _media(catalog, cell, listed, raw.get("content_hash")) as medium:
        _write(medium.stream, path)
    found = file_hash(path)
    origin = medium.origin
    if raw.get("content_hash") not in (None, found):
        origin += ", which no longer gives the bytes that failed"
    return Opened(
        sample_id,
        cell.modality,
        path.absolute(),
        origin,
        path.stat().st_size,
        found,
        listed["source_uri"],
        failures,
    )


def _failures(catalog: Catalog, cells: list[Cell], sample_id: str) -> tuple[Cell, list[dict[str, Any]]]:
    columns = ["stage", "error_class", "message", "attempt"]
    for cell in cells:
        events = (
            catalog.failures.read(cell, columns, chosen=FailureFilter(sample_id=sample_id))
            .read_all()
            .to_pylist()
        )
        if events:
            return cell, events
    raise UserError(
        f"no sample {sample_id} of {cells[0].dataset_version} has failed; mm failures {cells[0].dataset_version} --json has the ids"
    )


def _row(catalog: Catalog, stage: str, cell: Cell, where: str) -> dict[str, Any]:
    """One row of a stage, or nothing where the stage or the row is not there."""
    try:
        found = catalog.tables.read(stage, cell, where=where, limit=1).read_all().to_pylist()
    except LookupError:
        return {}
    return found[0] if found else {}


@dataclass
class _Medium:
    stream: BinaryIO
    origin: str

    def __enter__(self) -> _Medium:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _media(catalog: Catalog, cell: Cell, listed: dict[str, Any], content_hash: str | None) -> _Medium:
    """The stored bytes, or else those that the source gives now."""
    blob = (
        _row(catalog, "content_blobs", cell, f"content_hash = {literal(content_hash)}")
        if content_hash
        else {}
    )
    lost = "" if blob else "it is not in the store"
    if blob:
        try:
            data = catalog.blobs.media(blob["content_hash"], blob["path"], blob["offset"], blob["size"])
            return _Medium(
                io.BytesIO(data) if isinstance(data, bytes) else data.open("rb"), "the store, hash verified"
            )
        except SampleError as error:
            lost = str(error)
    spec = catalog.registry.spec(cell.dataset, cell.version)
    source = next(source for source in spec.sources if source.name == listed["source"])
    try:
        found = open_source(source, dict(spec.schema_)).fetch(listed["source_uri"], listed["locator"] or "")
    except SampleError as error:
        raise UserError(
            f"the bytes of {listed['sample_id']} cannot be had: {lost}, and its source fails too: {error}"
        ) from None
    return _Medium(io.BytesIO(found) if isinstance(found, bytes) else found, "its source as it is now")


def _write(stream: BinaryIO, path: Path) -> None:
    try:
        with path.open("xb") as sink:
            shutil.copyfileobj(stream, sink, 1 << 20)
    except FileExistsError:
        raise UserError(f"{path} exists; name another file with --to") from None
