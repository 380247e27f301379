"""A stage in a process of its own: for models, which may die of what they are given."""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from multiprocessing.util import Finalize
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.kernels.base import Stage, results
from mm_embed_kernels.sandbox.child_process import Child, ChildDied, ChildTimeout, die_with_parent

# For loading a model, and for one batch: what takes longer hangs.
BATCH_SECONDS = 300.0
# Deaths without one answer in between, after which it is the model that is broken, not the samples.
_MOST_DEATHS = 8
_KEPT = 2


class IsolatedStage(Stage):
    """Runs `stage` in a child. A batch of which the child dies is finished row by row; the guilty row fails.

    Args:
        seconds: after which a batch counts as hanging.
        prepare: called first in each child; picklable.
    """

    def __init__(
        self, stage: Stage, seconds: float = BATCH_SECONDS, prepare: Callable[[], None] | None = None
    ) -> None:
        self.stage, self.schema, self.resources, self.seconds = stage, stage.schema, stage.resources, seconds
        self.prepare = prepare
        self._pickled = pickle.dumps(stage)
        self._deaths = 0

    def setup(self) -> None:
        """Load the model, unless the last stages of this process have left it loaded.

        Raises:
            RuntimeError: when the process dies or hangs while it loads; else as the stage's own `setup`.
        """
        try:
            self._ask(None)
        except (ChildDied, ChildTimeout) as end:
            raise RuntimeError(
                f"loading the model ended its process: {_cause(end, self.seconds).message}"
            ) from end

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        try:
            found = self._ask(batch)
        except (ChildDied, ChildTimeout) as end:
            if batch.num_rows > 1:
                return pa.concat_tables([self.run(batch.slice(i, 1)) for i in range(batch.num_rows)])
            cause = _cause(end, self.seconds)
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                raise RuntimeError(
                    f"the model ended its process {self._deaths} times in a row: {cause.message}"
                ) from end
            return results(batch["key"].to_pylist(), [cause], time.perf_counter() - began, self.schema)
        self._deaths = 0
        return found

    def _ask(self, batch: pa.Table | None) -> Any:
        item = (content_hash(self._pickled), self._pickled, batch and _packed(batch))
        (answer,) = _children().of(item[0], self.prepare).ask(_step, [item], self.seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer and _unpacked(answer)


def _cause(end: ChildDied | ChildTimeout, seconds: float) -> SampleError:
    if isinstance(end, ChildTimeout):
        return SampleError("timeout", f"the model took longer than {seconds:g} s")
    # Whoever has too much memory when it runs out is killed; with less beside it, the same sample may pass.
    return SampleError("model_crash", f"the model's process died with {end}", retryable=str(end) == "SIGKILL")


@cache
def _children() -> _Children:
    kept = _Children()
    Finalize(kept, kept.close, exitpriority=10)
    return kept


def _enter(prepare: Callable[[], None] | None) -> None:
    """First thing in a process that holds models."""
    from tqdm import tqdm

    die_with_parent()
    # Its own lock is a semaphore of the system, which nobody takes back when a process is killed, as these are in the end.
    tqdm.set_lock(threading.RLock())
    if prepare is not None:
        prepare()


def close_models() -> None:
    """End the processes of the models that are loaded, for work that needs their memory; the next use loads them again."""
    _children().close()


class _Children:
    """The processes of the stages used last, with their models loaded."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Child] = OrderedDict()

    def of(self, stage: str, prepare: Callable[[], None] | None) -> Child:
        if stage not in self._kept:
            self._kept[stage] = Child(_enter, prepare, parent=True)
        self._kept.move_to_end(stage)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)[1].close()
        return self._kept[stage]

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


_loaded: dict[str, Stage] = {}


def _step(name: str, pickled: bytes, batch: bytes | None) -> bytes | Exception | None:
    """In the child: load the stage once, then run it."""
    try:
        if name not in _loaded:
            stage: Stage = pickle.loads(pickled)
            stage.setup()
            _loaded[name] = stage
        return None if batch is None else _packed(_loaded[name].run(_unpacked(batch)))
    except Exception as error:  # noqa: BLE001 - raised again by the parent
        return error


def _packed(table: pa.Table) -> bytes:
    """The rows of a table, and not those of which it is a slice."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpacked(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
