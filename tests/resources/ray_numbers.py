"""A kernel whose stages die, hang and fail on request; Ray's workers import it from here."""

from __future__ import annotations

import os
import time
from typing import Any

import pyarrow as pa

from mm_embed_kernels.kernels.base import Kernel, Resources, Stage, results
from mm_embed_kernels.sandbox.sandbox import Limits, call_guarded


class Numbers(Kernel):
    """Twice the number in a key, in two stages; a suffix of the key makes a stage die, hang or fail."""

    name = "numbers"
    scope = "numbers"
    fingerprint = "a" * 64
    seconds_per_row = 0.001
    payload = [pa.field("twice", pa.int64())]

    def stages(self) -> list[Stage]:
        return [Reads(self.result), Doubles(self.result)]


class Reads(Stage):
    resources = Resources(num_cpus=0.5, batch_rows=8)

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def run(self, batch: pa.Table) -> pa.Table:
        keys = batch["key"].to_pylist()
        for key in keys:
            self.obey(key)
        return results(keys, [call_guarded(self.read, (key,)) for key in keys], 0.0, self.schema)

    @staticmethod
    def obey(key: str) -> None:
        if key.endswith("-early"):
            os._exit(3)
        if key.endswith("-bug"):
            raise KeyError(key)

    @staticmethod
    def read(key: str) -> dict[str, Any]:
        return {"twice": int(key.split("-")[0])}


class Doubles(Reads):
    def run(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        for row in rows:
            if row["key"].endswith("-late"):
                os.kill(os.getpid(), 11)
            if row["key"].endswith("-hang"):
                time.sleep(600)
        doubled = [None if row["twice"] is None else row["twice"] * 2 for row in rows]
        return batch.set_column(batch.column_names.index("twice"), "twice", pa.array(doubled, pa.int64()))


class Children(Numbers):
    """The number of sandboxed children that the stage may have where it runs."""

    def stages(self) -> list[Stage]:
        return [Counts(self.result)]


class Counts(Reads):
    limits = Limits(workers=4)

    def run(self, batch: pa.Table) -> pa.Table:
        return results(
            batch["key"].to_pylist(), [{"twice": self.limits.workers}] * batch.num_rows, 0.0, self.schema
        )
