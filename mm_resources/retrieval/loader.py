"""The loader of a training set: shuffled, sharded and resumable, with only row numbers in memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import matrix_of
from mm_embed_kernels.errors import UserError
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.retrieval.arguments import require_flag, require_number
from mm_resources.retrieval.training_rows import is_media, read_media

# Shuffling permutes runs of neighbouring rows, then the rows of all runs of a window. Runs are read at the
# cost of a scan, and the rows of a batch come from up to 32 runs of the set, drawn again each epoch; a set of
# at most one window is shuffled completely. A larger window would take memory that the allocator gets from
# the system again each time.
RUN_ROWS = 256
WINDOW_ROWS = 8_192
# Threads that read the media of a batch.
_READERS = 8
Take = Callable[[np.ndarray[Any, Any]], pa.Table]
Batch = dict[str, Any]


class Loader:
    """Batches as dicts: vectors and numbers as tensors, all other columns as lists.

    Null is NaN in columns of floating-point numbers. Integers have no such value, and as floats they would
    lose digits beyond 2**53: an integer column with nulls is a list of ints and None, in all batches of a
    training set alike, and all others are tensors of the column's own type.

    Seed and epoch alone determine the order, for any number of workers. Each pass over the loader is one
    epoch; an interrupted pass resumes from its `state_dict`, in this process or another.

    Args:
        take: function that reads rows of the set by their numbers, in the given order; called by several
            threads at once.
        rows: number of rows of the set.
        batch_size: rows of a batch; the last batch of an epoch may have fewer.
        shuffle: whether to shuffle the rows again each epoch.
        seed: seed of the order.
        workers: threads that read ahead, one window each; 0 reads a window when it is needed. Reading,
            sorting and copying run without Python's lock, so processes, which take seconds to start, would
            gain nothing.
        rank, world_size: this process's share of each epoch among equal ones; rows that do not fill a batch
            of every process are left out.
        blobs: the store of the media whose locations `take` returns, read a batch at a time, since the media
            of a window may be gigabytes; None without media.
        lists: integer columns that are lists, since a row of the set has null there.

    Raises:
        UserError: as `check_loader`, and where the rows do not fill a batch on each rank.
    """

    def __init__(  # noqa: PLR0913 - the public API
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
        lists: Collection[str] = (),
    ) -> None:
        check_loader(batch_size, shuffle, seed, workers, rank, world_size)
        if world_size > 1 and rows < batch_size * world_size:
            raise UserError(
                f"{rows} rows do not fill a batch of {batch_size} on each of {world_size} ranks; "
                f"use batches of at most {rows // world_size} rows"
                if rows >= world_size
                else f"{rows} rows give none to some of {world_size} ranks; use fewer ranks, or more rows"
            )
        self._windows = _Windows(take, rows, batch_size, shuffle, seed, rank, world_size, lists)
        self._workers, self._blobs = workers, blobs
        self._epoch = self._done = 0

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return self._windows.batches

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of its batches already returned, and a description of their order."""
        return {"epoch": self._epoch, "batches": self._done, "order": self._windows.description}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where another loader of the same order stopped.

        Raises:
            UserError: for a state of another order (another seed, batch size or set, or an older version of
                the package).
        """
        if not isinstance(state, dict):
            raise UserError(f"the loader's state is {state!r}; give what state_dict() returned")
        own, saved = self._windows.description, state.get("order")
        if saved != own:
            raise UserError(
                f"the loader's state belongs to another order of rows: {saved or 'one of an older version'}, "
                f"here it is {own}; make the loader with the same arguments, or start the epoch again"
            )
        self._epoch, self._done = state["epoch"], state["batches"]

    def __iter__(self) -> Iterator[Batch]:
        first, skipped = divmod(self._done, self._windows.batches_each)
        for window in self._read(self._epoch, first):
            for batch in window[skipped:]:
                self._done += 1
                yield self._add_media(batch)
            skipped = 0
        self._epoch, self._done = self._epoch + 1, 0

    def _add_media(self, batch: Batch) -> Batch:
        if self._blobs is None:
            return batch
        with ThreadPoolExecutor(_READERS) as pool:
            media = [
                (name, pool.map(self._read_blob, locations))
                for name, locations in batch.items()
                if is_media(name)
            ]
            return {**batch, **{name: list(contents) for name, contents in media}}

    def _read_blob(self, location: dict[str, Any]) -> bytes:
        assert self._blobs is not None
        return read_media(self._blobs, location)

    def _read(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """Read the windows of an epoch from `first` on, in order."""
        order = self._windows.order(epoch)
        windows = iter(range(first, len(self._windows)))
        if self._workers == 0:
            yield from (self._windows.read(order, epoch, window) for window in windows)
            return
        pool = ThreadPoolExecutor(self._workers, "loader")
        try:
            pending = deque(
                pool.submit(self._windows.read, order, epoch, window)
                for window in itertools.islice(windows, self._workers)
            )
            while pending:
                batches = pending.popleft().result()
                pending.extend(
                    pool.submit(self._windows.read, order, epoch, window)
                    for window in itertools.islice(windows, 1)
                )
                yield batches
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check_loader(batch_size: int, shuffle: bool, seed: int, workers: int, rank: int, world_size: int) -> None:
    """Check the arguments of a loader that do not depend on its rows.

    Raises:
        UserError: for one of another type or out of its range.
    """
    require_number("batch_size", batch_size, 1)
    require_flag("shuffle", shuffle)
    require_number("seed", seed, 0)
    require_number("workers", workers, 0)
    require_number("rank", rank, 0)
    require_number("world_size", world_size, 1)
    if rank >= world_size:
        raise UserError(f"rank is {rank}, but ranks of world_size {world_size} end at {world_size - 1}")


class _Windows:
    """The windows of an epoch: whole batches, each window read at once."""

    def __init__(  # noqa: PLR0913 - those of the loader
        self,
        take: Take,
        rows: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world_size: int,
        lists: Collection[str],
    ) -> None:
        self.lists = lists
        self.take, self.batch_size, self.shuffle, self.seed = take, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.run_rows, self.batches_each = RUN_ROWS, max(1, WINDOW_ROWS // batch_size)
        # All ranks have the same number of batches; otherwise one would wait for the others without end.
        self.rows = rows if world_size == 1 else rows // (batch_size * world_size) * batch_size * world_size
        self.total = rows
        self.batches = -(-self.rows // (batch_size * world_size))

    def __len__(self) -> int:
        return -(-self.batches // self.batches_each)

    @property
    def description(self) -> str:
        """Description of everything that determines the order, except the epoch."""
        runs = f"in runs of {self.run_rows} and windows of {self.batches_each} batches"
        shuffled = f"shuffled with seed {self.seed} {runs}" if self.shuffle else "as stored"
        return f"{self.total} rows {shuffled}, batches of {self.batch_size}, world size {self.world_size}"

    def read(self, order: np.ndarray[Any, Any], epoch: int, window: int) -> list[Batch]:
        """Read this rank's batches of a window: in stored order, then put into batch order."""
        numbers = self.numbers(order, epoch, window)
        stored = np.argsort(numbers)
        positions = np.empty_like(stored)
        positions[stored] = np.arange(len(stored))
        table = self.take(numbers[stored])
        columns = {name: _Column(table[name], positions, name in self.lists) for name in table.column_names}
        starts = range(0, len(positions), self.batch_size)
        return [
            {name: column.rows(start, start + self.batch_size) for name, column in columns.items()}
            for start in starts
        ]

    def order(self, epoch: int) -> np.ndarray[Any, Any]:
        """Return the first rows of the runs of an epoch, in its order, int64 [runs]."""
        starts = np.arange(0, self.total, self.run_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(starts) if self.shuffle else starts

    def numbers(self, order: np.ndarray[Any, Any], epoch: int, window: int) -> np.ndarray[Any, Any]:
        """Return the row numbers of this rank's share of a window, in order, int64."""
        size = self.batches_each * self.batch_size * self.world_size
        chosen = self._rows_between(order, window * size, min((window + 1) * size, self.rows))
        if self.shuffle:
            chosen = np.random.default_rng((self.seed, epoch, window)).permutation(chosen)
        if self.world_size == 1:
            return chosen
        return chosen.reshape(-1, self.world_size, self.batch_size)[:, self.rank].reshape(-1)

    def _rows_between(self, order: np.ndarray[Any, Any], start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return the rows from `start` to `stop` of the order, run by run."""
        size = self.run_rows
        # Only the last run of the set may be shorter; the runs behind it in the order move up by its missing
        # rows.
        missing = -self.total % size
        short = int(np.argmax(order)) if missing else len(order)
        first = start // size
        runs = order[first : (stop + missing) // size + 1]
        rows = (runs[:, None] + np.arange(size)).reshape(-1)
        before = first * size - (missing if short < first else 0)
        return rows[rows < self.total][start - before : stop - before]


class _Column:
    """A column of a window, stored in one order and returned in another."""

    def __init__(self, column: pa.ChunkedArray, order: np.ndarray[Any, Any], as_list: bool) -> None:
        self._order = order
        # A single chunk is not copied.
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        self._is_tensor = True
        if pa.types.is_fixed_size_list(whole.type):
            self._values = matrix_of(whole)
        elif pa.types.is_floating(whole.type) or (
            pa.types.is_integer(whole.type) and not as_list and not whole.null_count
        ):
            # Nulls of floating-point numbers become NaN.
            self._values = whole.to_numpy(zero_copy_only=False)
        else:
            self._is_tensor = False
            # Objects are created in stored order and then permuted: cheaper than moving their bytes.
            text = pa.types.is_string(whole.type)
            self._values = (
                whole.to_numpy(zero_copy_only=False)
                if text
                else np.fromiter(whole.to_pylist(), object, len(whole))
            )

    def rows(self, start: int, stop: int) -> Any:
        """Return rows in batch order: a list, or a tensor of its own memory, [rows, dimension] or [rows]."""
        import torch

        # Copied batch by batch, so that a batch is still in the processor's cache when it is used.
        chosen = self._values.take(self._order[start:stop], axis=0)
        return torch.from_numpy(chosen) if self._is_tensor else chosen.tolist()
