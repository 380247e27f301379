"""The loader over a training set: shuffled, sharded, resumable, with nothing but row numbers of the whole in memory.

Imports torch, so that nothing but `TrainingSet.to_torch` imports it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch  # noqa: TID253

from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.errors import UserError
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.retrieval.training_rows import is_media

# Rows are shuffled as runs of neighbours, then one by one among the runs of a window. Reading such runs costs what a scan costs,
# and the rows of a batch come from up to 32 places of the set, drawn anew each epoch; a set of up to a window is shuffled wholly.
# A larger window would be memory that the system hands out anew each time.
RUN_ROWS = 256
WINDOW_ROWS = 8_192
# Media of a batch that are read side by side.
_READERS = 8
Take = Callable[[np.ndarray[Any, Any]], pa.Table]
Batch = dict[str, Any]


class Loader:
    """Batches as dicts: vectors and numbers as tensors (null as NaN), everything else as lists.

    Seed and epoch alone decide the order, whatever the number of workers. Each pass over the loader is one epoch; a pass that
    was broken off goes on from its `state_dict` where it ended, in this process or another.

    Args:
        take: rows of the set by their numbers, in the order given; called by several threads at once.
        rows: rows of the set.
        batch_size: rows of a batch; the last one of an epoch may have fewer.
        workers: threads that read ahead, a window each; 0 reads when a window is asked for. Reading, sorting and copying happen
            outside of Python's lock, so that processes, which take seconds to start, would gain nothing.
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

    def state_dict(self) -> dict[str, Any]:
        """The epoch, how many of its batches were handed out, and what decides their order."""
        return {"epoch": self._epoch, "batches": self._done, "order": self._windows.described}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader of the same order ended.

        Raises:
            UserError: for a state of another order (another seed, batch size or set, or an older version of this package).
        """
        order, found = self._windows.described, state.get("order")
        if found != order:
            raise UserError(
                f"the loader's state belongs to another order of rows: {found or 'one of an older version'}, here it is {order}; "
                "make the loader as it was made then, or begin the epoch anew"
            )
        self._epoch, self._done = state["epoch"], state["batches"]

    def __iter__(self) -> Iterator[Batch]:
        first, skipped = divmod(self._done, self._windows.batches_each)
        for window in self._read(self._epoch, first):
            for batch in window[skipped:]:
                self._done += 1
                yield self._with_media(batch)
            skipped = 0
        self._epoch, self._done = self._epoch + 1, 0

    def _with_media(self, batch: Batch) -> Batch:
        if self._blobs is None:
            return batch
        with ThreadPoolExecutor(_READERS) as pool:
            read = [
                (name, pool.map(self._read_blob, places)) for name, places in batch.items() if is_media(name)
            ]
            return {**batch, **{name: list(found) for name, found in read}}

    def _read_blob(self, place: dict[str, Any]) -> bytes:
        assert self._blobs is not None
        return self._blobs.read(**place)

    def _read(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """The windows of an epoch from `first` on, in order."""
        order = self._windows.order(epoch)
        places = iter(range(first, len(self._windows)))
        if self._workers == 0:
            yield from (self._windows.read(order, epoch, place) for place in places)
            return
        pool = ThreadPoolExecutor(self._workers, "loader")
        try:
            ahead = deque(
                pool.submit(self._windows.read, order, epoch, place)
                for place in itertools.islice(places, self._workers)
            )
            while ahead:
                window = ahead.popleft().result()
                ahead.extend(
                    pool.submit(self._windows.read, order, epoch, place)
                    for place in itertools.islice(places, 1)
                )
                yield window
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Windows:
    """An epoch cut into windows of whole batches, each read at once."""

    def __init__(
        self, take: Take, rows: int, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int
    ) -> None:
        self.take, self.batch_size, self.shuffle, self.seed = take, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.run_rows, self.batches_each = RUN_ROWS, max(1, WINDOW_ROWS // batch_size)
        # Every rank has as many batches, so that none waits for another for ever.
        self.rows = rows if world_size == 1 else rows // (batch_size * world_size) * batch_size * world_size
        self.total = rows
        self.batches = -(-self.rows // (batch_size * world_size))

    def __len__(self) -> int:
        return -(-self.batches // self.batches_each)

    @property
    def described(self) -> str:
        """All that an order depends on but the epoch."""
        runs = f"in runs of {self.run_rows} and windows of {self.batches_each} batches"
        shuffled = f"shuffled with seed {self.seed} {runs}" if self.shuffle else "as stored"
        return f"{self.total} rows {shuffled}, batches of {self.batch_size}, world size {self.world_size}"

    def read(self, order: np.ndarray[Any, Any], epoch: int, window: int) -> list[Batch]:
        """This rank's batches of a window; its rows are read in the order in which they lie."""
        numbers = self.numbers(order, epoch, window)
        places = np.argsort(numbers)
        back = np.empty_like(places)
        back[places] = np.arange(len(places))
        table = self.take(numbers[places])
        columns = {name: _Column(table[name], back) for name in table.column_names}
        starts = range(0, len(back), self.batch_size)
        return [
            {name: column.rows(start, start + self.batch_size) for name, column in columns.items()}
            for start in starts
        ]

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


class _Column:
    """A column of a window in an order of its own."""

    def __init__(self, column: pa.ChunkedArray, order: np.ndarray[Any, Any]) -> None:
        self._order = order
        # What has one chunk is not copied.
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        self._is_tensor = True
        if pa.types.is_fixed_size_list(whole.type):
            self._values = vectors_of(whole)
        elif pa.types.is_integer(whole.type) or pa.types.is_floating(whole.type):
            # What is null becomes NaN.
            self._values = whole.to_numpy(zero_copy_only=False)
        else:
            self._is_tensor = False
            # Objects are made in the order in which they are read, and then handed around: cheaper than moving their bytes.
            text = pa.types.is_string(whole.type)
            self._values = (
                whole.to_numpy(zero_copy_only=False)
                if text
                else np.fromiter(whole.to_pylist(), object, len(whole))
            )

    def rows(self, start: int, stop: int) -> Any:
        """A tensor of its own memory ([rows, dimension] float32 or [rows]), or a list."""
        # Batch by batch, so that what is written is still in the processor's cache when it is used.
        chosen = self._values.take(self._order[start:stop], axis=0)
        return torch.from_numpy(chosen) if self._is_tensor else chosen.tolist()
