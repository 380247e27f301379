"""The loader of a training set: batches, shuffled, shared by ranks, resumable on other ones."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch  # noqa: TID253 - the base class is torch's; `TrainingSet.to_torch` imports this module when it is called
from torch.utils.data import IterableDataset, get_worker_info  # noqa: TID253

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.arguments import require_number
from mm_resources.retrieval.batches import Batch, BatchMaker, Column
from mm_resources.retrieval.epoch_order import EpochOrder, Interval, Shares
from mm_resources.retrieval.loader_arguments import check_loader

Take = Callable[[np.ndarray[Any, Any]], pa.Table]
# Bits of a shared number that count passes; those above identify the pass.
_COUNT_BITS = 31


@dataclass(frozen=True)
class Place:
    """The beginning of a pass: an epoch, and what is left of it; None for all."""

    epoch: int
    left: tuple[Interval, ...] | None = None


class Loader(IterableDataset):  # type: ignore[misc]
    """Batches as dicts: vectors and numbers as tensors, all other columns as lists; or single rows.

    A torch `IterableDataset`: iterate it, or give it to ``DataLoader(loader, batch_size=None, num_workers=4,
    multiprocessing_context="forkserver")``, to Lightning's ``Trainer.fit``, or (of single rows) to Hugging
    Face's ``Trainer``.
    Worker processes share the batches in turn, so that their number changes nothing.

    Null is NaN in columns of floating-point numbers. Integers have no such value, and as floats they would
    lose digits beyond 2**53: an integer column with nulls is a list of ints and None, in all batches of a
    training set alike, and all others are tensors of the column's own type.

    Seed and epoch alone determine the order, for any number of workers and ranks. Each pass is one epoch; an
    interrupted pass resumes from its `state_dict`, in this process or others, under any number of ranks and
    workers and any batch size: each row comes once.

    Args:
        take: function that reads rows of the set by their numbers, in the given order; called by several
            threads at once.
        order: the order of the rows.
        batch_size: rows of a batch; the last batch of an epoch may have fewer or, on some of several ranks,
            one more. None for single rows.
        workers: threads that read ahead, one window each; 0 reads a window when it is needed. Reading,
            sorting and copying run without Python's lock, so that processes gain nothing unless media are
            decoded.
        rank, world_size: this process's share of each epoch among equal ones.
        drop_last: whether rows that do not fill a batch of every rank are left out.
        maker: makes batches of columns: media, transforms.
        name: of the set, such as its digest; a state belongs to one set.

    Raises:
        UserError: as `check_loader`, and where the rows give none to some rank.
    """

    def __init__(  # noqa: PLR0913 - the public API
        self,
        take: Take,
        order: EpochOrder,
        batch_size: int | None,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        maker: BatchMaker | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        check_loader(batch_size, order.shuffle, order.seed, workers, rank, world_size)
        self._take, self._order, self._workers, self._name = take, order, workers, name
        self._batch_size, self._rank, self._world_size = batch_size or 1, rank, world_size
        self._drop_last, self._maker, self._single = drop_last, maker or BatchMaker(), batch_size is None
        self._place, self._done = Place(0), 0
        # Worker processes have copies of this object. What they have to know of each other lies in shared
        # memory: the pass they are in (a number that all of one pass know) with the count of passes, the
        # epoch of the first, and how often a place was set.
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()
        self._generation = self._passes = 0
        self._shares(self._place).check()

    def __len__(self) -> int:
        """Number of batches of a whole epoch on this rank; of rows where it gives single rows."""
        return self._shares(Place(0)).batches

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Return the epoch, what of its order is left, and a description of the order.

        Args:
            batches: batches that this rank has taken since the pass began; by default those that this
                process has made. Worker processes of a `DataLoader` make them elsewhere, and ahead: then it
                has to be given.

        Raises:
            UserError: where it has to be given.
        """
        place, done = self._place, self._done
        if count := int(self._shared[0]) & (1 << _COUNT_BITS) - 1:
            if batches is None:
                raise UserError(
                    "worker processes read this loader; give the number of batches that were taken in this "
                    "pass: state_dict(batches=N)"
                )
            place = self._place_of(count)
        done = done if batches is None else require_number("batches", batches, 0)
        left = self._shares(place).after(done)
        if not left:
            place, done = Place(place.epoch + 1), 0
        whole = place.left is None and not done
        return {
            "epoch": place.epoch,
            "left": None if whole else [list(each) for each in left],
            "order": self.description,
        }

    @property
    def description(self) -> str:
        """Description of the order and the set: a state of another order is refused."""
        return f"{self._order.description}{f' of set {self._name}' if self._name else ''}"

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where another loader of the same order stopped, on any number of ranks.

        Raises:
            UserError: for a state of another order (another seed or set, or an older version of the
                package), and where fewer rows are left than there are ranks.
        """
        if not isinstance(state, dict):
            raise UserError(f"the loader's state is {state!r}; give what state_dict() returned")
        own, saved = self.description, state.get("order")
        if saved != own or "left" not in state:
            raise UserError(
                f"the loader's state belongs to another order of rows: "
                f"{saved if saved and 'left' in state else 'one of an older version'}, "
                f"here it is {own}; make the loader with the same arguments, or start the epoch again"
            )
        left = state["left"] and tuple((int(start), int(stop)) for start, stop in state["left"])
        place = Place(int(state["epoch"]), left)
        shares = self._shares(place)
        if 0 < shares.rows < self._world_size:
            raise UserError(
                f"{shares.rows} rows of epoch {place.epoch} are left, which {self._world_size} ranks cannot "
                f"share; resume on at most {shares.rows}, or go on with set_epoch({place.epoch + 1})"
            )
        self._begin(place)

    def set_epoch(self, epoch: int) -> None:
        """Go on with an epoch, from its beginning; of the present one, where it is."""
        require_number("epoch", epoch, 0)
        count = int(self._shared[0]) & (1 << _COUNT_BITS) - 1
        if epoch != self._place.epoch + count:
            self._begin(Place(epoch))

    def _begin(self, place: Place) -> None:
        self._place, self._done = place, 0
        self._shared[0] = int(self._shared[0]) >> _COUNT_BITS << _COUNT_BITS
        self._shared[1] = place.epoch
        self._shared[2] += 1
        self._generation = int(self._shared[2])

    def _place_of(self, count: int) -> Place:
        """Return where the pass began that is the `count`-th since a place was set."""
        return self._place if count == 1 else Place(int(self._shared[1]) + count - 1)

    def _worker_place(self, info: Any) -> Place:
        """Return where a pass begins in a worker process; all of one pass agree.

        They have a number in common that no other pass has: the seed that `DataLoader` draws, and how often
        they were asked. The first to come counts the pass; number and count are one value, written at once.
        """
        self._passes += 1
        if self._generation != int(self._shared[2]):
            if self._passes > 1 and self._place.left:
                raise UserError("a state was loaded beside persistent workers; make the DataLoader after it")
            self._place, self._generation = Place(int(self._shared[1])), int(self._shared[2])
        own = (hash((info.seed - info.id, self._passes)) & (1 << 31) - 1) + 1
        found = int(self._shared[0])
        if found >> _COUNT_BITS != own:
            found = own << _COUNT_BITS | (found & (1 << _COUNT_BITS) - 1) + 1
            self._shared[0] = found
        return self._place_of(found & (1 << _COUNT_BITS) - 1)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is None:
            return self._pass(self._place)
        # Not in a generator, which would begin with the first batch.
        place = self._worker_place(info)
        return self._batches(place, range(info.id, self._shares(place).batches, info.num_workers))

    def _pass(self, place: Place) -> Iterator[Any]:
        end = self._shares(place).batches
        chosen = range(self._done, end)
        for number, batch in zip(chosen, self._batches(place, chosen), strict=True):
            if number + 1 == end:
                # Before the last batch is given: who knows the number of batches, as Lightning does, asks for
                # no more, and the next pass would be an empty one.
                self._place, self._done = Place(place.epoch + 1), 0
            else:
                self._done = number + 1
            yield batch
        if not chosen:
            self._place, self._done = Place(place.epoch + 1), 0

    def _shares(self, place: Place) -> Shares:
        left = [(0, self._order.rows)] if place.left is None else list(place.left)
        return Shares(
            [each for each in left if each[0] < each[1]], self._batch_size, self._world_size, self._drop_last
        )

    def _batches(self, place: Place, chosen: range) -> Iterator[Any]:
        """Make batches of a pass, by their numbers on this rank."""
        shares, numbers = self._shares(place), self._order.epoch(place.epoch)
        each = max(1, self._order.window_rows // self._batch_size)
        groups = iter(chosen[start : start + each] for start in range(0, len(chosen), each))

        def read(group: range) -> list[Batch]:
            bounds = [shares.batch(self._rank, number) for number in group]
            return self._read([numbers(shares.places(*each)) for each in bounds])

        for batches in self._read_ahead(read, groups):
            for batch in batches:
                made = self._maker.finish(batch)
                if self._single:
                    yield self._maker.row_of(made)
                else:
                    yield made

    def _read(self, batches: list[np.ndarray[Any, Any]]) -> list[Batch]:
        """Read batches at once: in stored order, then put into their own."""
        numbers = np.concatenate(batches)
        stored = np.argsort(numbers, kind="stable")
        positions = np.empty_like(stored)
        positions[stored] = np.arange(len(stored))
        table = self._maker.prepare(self._take(numbers[stored]))
        columns = {
            name: Column(table[name], positions, name in self._maker.lists) for name in table.column_names
        }
        ends = np.cumsum([len(each) for each in batches]).tolist()
        return [
            {name: column.rows(end - len(each), end) for name, column in columns.items()}
            for end, each in zip(ends, batches, strict=True)
        ]

    def _read_ahead(
        self, read: Callable[[range], list[Batch]], groups: Iterator[range]
    ) -> Iterator[list[Batch]]:
        if self._workers == 0:
            yield from map(read, groups)
            return
        pool = ThreadPoolExecutor(self._workers, "loader")
        try:
            pending = deque(pool.submit(read, group) for group in itertools.islice(groups, self._workers))
            while pending:
                batches = pending.popleft().result()
                pending.extend(pool.submit(read, group) for group in itertools.islice(groups, 1))
                yield batches
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
