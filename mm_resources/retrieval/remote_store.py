"""The feature store behind a service (`mm serve`): the methods of `FeatureStore`, over HTTP."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.feature_reader import FeatureReader, SearchCall, TrainingCall
from mm_resources.retrieval.query_vectors import Query, Words
from mm_resources.retrieval.remote_values import restore_values
from mm_resources.retrieval.search import SearchRequest
from mm_resources.retrieval.training_set import TrainingSet

if TYPE_CHECKING:
    import httpx
    import polars as pl

_ARROW = "application/vnd.apache.arrow.stream"
_SECONDS = 60.0
_NO_MIXTURES = (
    "a service makes training sets of one version, without weights, classes and draws, and with one filter "
    "and list of columns; open the store itself: FeatureStore.open(ROOT)"
)
# Tries of a request that a busy service refuses, and the longest pause before the next one.
_TRIES, _PAUSE_SECONDS = 4, 2.0


class RemoteFeatureStore(FeatureReader["RemoteTrainingSet"]):
    """Published features of a service; results equal those of `FeatureStore` on the store behind it.

    Args:
        address: of the service, ``http://host:port``.
        token: sent as ``Authorization: Bearer``; by default ``MM_TOKEN``.
    """

    def __init__(self, address: str, token: str = "") -> None:
        import httpx

        token = token or os.environ.get("MM_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx.Client(base_url=address, headers=headers, timeout=_SECONDS)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise UserError(f"{address!r} is no address of a service: {error}") from None
        self._address = str(self._client.base_url).rstrip("/")

    def _search(self, call: SearchCall) -> list[pa.Table]:
        return [self._search_one(call, request) for request in call.requests]

    def _search_one(self, call: SearchCall, request: SearchRequest) -> pa.Table:
        body = {
            "dataset_version": call.versions,
            "modality": call.modalities,
            "embedder": call.embedder,
            "verify": call.verify,
            **{item.name: getattr(request, item.name) for item in fields(request) if item.name != "query"},
        }
        query = request.query
        # Media are read here, and sent.
        medium = _medium(query)
        if medium is not None:
            form = {"request": json.dumps(body)}
            answer = self._send("POST", "/v1/search", data=form, files={"file": ("query", medium)})
        else:
            vector = (
                np.asarray(query, np.float64).reshape(-1).tolist() if not isinstance(query, str) else None
            )
            answer = self._send(
                "POST", "/v1/search", json={**body, "query": str(query) if vector is None else vector}
            )
        return _read_table(answer.content)

    def _datasets(self) -> list[dict[str, Any]]:
        answer = self._send("GET", "/v1/datasets").json()
        cells = [cell for version in answer["datasets"] for cell in version["cells"]]
        known = [
            {
                **cell,
                "samples": cell["accounting"].get("published"),
                "features": cell["accounting"].get("features"),
            }
            for cell in cells
        ]
        return [*known, *({"problem": problem} for problem in answer["problems"])]

    def _decisions(self, dataset_version: str, modality: str) -> pa.Table:
        named = {"dataset_version": dataset_version, "modality": modality}
        return _read_table(self._send("GET", "/v1/decisions", params=named).content)

    def _explain(self, identifier: str, dataset_version: str | None) -> dict[str, Any]:
        named = {"typed": "true"} | ({"dataset_version": dataset_version} if dataset_version else {})
        path = f"/v1/features/{quote(identifier.removeprefix('id:'), safe='')}/explain"
        found: dict[str, Any] = restore_values(self._send("GET", path, params=named).json())
        return found

    def _training_set(self, call: TrainingCall) -> RemoteTrainingSet:
        by_modality = isinstance(call.where, Mapping) or isinstance(call.columns, Mapping)
        if not call.is_plain or call.classes is not None or by_modality:
            raise UserError(_NO_MIXTURES)
        embedder = call.embedder
        return self._pin(
            {
                "dataset_version": call.dataset_version,
                "modality": call.modalities,
                "where": call.where,
                "split": call.split,
                "columns": call.columns,
                "embedder": dict(embedder) if isinstance(embedder, Mapping) else embedder,
                "verify": call.verify,
            }
        )

    def _find_manifest(self, digest: str) -> dict[str, Any]:
        raise UserError(
            f"a service finds no manifest by its digest ({digest[:100]}); give the manifest, or open the "
            "store itself: FeatureStore.open(ROOT)"
        )

    def _training_set_of(self, manifest: dict[str, Any], verify: bool) -> RemoteTrainingSet:
        if "parts" in manifest:
            raise UserError(_NO_MIXTURES)
        return self._pin({"manifest": manifest, "verify": verify})

    def _pin(self, body: dict[str, Any]) -> RemoteTrainingSet:
        pinned = self._send("POST", "/v1/training_sets", json=body).json()
        return RemoteTrainingSet(self, pinned["digest"], pinned["manifest"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request; once more where the service is busy for a moment.

        Raises:
            UserError: in the words of the service, or where it is not reached.
        """
        import httpx

        headers = {"Accept": f"{_ARROW}, application/json;q=0.9"}
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                answer = self._client.request(method, path, headers=headers, **more)
            except httpx.HTTPError as error:
                raise UserError(
                    f"{self._address} does not answer: {error}; is `mm serve` started there?"
                ) from None
            if answer.status_code not in (429, 503) or not tries_left:
                break
            time.sleep(min(_PAUSE_SECONDS, float(answer.headers.get("retry-after", 1))))
        if answer.is_error:
            raise _error_of(answer)
        return answer

    @contextmanager
    def open_rows(self, name: str, manifest: dict[str, Any]) -> Iterator[pa.RecordBatchReader]:
        """Open the rows of a training set; it is pinned again where the service has forgotten it.

        Args:
            name: digest by which the service knows the set.
        """
        path = f"/v1/training_sets/{name}/rows"
        for is_again in (False, True):
            with self._client.stream("GET", path, headers={"Accept": _ARROW}) as answer:
                if answer.status_code == 404 and not is_again:
                    self._send("POST", "/v1/training_sets", json={"manifest": manifest})
                    continue
                if answer.is_error:
                    answer.read()
                    raise _error_of(answer)
                with pa.ipc.open_stream(_Stream(answer.iter_bytes())) as reader:
                    yield reader
                return


