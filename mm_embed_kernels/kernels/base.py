"""Kernels: expensive computations per content, in a form that is cached, resumed and distributed.

A kernel turns `REQUEST` rows into result rows, one for each request, and never raises for a single bad row.
It is a chain of stages, each with its own resources, so that decoding (CPU) and inference (device) scale
apart. The same stages run inline and inside Ray actors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.error_class_entries import SUSPECTED
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import environment_digest
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.transcribers.base import Transcriber

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
# The columns of a result before those of the kernel's payload.
RESULT = [
    pa.field("key", pa.string()),
    pa.field("status", pa.string()),  # ok | failed
    pa.field("error_class", pa.string()),
    pa.field("message", pa.string()),
    pa.field("retryable", pa.bool_()),
    pa.field("seconds", pa.float64()),
]
_RESULT_NAMES = frozenset(item.name for item in RESULT)
# What Arrow raises about a value that is not of its column's type.
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


class BlobReader(Protocol):
    """Reads a blob and verifies its hash; picklable, so that workers can have it."""

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes: ...

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """Return the bytes, or a local file of them where they are too many for memory."""


@dataclass(frozen=True)
class Resources:
    """Resources of the actors of a stage.

    Attributes:
        num_cpus: cores of an actor.
        num_gpus: devices of an actor.
        actors: number of actors.
        batch_rows: rows of a batch.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    actors: int = 1
    batch_rows: int = 64


class Stage(ABC):
    """One step of a kernel. Picklable until `setup`, which loads models or starts children.

    Attributes:
        schema: of the rows that it returns; a column that it does not compute is null in a failed row.
        resources: of its actors.
        infers: whether it runs a model, which gets a process of its own (see `isolated_stage`).
        limits: of the sandbox in which it opens bytes; None where it opens none.
    """

    schema: pa.Schema
    resources: Resources = Resources()
    infers: bool = False
    limits: Limits | None = None

    @property
    def reads(self) -> tuple[Path, ...]:
        """Files that `setup` reads."""
        return ()

    def setup(self) -> None:  # noqa: B027 - most stages load nothing
        """Load models or start children; called once per process."""

    @abstractmethod
    def run(self, batch: pa.Table) -> pa.Table:
        """Return one row for each row."""

    def canary(self, row: pa.Table) -> pa.Table | None:  # noqa: ARG002 - for subclasses
        """Return a harmless row like another one, which a model that works computes; None for none."""
        return None


def replace_value(row: pa.Table, name: str, value: Any) -> pa.Table:
    """Return a table of one row with another value in a column."""
    place = row.schema.get_field_index(name)
    item = row.schema.field(place)
    return row.set_column(place, item, pa.array([value], item.type))


class Kernel(ABC):
    """A computation per content; see the module's docstring.

    Attributes:
        name: ``fetch``, ``probe``, ``segment``, ``embed:<embedder>`` or ``transcribe:<transcriber>``: its
            name in the ledger.
        scope: sub-folder of the cache, e.g. ``probe-image``.
        fingerprint: digest of everything that changes an output.
        payload: columns that it computes.
        seconds_per_row: estimated cost of a row, before the ledger has a measured one.
        limits: of the sandbox in which it opens bytes; None where it opens none.
        checkpoint_rows: most rows of one commit to the cache.
        order: SQL expression by which requests are sorted. Keys begin with the content hash, so that by
            default the segments of a blob come together and it is read once.
        models: models that its stages load, on any machine.
        suspected: error classes of which the machine may be the cause: a failure marked retryable stays so
            until several runs have seen it.
        driver_only: whether its stages read data of the driver's machine, so that no other one can run them.
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
    suspected: frozenset[str] = SUSPECTED
    driver_only: bool = False

    @property
    def environment(self) -> str:
        """Digest of what its permanent failures depend on."""
        return self.limits.environment if self.limits else environment_digest()

    @property
    def result(self) -> pa.Schema:
        """Schema of the result rows."""
        return pa.schema([*RESULT, *(pa.field(item.name, item.type) for item in self.payload)])

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Return the stages in the order in which a request passes them."""


def results(
    keys: list[str], outcomes: list[dict[str, Any] | SampleError], seconds: float, schema: pa.Schema
) -> pa.Table:
    """Return the result rows of some requests.

    Args:
        keys: of the requests.
        outcomes: of each request, the payload or an error.
        seconds: wall time of all together, divided evenly among the rows.
        schema: of the rows.
    """
    each = seconds / max(1, len(keys))
    payload = [name for name in schema.names if name not in _RESULT_NAMES]
    rows = [_row(key, outcome, each, payload) for key, outcome in zip(keys, outcomes, strict=True)]
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except _MISFITS:
        # What a decoder answers is not trusted: a value that does not fit its column costs its own row.
        checked = [_check_row(row, each, schema) for row in rows]
        return pa.Table.from_pylist(checked, schema=schema)


def _row(
    key: str, outcome: dict[str, Any] | SampleError, seconds: float, payload: list[str]
) -> dict[str, Any]:
    """Return one row; no answer sets the columns of `RESULT`."""
    if not isinstance(outcome, (SampleError, dict)):
        outcome = SampleError("contract", f"a plug-in returned {type(outcome).__name__}, not a row")
    if isinstance(outcome, SampleError):
        return {
            "key": key,
            "status": "failed",
            "error_class": outcome.error_class,
            "message": outcome.message,
            "retryable": outcome.retryable,
            "seconds": seconds,
        }
    known = {name: outcome[name] for name in payload if name in outcome}
    return {"key": key, "status": "ok", "retryable": False, "seconds": seconds, **known}


def _check_row(row: dict[str, Any], seconds: float, schema: pa.Schema) -> dict[str, Any]:
    """Return a row that fits, or the failure of one that does not."""
    try:
        pa.Table.from_pylist([row], schema=schema)
    except _MISFITS as error:
        return _row(row["key"], SampleError("contract", f"{type(error).__name__}: {error}"), seconds, [])
    return row
