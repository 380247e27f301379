"""Aliases: names of versions, such as ``production``, that move by promotion alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ALIASES, check_name
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.record_folder import list_records
from mm_resources.storage.records import parse_record
from mm_resources.storage.store import Store

_FOLDER = "registry/aliases"
_MOVE = re.compile(r"^(\d{8})\.json$")
_MOVES = re.compile(rf"^{_FOLDER}/([^/]+)/([^/]+)/\d{{8}}\.json$")


@dataclass(frozen=True)
class Alias:
    """The target of an alias since one of its moves.

    Attributes:
        number: of the move, from 1.
        pins: modality -> number of the pin that readers get, whatever is published of the version later.
        checks: what the promotion gate found.
        reason: why the gate was overridden, or the alias taken back; "" for a plain promotion.
    """

    number: int
    dataset: str
    alias: str
    version: str
    pins: dict[str, int]
    moved_at: str
    checks: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    @property
    def dataset_version(self) -> str:
        return f"{self.dataset}@{self.version}"


class Aliases:
    """The aliases of a store.

    Every move is an object of its own, so that none is lost and of two at once only one lands.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def numbers(self, dataset: str, alias: str) -> list[int]:
        """The numbers of all moves, oldest first."""
        names = self.store.names(self._folder(dataset, alias))
        return [int(match[1]) for name in names if (match := _MOVE.match(name))]

    def history(self, dataset: str, alias: str) -> list[Alias]:
        """All moves, oldest first."""
        found = self.numbers(dataset, alias)
        return [self.get(dataset, alias, number) for number in found]

    def target(self, dataset: str, alias: str) -> Alias | None:
        """The last move; a damaged earlier one does not matter."""
        numbers = self.numbers(dataset, alias)
        return self.get(dataset, alias, numbers[-1]) if numbers else None

    def get(self, dataset: str, alias: str, number: int) -> Alias:
        """One move.

        Raises:
            UserError: when its file is damaged.
        """
        name = self._name(dataset, alias, number)
        return _parse(self.store.read(name), name, f"{dataset}@{alias}")

    def check_all(self, fresh: bool = False) -> Iterator[UserError | OSError]:
        """Yield the error of each move that cannot be read; `fresh` as of `list_records`."""
        listing = list_records(self.store, _FOLDER, fresh)
        names = {name: parts for name in listing.names if (parts := _MOVES.match(name))}
        listing.load(names)
        for name, parts in names.items():
            try:
                _parse(listing.read(name), name, f"{parts[1]}@{parts[2]}")
            except (UserError, OSError) as error:
                yield error

    def move(self, alias: Alias) -> None:
        """Make one move.

        Raises:
            Fenced: when the alias was moved since `alias.number` was chosen.
        """
        name = self._name(alias.dataset, alias.alias, alias.number)
        if not self.store.create(name, json.dumps(asdict(alias), indent=1).encode()):
            raise Fenced(
                f"{alias.dataset}@{alias.alias} was moved by another promotion meanwhile; "
                "check its target, then promote again"
            )

    def resolve(self, dataset_version: str) -> Alias | None:
        """The target of an alias such as ``birds@production``; None where the text is no alias.

        Raises:
            UserError: when nothing was ever promoted to it.
        """
        dataset, _, alias = dataset_version.partition("@")
        if alias.lower() not in ALIASES:
            return None
        found = self.target(check_dataset(dataset), alias.lower())
        if found is None:
            raise UserError(
                f"nothing was promoted to {dataset_version}; "
                f"promote a version: `mm promote {dataset}@VERSION --to {alias.lower()}`"
            )
        return found

    @staticmethod
    def _folder(dataset: str, alias: str) -> str:
        return f"{_FOLDER}/{dataset}/{alias}"

    def _name(self, dataset: str, alias: str, number: int) -> str:
        return f"{self._folder(dataset, alias)}/{number:08d}.json"


def _parse(raw: bytes, name: str, what: str) -> Alias:
    remedy = "restore it from a backup, or remove it: the alias is then what it was before that move"
    return parse_record(raw, name, lambda fields: Alias(**fields), what, remedy)


def check_dataset(name: str) -> str:
    """Return the name, or raise UserError where it cannot name a dataset."""
    try:
        return check_name(name)
    except ValueError as error:
        raise UserError(str(error)) from None
