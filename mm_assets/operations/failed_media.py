"""Write the medium of a failed sample to a file, for inspection."""

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
from mm_resources.ingestion.spec_secrets import open_revealed
from mm_resources.storage.secret_table import split_locator
from mm_resources.tables.failure_events import FailureFilter
from mm_resources.tables.stage_tables import NotMaterialized

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}$")


@dataclass(frozen=True)
class FailedMedium:
    """The bytes of a failed sample in a file.

    Attributes:
        origin: the store, or the source as it is now.
        size: bytes.
        failures: stage, error_class, message and attempt of each failure.
    """

    sample_id: str
    modality: str
    path: Path
    origin: str
    size: int
    content_hash: str
    source_uri: str
    failures: list[dict[str, Any]]


def write_failed_medium(
    catalog: Catalog, cells: list[Cell], sample_id: str, to: Path | None = None
) -> FailedMedium:
    """Write the bytes of a failed sample to a file.

    They are read from the blob and verified, or from the source if they were not stored or are lost.

    Args:
        cells: cells that may contain the sample.
        to: a file that does not exist; by default one in the current folder, named after the sample.

    Raises:
        UserError: when the sample has not failed, its bytes cannot be read, or the file exists.
    """
    cell, failures = _failures(catalog, cells, sample_id)
    listed = _row(catalog, "dataset_registry", cell, f"sample_id = {literal(sample_id)}")
    if listed["error_class"]:
        cause = f"{listed['error_class']}: {listed['message']}"
        raise UserError(
            f"{sample_id} has no bytes of its own: the listing refuses it ({cause}); "
            f"it is listed in {listed['source_uri']}"
        )
    suffix = _SUFFIX.search(PurePosixPath(listed["key"]).name)
    path = to or Path(sample_id + (suffix[0] if suffix else ""))
    raw = _row(catalog, "raw_assets", cell, f"sample_id = {literal(sample_id)}")
    with _open_medium(catalog, cell, listed, raw.get("content_hash")) as medium:
        _write(medium.stream, path)
    content_hash = file_hash(path)
    origin = medium.origin
    if raw.get("content_hash") not in (None, content_hash):
        origin += ", which no longer gives the bytes that failed"
    return FailedMedium(
        sample_id,
        cell.modality,
        path.absolute(),
        origin,
        path.stat().st_size,
        content_hash,
        listed["source_uri"],
        failures,
    )


def _failures(catalog: Catalog, cells: list[Cell], sample_id: str) -> tuple[Cell, list[dict[str, Any]]]:
    """Return the cell of a failed sample, and its failures.

    Raises:
        UserError: when the sample has not failed in any of the cells.
    """
    columns = ["stage", "error_class", "message", "attempt"]
    for cell in cells:
        events = (
            catalog.failures.read(cell, columns, chosen=FailureFilter(sample_id=sample_id))
            .read_all()
            .to_pylist()
        )
        if events:
            return cell, events
    version = cells[0].dataset_version
    raise UserError(
        f"no sample {sample_id} of {version} has failed; mm failures {version} --json lists the ids"
    )


def _row(catalog: Catalog, stage: str, cell: Cell, where: str) -> dict[str, Any]:
    """Return the first row of a stage that matches, or an empty row where there is none."""
    try:
        rows = catalog.tables.read(stage, cell, where=where, limit=1).read_all().to_pylist()
    except NotMaterialized:
        return {}
    return rows[0] if rows else {}


@dataclass
class _Medium:
    stream: BinaryIO
    origin: str

    def __enter__(self) -> _Medium:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _open_medium(catalog: Catalog, cell: Cell, listed: dict[str, Any], content_hash: str | None) -> _Medium:
    """Open the stored bytes, or else those that the source returns now.

    Raises:
        UserError: when neither can be read.
    """
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
    place, name = split_locator(listed["locator"] or "")
    uri = catalog.secrets.reveal([name]).get(name, listed["source_uri"])
    try:
        fetched = open_revealed(spec, source, catalog.secrets).fetch(uri, place)
    except SampleError as error:
        raise UserError(
            f"the bytes of {listed['sample_id']} cannot be read: {lost}, and its source fails too: {error}"
        ) from None
    return _Medium(io.BytesIO(fetched) if isinstance(fetched, bytes) else fetched, "its source as it is now")


def _write(stream: BinaryIO, path: Path) -> None:
    try:
        with path.open("xb") as sink:
            shutil.copyfileobj(stream, sink, 1 << 20)
    except FileExistsError:
        raise UserError(f"{path} exists; name another file with --to") from None
