"""The fragments of a lineage: its versions share files, and each of them is read once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mm_resources.storage import lance_datasets
from mm_resources.storage.table_files import data_files, fragment_files

if TYPE_CHECKING:
    import lance


def distinct_fragments(
    uri: str, with_deletions: bool = False
) -> Iterator[tuple[lance.LanceDataset, list[lance.LanceFragment]]]:
    """Yield the versions of a table, each with the fragments whose files no earlier one has.

    Args:
        with_deletions: whether a fragment with other deleted rows is another one; without, a reader of all
            files has to read deleted rows, too.
    """
    files = fragment_files if with_deletions else lambda each: data_files([each.metadata])
    latest = lance_datasets.open_dataset(uri)
    seen: set[tuple[str, ...]] = set()
    for each in latest.versions() if latest is not None else ():
        dataset = lance_datasets.open_dataset(uri, int(each["version"]))
        if dataset is None:
            continue  # upkeep has removed it meanwhile
        new = [part for part in dataset.get_fragments() if tuple(files(part)) not in seen]
        seen.update(tuple(files(part)) for part in new)
        if new:
            yield dataset, new
