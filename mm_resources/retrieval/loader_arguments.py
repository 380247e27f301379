"""Arguments of a loader, checked before a table is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.arguments import require_flag, require_number


@dataclass(frozen=True)
class LoaderArguments:
    """The arguments of `TrainingSet.to_torch`, which describes them; ranks are those of the process."""

    batch_size: int | None
    shuffle: bool
    seed: int
    workers: int
    rank: int
    world_size: int
    media: bool
    decode: str | None
    sandbox: bool
    transform: Callable[[dict[str, Any]], Any] | None
    collate: Callable[[list[Any]], Any] | None
    drop_last: bool

    def check(self) -> None:
        """Check the arguments.

        Raises:
            UserError: for one of another type or out of its range.
        """
        check_loader(self.batch_size, self.shuffle, self.seed, self.workers, self.rank, self.world_size)
        require_flag("sandbox", self.sandbox)
        require_flag("drop_last", self.drop_last)
        for name in ("transform", "collate"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise UserError(f"{name} is {given!r}; give a function")


def check_loader(
    batch_size: int | None, shuffle: bool, seed: int, workers: int, rank: int, world_size: int
) -> None:
    """Check the arguments of a loader that do not depend on its rows.

    Raises:
        UserError: for one of another type or out of its range.
    """
    if batch_size is not None:
        require_number("batch_size", batch_size, 1)
    require_flag("shuffle", shuffle)
    require_number("seed", seed, 0)
    require_number("workers", workers, 0)
    require_number("rank", rank, 0)
    require_number("world_size", world_size, 1)
    if rank >= world_size:
        raise UserError(f"rank is {rank}, but ranks of world_size {world_size} end at {world_size - 1}")
