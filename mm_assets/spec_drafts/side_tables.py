"""Tables that describe media files: side tables of sources, and texts that link to the files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mm_assets.spec_drafts.tables import Rows, text_column
from mm_embed_kernels.spec.model import SAMPLE_FIELDS
from mm_resources.sources.path_ends import PathEnds

# Words of a text, on average, that is a sample of its own beside the file that it describes.
_WORDS = 3


@dataclass(frozen=True)
class SideTable:
    """A table that describes media files.

    Attributes:
        key: its column of files.
        columns: columns that a side table has beside it.
        values: the values of the key column.
        rows: the first rows.
    """

    name: str
    uri: str
    key: str
    columns: list[str]
    values: list[str]
    rows: Rows


class FileNames:
    """Keys of the media files below a folder, by the ways in which tables name them.

    Args:
        keys: of the files, relative to the folder.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = list(keys)
        self._exact = {*self._keys, *(key.rsplit("/", 1)[-1] for key in self._keys)}
        self._ends = PathEnds(self._keys)

    def count(self, values: Iterable[object]) -> int:
        """Return how many values name a file: by key, file name, or a path with the same end."""
        return sum(str(value) in self._exact or bool(self._ends.of(str(value))) for value in values)

    def link_count(self, values: Iterable[object]) -> int:
        """Return how many values name a file as links do: by key or file name."""
        return sum(str(value) in self._exact for value in values)


def file_column(rows: Rows, files: FileNames) -> str | None:
    """Return the column that names media files in at least half of the rows."""
    for column in rows[0] if rows else ():
        if files.count(row.get(column) for row in rows) * 2 >= len(rows):
            return column
    return None


def linked_text(rows: Rows, key: str, files: FileNames) -> str | None:
    """Return the column with texts that are samples of their own, linked to the files of the column `key`."""
    text = text_column([{name: value for name, value in row.items() if name != key} for row in rows])
    if (
        text is None
        or text in SAMPLE_FIELDS
        or files.link_count(row.get(key) for row in rows) * 2 < len(rows)
    ):
        return None
    words = sum(len(str(row.get(text) or "").split()) for row in rows)
    return text if words >= _WORDS * len(rows) else None
