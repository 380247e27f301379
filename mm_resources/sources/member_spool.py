"""The members of one archive, spooled so that the parts of a sample meet wherever they stand in it."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Container, Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_resources.objects.byte_order_marks import decode_text
from mm_resources.sources.archive_members import Member, description_error
from mm_resources.storage.hash_set import BYTES, HashSet, text_digest

# Bytes that are held in memory; further members lie on disk.
_MEMORY_BYTES = 16 << 20
# Neighbours of one stem that are held together.
_MOST_PARTS = 1_000
_BATCH_ROWS = 4_096
_PLACES = pa.schema([("place", pa.int64()), ("stem", pa.binary()), ("describes", pa.bool_())])
# Stem by stem in the order of their first members: first the describing parts, then all members.
_ORDER = """
WITH members AS MATERIALIZED (SELECT *, min(place) OVER (PARTITION BY stem) AS stem_place FROM places)
SELECT stem_place, place, described FROM (
  SELECT stem_place, place, true AS described FROM members WHERE describes
  UNION ALL SELECT stem_place, place, false FROM members
) ORDER BY stem_place, described DESC, place
"""


class Description:
    """The fields that the describing parts of one stem give.

    Attributes:
        fields: by name; the first part that gives a field counts.
        problem: the error of a part that cannot be read.
    """

    def __init__(self, wanted: Container[str]) -> None:
        self.fields: dict[str, Any] = {}
        self.problem: SampleError | None = None
        self._wanted = wanted

    def add(self, member: Member) -> None:
        """Add the fields of a part; other fields than the wanted ones are dropped."""
        if isinstance(member.content, SampleError):
            self.problem = member.content
        elif member.content is not None:
            try:
                text = decode_text(member.content)
                found = json.loads(text) if member.part == "json" else {member.part: text.strip()}
            except (ValueError, RecursionError) as error:
                self.problem = description_error(member, error)
                return
            if isinstance(found, dict):
                for name, value in found.items():
                    if name in self._wanted:
                        self.fields.setdefault(name, value)


class MemberSpool:
    """Members in a temporary file: written in the order of the archive, read stem by stem.

    In memory are 16 bytes per stem, the parts of one stem, and what DuckDB's limit allows.

    Args:
        wanted: names of fields that descriptions keep.
    """

    def __init__(self, wanted: Container[str]) -> None:
        self._wanted = wanted
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, prefix="mm-members-")  # noqa: SIM115 - the object's own
        self._stems = HashSet()
        self._stem, self._neighbours = "", 0
        # Whether a stem's parts do not all follow each other, or are too many to hold.
        self._is_scattered = False

    def append(self, member: Member) -> None:
        if self._neighbours and member.stem == self._stem:
            self._neighbours += 1
        else:
            self._stem, self._neighbours = member.stem, 1
            self._is_scattered = not self._stems.add(text_digest(member.stem)) or self._is_scattered
        self._is_scattered = self._is_scattered or self._neighbours > _MOST_PARTS
        pickle.dump(member, self._file)

    def __iter__(self) -> Iterator[tuple[Member, Description]]:
        """Yield all members and the descriptions of their stems; none may be added any more."""
        return self._join_scattered() if self._is_scattered else self._join_neighbours()

    def _join_neighbours(self) -> Iterator[tuple[Member, Description]]:
        for _, parts in groupby((member for _, member in self._members()), lambda member: member.stem):
            description, members = Description(self._wanted), []
            for member in parts:
                description.add(member)
                member.content = None
                members.append(member)
            yield from ((member, description) for member in members)

    def _join_scattered(self) -> Iterator[tuple[Member, Description]]:
        places = pa.RecordBatchReader.from_batches(_PLACES, self._places())
        latest, description = -1, Description(self._wanted)
        # The file is read at `place` when the order is known, which is when all of `places` has been read.
        with sql.query(_ORDER, places=places) as order:
            for batch in order:
                for stem_place, place, described in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                    if stem_place != latest:
                        latest, description = stem_place, Description(self._wanted)
                    self._file.seek(place)
                    member: Member = pickle.load(self._file)
                    if described:
                        description.add(member)
                    else:
                        yield member, description

    def _members(self) -> Iterator[tuple[int, Member]]:
        """Yield all members in the order of the archive, with their places in the file."""
        end = self._file.seek(0, 2)
        self._file.seek(0)
        while (place := self._file.tell()) < end:
            yield place, pickle.load(self._file)

    def _places(self) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[int, bytes, bool]] = []
        for place, member in self._members():
            rows.append((place, text_digest(member.stem)[:BYTES], member.content is not None))
            if len(rows) >= _BATCH_ROWS:
                yield _batch(rows)
                rows = []
        yield _batch(rows)


def _batch(rows: list[tuple[int, bytes, bool]]) -> pa.RecordBatch:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    return pa.record_batch(columns, schema=_PLACES)
