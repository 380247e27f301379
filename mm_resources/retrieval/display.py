"""A training set as Python and notebooks show it."""

from __future__ import annotations

import base64
import io
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.escapes import escape_html
from mm_embed_kernels.extras import MissingPackage
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.kernels.preview import Previewer, read_preview
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.retrieval.training_rows import is_vector, read_media

# Rows, characters of a value, and bytes of a medium that a player gets.
_ROWS, _CHARS, _PLAYED = 8, 80, 2 << 20
_LIMITS = Limits(workers=1, item_seconds=10.0)


class Shown(Protocol):
    """A training set, as far as it is shown."""

    @property
    def catalog(self) -> Catalog: ...

    def media_kinds(self) -> dict[str, str]: ...

    def reader(self, media: bool = False) -> Any: ...

    def schema(self) -> pa.Schema: ...

    def __len__(self) -> int: ...


def describe(manifest: dict[str, Any]) -> str:
    """Return a set in one line."""
    parts = manifest.get("parts")
    kinds = ", ".join(dict.fromkeys(table["modality"] for table in (parts or [manifest])[0]["tables"]))
    words = [f"{manifest['dataset_version']} {kinds}", f"{manifest['rows']:,} rows"]
    if parts:
        words.append("weights " + ":".join(f"{weight:g}" for weight in manifest["weights"]))
    if manifest["where"]:
        words.append(f"where {manifest['where']}")
    if classes := manifest.get("classes"):
        words.append(f"{len(classes):,} classes")
    return f"<TrainingSet {', '.join(words)}, digest {manifest['digest'][:12]}>"


def render(training_set: Shown) -> str:
    """Return a set as HTML: its line, and its first rows with thumbnails and players."""
    line = f"<p>{escape_html(repr(training_set))}</p>"
    kinds = training_set.media_kinds()
    try:
        reader = training_set.reader(media=True).extend(["mime", "text"])
        rows = reader(np.arange(min(_ROWS, len(training_set)))).to_pylist()
    except UserError as error:
        return f"{line}<p>{escape_html(str(error))}</p>"
    names = [name for name in training_set.schema().names if not is_vector(name) and not name.endswith("_id")]
    head = "".join(f"<th>{escape_html(name)}</th>" for name in [*kinds, *names])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{_show(training_set, row, name, kind)}</td>" for name, kind in kinds.items())
        + "".join(f"<td>{escape_html(str(row[name])[:_CHARS])}</td>" for name in names)
        + "</tr>"
        for row in rows
    )
    return f"{line}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _show(training_set: Shown, row: dict[str, Any], name: str, kind: str) -> str:
    """Return the medium of a row as HTML: a thumbnail, a player, or the beginning of a text."""
    prefix = name.removesuffix("media")
    text = row.get(f"{prefix}text")
    if kind == "text" and text:
        return escape_html(text[:_CHARS])
    try:
        data = read_media(training_set.catalog.blobs, row[name])
        player = _player(data, str(row.get(f"{prefix}mime") or "")) if kind in ("audio", "video") else ""
        modality = get(kind)
        (answer,) = map_in_sandbox(_LIMITS, Previewer(modality), [data], [()], modality)
        preview = read_preview(answer)
    except (SampleError, MissingPackage) as error:
        return escape_html(str(error)[:_CHARS])
    if isinstance(preview, SampleError):
        return escape_html(str(preview)[:_CHARS])
    if preview.picture is not None and not player:
        return (
            f'<img src="{_jpeg(preview.picture)}" alt="{escape_html(str(row.get(f"{prefix}feature_id")))}">'
        )
    return player or escape_html((preview.text or "")[:_CHARS])


def _player(data: bytes, mime: str) -> str:
    """Return a player of a sound or film; "" for one that is too large for a page, or of another type."""
    kind, _, name = mime.partition("/")
    if len(data) > _PLAYED or kind not in ("audio", "video") or not name.replace("-", "").isalnum():
        return ""
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return f'<{kind} controls preload="none" src="{source}"></{kind}>'


def _jpeg(pixels: np.ndarray[Any, Any]) -> str:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "JPEG", quality=78)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
