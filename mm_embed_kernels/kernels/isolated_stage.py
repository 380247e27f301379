"""A stage in a child process: for models, which may crash or hang on some inputs."""

from __future__ import annotations

import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import ProcessFailure, SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.kernels.base import Stage, results
from mm_embed_kernels.sandbox.answers import BadAnswer
from mm_embed_kernels.sandbox.channel import loads
from mm_embed_kernels.sandbox.child_process import (
    Child,
    ChildDied,
    ChildTimeout,
    refuse_children,
)
from mm_embed_kernels.sandbox.model_process import enter_model, model_environment
from mm_embed_kernels.sandbox.scratch import Scratch
from mm_embed_kernels.sandbox.tables import from_bytes, from_stranger, to_bytes

# Own time (see `Stopwatch`) of a batch, and of loading a model.
BATCH_SECONDS = 300.0
# Own time of a row that is tried a second time, alone, as a multiple.
_SECOND_TRY = 2.0
# Time of a batch on the clock, as a far backstop.
WALL_SECONDS = 3600.0
# Deaths without one answer in between, after which a harmless row shows whether the model is broken or the
# samples are, and the processes that try it.
_MAX_DEATHS, _CANARY_TRIES = 8, 2
# Processes that stay with their models loaded.
_MAX_PROCESSES = 2


