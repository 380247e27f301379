"""Values that are queries: pictures of Pillow, arrays, tensors, and lists of queries."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_resources.retrieval.query_vectors import Query

# Queries of one search; each has its k hits.
MOST_QUERIES = 10_000


def read_queries(given: Any) -> tuple[list[Query], bool]:
    """Return queries as texts, paths, bytes and vectors, and whether several were given.

    Several are a list or tuple of anything but numbers, and an array of several vectors, [n, dimension]. An
    array [1, dimension] is one vector. A picture, of Pillow or as uint8 [height, width] or [height, width,
    3], is searched as a PNG of it; a tensor is read as an array.

    Raises:
        UserError: for too many queries, and an array of another shape.
    """
    if isinstance(given, list | tuple) and any(not _is_number(each) for each in given):
        _check_count(len(given))
        return [_read_query(each, f"query {number}: ") for number, each in enumerate(given)], True
    if _is_tensor(given):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray) and given.ndim == 2 and len(given) > 1 and given.dtype != np.uint8:
        _check_count(len(given))
        return list(given), True
    return [_read_query(list(given) if isinstance(given, tuple) else given, "")], False


def _read_query(given: Any, where: str) -> Query:
    if _is_tensor(given):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim in (2, 3):
        return _png_of_pixels(given, where)
    if _is_picture(given):
        sink = io.BytesIO()
        # PNG has no CMYK, floats and the like.
        plain = given if given.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else given.convert("RGB")
        plain.save(sink, "PNG")
        return sink.getvalue()
    query: Query = given
    return query


def _png_of_pixels(pixels: np.ndarray[Any, Any], where: str) -> bytes:
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise UserError(
            f"{where}the query is a picture of the shape {list(pixels.shape)}; give uint8 [height, width], "
            "[height, width, 3] or [height, width, 4]"
        )
    with explain_missing("a query by a picture"):
        from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "PNG")
    return sink.getvalue()


def _check_count(count: int) -> None:
    if count > MOST_QUERIES:
        raise UserError(f"{count:,} queries are more than the {MOST_QUERIES:,} of one search; give fewer")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_tensor(value: object) -> bool:
    """Return whether a value is a tensor of torch; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_picture(value: object) -> bool:
    """Return whether a value is a picture of Pillow; imports nothing."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)
