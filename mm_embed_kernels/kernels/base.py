"""Kernels: expensive computations per content, described so that one mechanism can cache, resume and distribute them.

A kernel turns `REQUEST` rows into result rows, one for each request, never raising for a single bad row. It is a
chain of stages, each with its own resources, so that decoding (CPU) and inference (device) scale apart. The same
stages run inline and inside Ray actors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import environment_digest
from mm_embed_kernels.modalities import Media
from mm_embed_kernels.sandbox.sandbox import Limits

if TYPE_CHECKING:
    from mm_embed_kernels.transcribers import Transcriber

REQUEST = pa.schema(
    [
        ("key", pa.string()),  # cache key: unique among the requests
        ("content_hash", pa.string()),
        ("span", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("text", pa.string()),
    ]
)
RESULT = [
    pa.field("key", pa.string()),
    pa.field("status", pa.string()),  # ok | failed
    pa.field("error_class", pa.string()),
    pa.field("message", pa.string()),
    pa.field("retryable", pa.bool_()),
    pa.field("seconds", pa.float64()),
]


class BlobReader(Protocol):
    """Reads one blob and verifies its hash; picklable, so that a worker can carry it."""

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes: ...

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """The bytes, or a local file of them where they are too many for memory."""


@dataclass(frozen=True)
class Resources:
    """What one actor of a stage asks for, and how rows reach it."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    actors: int = 1
    batch_rows: int = 64


class Stage(ABC):
    """One step of a kernel. Picklable until `setup`, which loads what is heavy.

    Attributes:
        schema: of the rows that it returns; what it lacks of a failed row is null.
        infers: whether a model works in its own process, which may die of what it is given (see `isolated`).
        limits: of the sandbox that it opens bytes in, if it does.
    """

    schema: pa.Schema
    resources: Resources = Resources()
    infers: bool = False
    limits: Limits | None = None

    def setup(self) -> None:  # noqa: B027 - a stage without heavy parts has nothing to set up
        """Load models or start children; called once per process."""

    @abstractmethod
    def run(self, batch: pa.Table) -> pa.Table:
        """One row out for each row in."""


class Kernel(ABC):
    """See the module's docstring.

    Attributes:
        name: ``fetch``, ``probe``, ``segment`` or ``embed:<embedder>``: what the ledger counts under.
        scope: sub-folder of the cache, e.g. ``probe-image``.
        fingerprint: whatever changes an output changes it.
        payload: the columns it computes.
        seconds_per_row: first guess of the cost of a row.
        limits: of the sandbox that it opens bytes in, if it does.
        checkpoint_rows: rows that one commit to the cache holds at most.
        order: of the requests, as SQL; by default that of keys, which begin with the content hash, so that a blob's segments
            come together and it is read once.
        models: what its stages load on whichever machine they run.
        here: whether its stages read what lies on this machine, so that no other one could run them.
    """

    name: str
    scope: str
    fingerprint: str
    payload: list[pa.Field]
    seconds_per_row: float
    limits: Limits | None = None
    checkpoint_rows: int = 32_768
    order: str = "key"
    models: tuple[Embedder | Transcriber, ...] = ()
    driver_only: bool = False

    @property
    def environment(self) -> str:
        """Digest of what its permanent failures depend on."""
        return self.limits.environment if self.limits else environment_digest()

    @property
    def result(self) -> pa.Schema:
        return pa.schema([*RESULT, *(pa.field(item.name, item.type) for item in self.payload)])

    @abstractmethod
    def stages(self) -> list[Stage]: ...


def results(
    keys: list[str], outcomes: list[dict[str, Any] | SampleError], seconds: float, schema: pa.Schema
) -> pa.Table:
    """Result rows from outcomes; `seconds` is shared evenly."""
    each = seconds / max(1, len(keys))
    rows = []
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, SampleError):
            rows.append(
                {
                    "key": key,
                    "status": "failed",
                    "error_class": outcome.error_class,
                    "message": outcome.message,
                    "retryable": outcome.retryable,
                    "seconds": each,
                }
            )
        else:
            rows.append({"key": key, "status": "ok", "retryable": False, "seconds": each, **outcome})
    return pa.Table.from_pylist(rows, schema=schema)