class IsolatedStage(Stage):
    """Another stage, run in a child process.

    The rows of a batch on which the child ends are computed one by one, with more time, and the guilty row
    fails.

    Args:
        stage: picklable.
        seconds: own time for a batch, after which the child is killed.
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
        """Load the model, unless a process of the last stages still has it loaded.

        Raises:
            ProcessFailure: when the process ends while it loads; else as the stage's own `setup`.
        """
        try:
            self._load(self._child())
        except (ChildDied, ChildTimeout, BadAnswer) as end:
            raise _loading_failure(end) from end

    def run(self, batch: pa.Table) -> pa.Table:
        """Return one row for each row.

        Raises:
            ProcessFailure: when the process died on as many batches in a row as no sample explains.
        """
        try:
            table = self._run(batch, 1.0)
        except (ChildDied, ChildTimeout, BadAnswer):
            rows = (batch.slice(i, 1) for i in range(batch.num_rows))
            return pa.concat_tables([self._run_alone(row) for row in rows])
        self._deaths = 0
        return table

    def _run_alone(self, row: pa.Table) -> pa.Table:
        """Compute one row of a batch that has ended its process."""
        began = time.perf_counter()
        try:
            table = self._run(row, _SECOND_TRY)
        except BadAnswer as refused:
            cause = SampleError("bad_answer", f"the model's answer is refused: {refused}")
            return results(row["key"].to_pylist(), [cause], time.perf_counter() - began, self.schema)
        except (ChildDied, ChildTimeout) as end:
            cause = _blame(end)
            self._deaths += 1
            if self._deaths >= _MAX_DEATHS and not self._computes_canary(row):
                raise ProcessFailure(
                    f"the model ended its process {self._deaths} times in a row: {cause.message}; free memory"
                    " of this machine or update the model's libraries, and run the same command again"
                ) from end
            return results(row["key"].to_pylist(), [cause], time.perf_counter() - began, self.schema)
        self._deaths = 0
        return table

    def _computes_canary(self, row: pa.Table) -> bool:
        """Return whether the model computes a harmless row, so that the rows are the cause of the deaths."""
        canary = self.stage.canary(row)
        for _ in range(_CANARY_TRIES if canary is not None else 0):
            try:
                self._run(canary, _SECOND_TRY)
            except (ChildDied, ChildTimeout, BadAnswer):
                continue
            self._deaths = 0
            return True
        return False

    def _run(self, batch: pa.Table, factor: float) -> pa.Table:
        """Run the stage on a batch in the child, with a multiple of the time; load it first if necessary."""
        child = self._child()
        if not child.has_answered:
            try:
                self._load(child)
            except (ChildDied, ChildTimeout, BadAnswer) as end:
                raise _loading_failure(end) from end
        return self._ask(child, batch, factor)

    def _child(self) -> Child:
        return _processes().child_of(content_hash(self._pickled), self.prepare, self.stage.reads)

    def _load(self, child: Child) -> None:
        """Load the stage in the child; once more where the machine has ended it."""
        try:
            self._ask(child, None)
        except ChildDied as end:
            if not end.outside:
                raise
            self._ask(child, None)

    def _ask(self, child: Child, batch: pa.Table | None, factor: float = 1.0) -> pa.Table | None:
        """Load the stage in the child where it is not loaded, and run it on the batch, if there is one."""
        name = content_hash(self._pickled)
        item = (name, self._pickled, None if batch is None else to_bytes(batch))
        (answer,) = child.ask(_run_stage, [item], factor * self.seconds, WALL_SECONDS)
        if isinstance(answer, SampleError):
            raise answer
        if isinstance(answer, dict):
            raise _restore_error(answer)
        return None if batch is None else from_stranger(answer, self.schema, batch.num_rows)


def _loading_failure(end: ChildDied | ChildTimeout | BadAnswer) -> ProcessFailure:
    cause = f"its answer is refused: {end}" if isinstance(end, BadAnswer) else f"it died with {end}"
    if isinstance(end, ChildTimeout):
        cause = f"it took longer than {end.excess}"
    return ProcessFailure(
        f"loading the model ended its process: {cause}; free memory of this machine or update the model's "
        "libraries, and run the same command again"
    )


def _blame(end: ChildDied | ChildTimeout) -> SampleError:
    """Return the error of a row at which the process ended twice.

    When memory runs out, the kernel kills a process that has much of it; with fewer other processes the same
    sample may pass, as one that took too long may on a machine that is less busy. The cache counts the runs.
    """
    if isinstance(end, ChildTimeout):
        return SampleError("timeout", f"the model, alone, took longer than {end.excess}", retryable=True)
    return SampleError("model_crash", f"the model's process died with {end}", retryable=end.outside)


class _Processes:
    """Child processes of the last stages, with their models loaded."""

    def __init__(self) -> None:
        self._children: OrderedDict[str, Child] = OrderedDict()
        self._scratch = Scratch()

    def child_of(self, stage: str, prepare: Callable[[], None] | None, reads: Sequence[Path] = ()) -> Child:
        """Return the child of a stage, which may read the folders of some files."""
        if stage not in self._children:
            # A hub's cache links to the files.
            folders = {str(path.parent) for file in reads for path in (file, file.resolve())}
            self._children[stage] = Child(
                enter_model,
                pickle.dumps(prepare),
                sorted(folders),
                self._scratch.path,
                environment=partial(model_environment, self._scratch.path),
            )
        self._children.move_to_end(stage)
        while len(self._children) > _MAX_PROCESSES:
            self._children.popitem(last=False)[1].close()
        return self._children[stage]

    def close(self) -> None:
        while self._children:
            self._children.popitem()[1].close()

    def close_at_exit(self) -> None:
        refuse_children()
        self.close()
        self._scratch.remove()


@cache
def _processes() -> _Processes:
    processes = _Processes()
    Finalize(processes, processes.close_at_exit, exitpriority=10)
    return processes


def close_models() -> None:
    """End the processes with loaded models to free their memory; the next use starts new ones."""
    _processes().close()


# Stages of this child, by the hash of their pickle.
_loaded: dict[str, Stage] = {}


def _run_stage(name: str, pickled: bytes, batch: bytes | None) -> Any:
    """Load a stage unless it is loaded, and run it on the batch, if there is one; runs in the child."""
    try:
        if name not in _loaded:
            stage: Stage = loads(pickled)
            stage.setup()
            _loaded[name] = stage
        return None if batch is None else to_bytes(_loaded[name].run(from_bytes(batch)))
    except SampleError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the parent raises it again
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return {"message": f"{kind}{error}", "user": not kind}


def _restore_error(answer: dict[str, Any]) -> Exception:
    """Return what a child has raised: a mistake of the user, or an error of the model."""
    kind = UserError if answer.get("user") else RuntimeError
    return kind(str(answer.get("message"))[:2000])
