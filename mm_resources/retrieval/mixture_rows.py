"""The rows of a mixture: several training sets, of which each epoch draws rows by weight and by label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, digest
from mm_resources.catalog import Catalog
from mm_resources.retrieval.manifest_rows import ManifestRows
from mm_resources.retrieval.training_rows import RowReader

# Rows of a batch that is streamed.
_BATCH_ROWS = 8_192


class MixtureRows:
    """The rows of a mixture's manifest, with the methods of `ManifestRows`.

    An epoch has ``epoch_rows`` rows. Each part has its share by weight; inside a part the values of the
    column ``balance`` share by ``count ** (1 / temperature)`` (Conneau et al. 2020, section 3.1), all alike
    without a temperature. A row is drawn again only after all others of its kind. Streams and exports have
    the rows of epoch 0.
    """

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog, self._manifest = catalog, manifest
        self.parts = [ManifestRows(catalog, part) for part in manifest["parts"]]
        self.tables = [table for part in self.parts for table in part.tables]
        self.is_joined = self.parts[0].is_joined

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch."""
        return int(self._manifest["epoch_rows"])

    def measure(self) -> tuple[int, str]:
        """Compute row count and digest: of what each part has, and how it is drawn."""
        measured = [part.measure() for part in self.parts]
        drawn = {
            name: self._manifest[name] for name in ("weights", "balance", "temperature", "epoch_rows", "seed")
        }
        return self.epoch_rows, digest("mixture", canonical_json({"parts": measured, **drawn}))[:32]

    def names(self) -> list[str]:
        """Return the columns of the set, in order."""
        names: list[str] = self.schema().names
        return names

    def schema(self) -> pa.Schema:
        """Return the columns of the parts.

        Raises:
            UserError: where they differ.
        """
        first = self.parts[0].schema()
        for part in self.parts[1:]:
            other = part.schema()
            wrong = [item.name for item in first if other.field(item.name).type != item.type]
            if wrong:
                one, two = first.field(wrong[0]).type, other.field(wrong[0]).type
                raise UserError(
                    f"column {wrong[0]} is {one} in {self.parts[0].tables[0]['table']}, and {two} in "
                    f"{part.tables[0]['table']}; mix versions of one embedder, or leave the column out"
                )
        return first

    def splits(self, filtered: bool = True) -> list[str]:
        """Return the splits of the rows of all parts, sorted."""
        return sorted({split for part in self.parts for split in part.splits(filtered)})

    def integers_with_nulls(self) -> frozenset[str]:
        """Return the integer columns that are null in a row of some part."""
        return frozenset[str]().union(*(part.integers_with_nulls() for part in self.parts))

    def media_kinds(self) -> dict[str, str]:
        """Return the columns of media that a reader gives, with the modality of each."""
        return self.parts[0].media_kinds()

    def stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        """Stream the rows of epoch 0, with or without their vectors."""
        reader, names = self.reader(), self.names()
        if not with_vectors:
            names = [name for name in names if not name.endswith("vector")]
        for start in range(0, len(reader), _BATCH_ROWS):
            table = reader(np.arange(start, min(start + _BATCH_ROWS, len(reader))))
            yield from table.select(names).combine_chunks().to_batches()

    def reader(self, media: bool = False) -> DrawnReader:
        """Return a reader of the rows of epoch 0 by number."""
        return DrawnReader(self.all_rows(media), self.draw(0))

    def part_readers(self, media: bool = False) -> list[DrawnReader]:
        """Return a reader of the rows of epoch 0 of each part that has some."""
        rows, drawn = self.all_rows(media), self.draw(0)
        ends = np.searchsorted(drawn, rows.ends)
        parts = [drawn[start:end] for start, end in itertools.pairwise(ends)]
        return [DrawnReader(rows, part) for part in parts if len(part)]

    def all_rows(self, media: bool = False) -> PartsReader:
        """Return a reader of all rows of the parts by number; those of the first part come first."""
        return PartsReader([part.reader(media) for part in self.parts])

    def draw(self, epoch: int) -> np.ndarray[Any, Any]:
        """Return the rows of an epoch by their numbers in `all_rows`, ascending, int64 [epoch_rows]."""
        seed = self._manifest["seed"]
        drawn = []
        for place, (rows, count) in enumerate(self._strata):
            whole, rest = divmod(count, len(rows)) if count else (0, 0)
            some = np.random.default_rng((seed, epoch, place)).choice(rows, rest, replace=False)
            drawn += [np.tile(rows, whole), some]
        return np.sort(np.concatenate([*drawn, np.empty(0, np.int64)]).astype(np.int64))

    @cached_property
    def _strata(self) -> list[tuple[np.ndarray[Any, Any], int]]:
        """The rows of each kind, by number, and how many of them an epoch has."""
        weights = np.asarray(self._manifest["weights"], np.float64)
        shares = apportion(self.epoch_rows, weights)
        found, start = [], 0
        for part, share in zip(self.parts, shares, strict=True):
            reader = part.reader()
            numbers = np.arange(len(reader), dtype=np.int64)
            if share and not len(numbers):
                raise UserError(
                    f"{part.tables[0]['table']} has no row to draw from; leave it out of the mixture"
                )
            groups = self._groups(reader, numbers) if self._manifest["balance"] and share else [numbers]
            counts = np.asarray([len(group) for group in groups], np.float64)
            temperature = self._manifest["temperature"]
            kinds = np.ones(len(groups)) if temperature is None else counts ** (1 / temperature)
            found += [
                (group + start, count)
                for group, count in zip(groups, apportion(int(share), kinds), strict=True)
            ]
            start += len(numbers)
        return found

    def _groups(self, reader: RowReader, numbers: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return the rows of each value of the column that is balanced."""
        column = self._manifest["balance"]
        table = reader.select([column])(numbers)
        values = table[
            next(name for name in table.column_names if name.split("__")[-1] == column or name == column)
        ]
        if values.null_count:
            raise UserError(
                f"{values.null_count} rows have no {column}, by which they would be balanced; "
                f'add where="{column} IS NOT NULL"'
            )
        codes = values.combine_chunks().dictionary_encode()
        order = np.argsort(np.asarray(codes.dictionary.to_pylist(), object), kind="stable")
        indices = codes.indices.to_numpy()
        return [np.flatnonzero(indices == code) for code in order]


def apportion(total: int, weights: np.ndarray[Any, Any]) -> list[int]:
    """Return `total` shared by weights, in whole numbers: the largest remainders get one more."""
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    # Stable, so that equal remainders are served in order.
    for place in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[place] += 1
    return [int(count) for count in counts]


class PartsReader:
    """Reads rows of several readers by their numbers, with repetitions and in any order. Picklable.

    Attributes:
        ends: number of the first row of each reader, and of all rows, int64 [readers + 1].
    """

    def __init__(self, readers: list[RowReader]) -> None:
        self.readers = readers
        self.ends = np.cumsum([0, *map(len, readers)])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def catalog(self) -> Catalog:
        return self.readers[0].catalog

    def select(self, columns: Sequence[str]) -> PartsReader:
        return PartsReader([reader.select(columns) for reader in self.readers])

    def extend(self, columns: Sequence[str]) -> PartsReader:
        return PartsReader([reader.extend(columns) for reader in self.readers])

    def __call__(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        """Read rows, in the order of `numbers`; raises as `RowReader`."""
        unique, inverse = np.unique(numbers, return_inverse=True)
        read = []
        for reader, start, end in zip(self.readers, self.ends, self.ends[1:], strict=False):
            own = unique[(unique >= start) & (unique < end)]
            if len(own):
                read.append(reader(own - start))
        if not read:
            return self.readers[0](np.empty(0, np.int64))
        return pa.concat_tables([table.select(read[0].column_names) for table in read]).take(inverse)


class DrawnReader:
    """Reads the rows of one draw of a mixture by their places in it, as `RowReader` does. Picklable."""

    def __init__(self, rows: PartsReader, drawn: np.ndarray[Any, Any]) -> None:
        self.rows, self.drawn = rows, drawn

    def __len__(self) -> int:
        return len(self.drawn)

    @property
    def catalog(self) -> Catalog:
        return self.rows.catalog

    def select(self, columns: Sequence[str]) -> DrawnReader:
        return DrawnReader(self.rows.select(columns), self.drawn)

    def extend(self, columns: Sequence[str]) -> DrawnReader:
        return DrawnReader(self.rows.extend(columns), self.drawn)

    def __call__(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        return self.rows(self.drawn[numbers])