class RemoteTrainingSet:
    """Rows of a training set of a service, see `mm_resources.retrieval.training_set.TrainingSet`.

    Attributes:
        manifest: JSON that names the tables, versions, filter and columns, with row count and digest; also
            a `FeatureStore` on the store itself takes it.
    """

    def __init__(self, store: RemoteFeatureStore, name: str, manifest: dict[str, Any]) -> None:
        self._store, self._name, self.manifest = store, name, manifest

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Stream all rows."""
        with self._store.open_rows(self._name, self.manifest) as reader:
            yield from reader

    def to_arrow(self) -> pa.Table:
        """Read all rows into memory; without rows, an empty table of the same columns and types."""
        with self._store.open_rows(self._name, self.manifest) as reader:
            return reader.read_all()

    def to_polars(self) -> pl.DataFrame:
        """Read all rows into memory, as a Polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __getattr__(self, name: str) -> Any:
        """Name the way to what needs the store itself: loaders read it row by row.

        Raises:
            UserError: for a method of `TrainingSet`; AttributeError for any other name.
        """
        if not name.startswith("_") and hasattr(TrainingSet, name):
            raise UserError(
                f"{name} reads the store itself; open it by its folder or URL and give this set's manifest: "
                "FeatureStore.open(ROOT).training_set(manifest=...)"
            )
        raise AttributeError(name)


def _medium(query: Query) -> bytes | None:
    """Return the bytes of a query that is a medium; None for a text or a vector."""
    if isinstance(query, bytes):
        return query
    if isinstance(query, Path) or (
        isinstance(query, str) and not isinstance(query, Words) and os.path.isfile(query)
    ):
        return Path(query).read_bytes()
    return None


def _read_table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(io.BytesIO(data)) as reader:
        return reader.read_all()


def _error_of(answer: httpx.Response) -> UserError:
    """Return the error of an answer, in the words of the service."""
    try:
        problem = answer.json()
        return UserError(str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return UserError(f"{answer.request.url.path} answers {answer.status_code}; is it `mm serve`?")


class _Stream(io.RawIOBase):
    """The bytes of an answer as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            found = next(self._chunks, None)
            if found is None:
                return 0
            self._left = found
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)

    def read(self, size: int = -1) -> bytes:
        """Read as many bytes as are asked for, or to the end."""
        parts, wanted = [], size
        while wanted != 0:
            buffer = bytearray(min(wanted, 1 << 20) if wanted > 0 else 1 << 20)
            count = self.readinto(buffer)
            if not count:
                break
            parts.append(bytes(buffer[:count]))
            wanted -= count if wanted > 0 else 0
        return b"".join(parts)
