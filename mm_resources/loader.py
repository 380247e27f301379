"""The loader over a training set: shuffled, sharded, resumable, with nothing but row numbers of the whole in memory.

Imports torch, so that nothing but `TrainingSet.to_torch` imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch  # noqa: TID253
from torch.utils.data import DataLoader, IterableDataset  # noqa: TID253

from mm_resources.blobs import BlobStore
from mm_resources.training import is_media

# Rows are shuffled as runs of neighbours, then one by one among the runs of a window: a disk reads runs, and a window is mixed well.
RUN_ROWS = 128
WINDOW_ROWS = 16_384
# Media of a batch that are read side by side.
_READERS = 8
Take = Callable[[np.ndarray[Any, Any]], pa.Table]
Batch = dict[str, Any]


class Loader:
    """Batches as dicts: vectors and numbers as tensors (null as NaN), everything else as lists.

    Seed and epoch alone decide the order, whatever the number of workers. Each pass over the loader is one epoch; a pass that
    was broken off goes on from its `state_dict` where it ended, in this process or another.

    Args:
        take: rows of the set by their numbers, in the order given; picklable.
        rows: rows of the set.
        batch_size: rows of a batch; the last one of an epoch may have fewer.
        workers: processes that read and decode ahead; 0 reads in this one.
        rank, world_size: which of how many equal shares of each epoch; the rows that do not fill a batch for all are left out.
        blobs: where the media lie whose places `take` gives; read here, a batch at a time, since a window of them may be gigabytes.
    """

    def __init__(
        self,
        take: Take,
        rows: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        blobs: BlobStore | None = None,
    ) -> None:
        self._windows = _Windows(take, rows, batch_size, shuffle, seed, rank, world_size)
        self._workers, self._blobs = workers, blobs
        self._epoch = self._done = 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._windows.batches

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were handed out."""
        return {"epoch": self._epoch, "batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._done = state["epoch"], state["batches"]

    def __iter__(self) -> Iterator[Batch]:
        windows, size = self._windows, self._windows.batch_size
        first, skipped = divmod(self._done, windows.batches_each)
        for window in self._read(self._epoch, first):
            rows = len(next(iter(window.values())))
            for start in range(skipped * size, rows, size):
                self._done += 1
                yield self._with_media({name: _listed(column[start : start + size]) for name, column in window.items()})
            skipped = 0
        self._epoch, self._done = self._epoch + 1, 0

    def _with_media(self, batch: Batch) -> Batch:
        if self._blobs is None:
            return batch
        with ThreadPoolExecutor(_READERS) as pool:
            read = [(name, pool.map(self._read_blob, places)) for name, places in batch.items() if is_media(name)]
            return {**batch, **{name: list(found) for name, found in read}}

    def _read_blob(self, place: dict[str, Any]) -> bytes:
        assert self._blobs is not None
        return self._blobs.read(**place)

    def _read(self, epoch: int, first: int) -> Iterator[Batch]:
        share = _Share(self._windows, epoch, first)
        if self._workers == 0:
            return iter(share)
        # Lance's threads do not survive a fork. Windows come as they are: torch's own conversion would look at every string.
        return iter(DataLoader(share, batch_size=None, num_workers=self._workers, collate_fn=_as_it_is, multiprocessing_context="spawn"))


class _Windows:
    """An epoch cut into windows of whole batches, each read at once."""

    def __init__(self, take: Take, rows: int, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int) -> None:
        self.take, self.batch_size, self.shuffle, self.seed = take, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.run_rows, self.batches_each = RUN_ROWS, max(1, WINDOW_ROWS // batch_size)
        # Every rank has as many batches, so that none waits for another for ever.
        self.rows = rows if world_size == 1 else rows // (batch_size * world_size) * batch_size * world_size
        self.total = rows
        self.batches = -(-self.rows // (batch_size * world_size))

    def __len__(self) -> int:
        return -(-self.batches // self.batches_each)

    def order(self, epoch: int) -> np.ndarray[Any, Any]:
        """Starts of the runs of an epoch, in its order, int64."""
        starts = np.arange(0, self.total, self.run_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(starts) if self.shuffle else starts

    def numbers(self, order: np.ndarray[Any, Any], epoch: int, window: int) -> np.ndarray[Any, Any]:
        """Row numbers of this rank's share of a window, in order."""
        size = self.batches_each * self.batch_size * self.world_size
        chosen = self._between(order, window * size, min((window + 1) * size, self.rows))
        if self.shuffle:
            chosen = np.random.default_rng((self.seed, epoch, window)).permutation(chosen)
        if self.world_size == 1:
            return chosen
        return chosen.reshape(-1, self.world_size, self.batch_size)[:, self.rank].reshape(-1)

    def _between(self, order: np.ndarray[Any, Any], start: int, stop: int) -> np.ndarray[Any, Any]:
        """The rows from `start` to `stop` of the order, run by run."""
        size = self.run_rows
        # Only the run at the very end of the set may be shorter; wherever it stands, those behind it are moved up by what it lacks.
        lacking = -self.total % size
        short = int(np.argmax(order)) if lacking else len(order)
        first = start // size
        runs = order[first : (stop + lacking) // size + 1]
        rows = (runs[:, None] + np.arange(size)).reshape(-1)
        before = first * size - (lacking if short < first else 0)
        return rows[rows < self.total][start - before : stop - before]


class _Share(IterableDataset[Batch]):  # type: ignore[misc]
    """The windows of an epoch from `first` on; of several workers, each reads every so manyth, and they come in order."""

    def __init__(self, windows: _Windows, epoch: int, first: int) -> None:
        self.windows, self.epoch, self.first = windows, epoch, first

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        own, step = (worker.id, worker.num_workers) if worker else (0, 1)
        order = self.windows.order(self.epoch)
        for window in range(self.first + own, len(self.windows), step):
            numbers = self.windows.numbers(order, self.epoch, window)
            # Read in the order in which they lie.
            places = np.argsort(numbers, kind="stable")
            back = np.empty_like(places)
            back[places] = np.arange(len(places))
            yield _tensors(self.windows.take(numbers[places]), back)


def _tensors(table: pa.Table, order: np.ndarray[Any, Any]) -> Batch:
    """Columns of a table in an order: float32 [rows, dimension] tensors, [rows] tensors, or Arrow, which travels to another
    process as it is and becomes lists a batch at a time."""
    found: Batch = {}
    index = torch.from_numpy(order)
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            values = _over(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
            found[name] = torch.index_select(values, 0, index, out=_room(values))
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            # What is null becomes NaN.
            found[name] = _over(column.to_numpy(zero_copy_only=False)).index_select(0, index)
        else:
            found[name] = column.take(pa.array(order))
    return found


def _room(values: torch.Tensor) -> torch.Tensor:
    """An empty tensor like another one; in a worker in memory that it shares with the process that trains, so that nothing is
    copied on the way there."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty_like(values)
    return values.new(values._typed_storage()._new_shared(values.numel(), device=values.device)).resize_(values.shape)


def _over(values: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor over an array's own memory, to be read alone: Arrow's is not to be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)


def _listed(column: Any) -> Any:
    return column.to_pylist() if isinstance(column, pa.Array) else column


def _as_it_is(window: Batch) -> Batch:
    return window
