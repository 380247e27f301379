"""Versions of Lance datasets: their size, the tags that keep them, and removal of superseded ones."""

from __future__ import annotations

from datetime import timedelta

from mm_resources.storage.file_hashes import remove_strays
from mm_resources.storage.lance_datasets import open_dataset
from mm_resources.storage.lance_errors import is_missing


def data_bytes(uri: str, version: int | None = None) -> int:
    """Return the bytes of the data files of a version, by default the latest; 0 without a dataset."""
    dataset = open_dataset(uri, version)
    fragments = [] if dataset is None else dataset.get_fragments()
    return sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files())


def tag(uri: str, version: int, name: str) -> None:
    """Tag a version, which keeps it from removal; move the tag if it names another version.

    Raises:
        FileNotFoundError: when there is no dataset, or no such version.
    """
    dataset = open_dataset(uri, version)
    if dataset is None:
        raise FileNotFoundError(f"{uri} has no version {version}")
    try:
        # Before the tags are listed, which reads each of them.
        dataset.tags.create(name, version)
    except ValueError:
        tags = dataset.tags.list()
        if name not in tags:
            raise
        if tags[name]["version"] != version:
            dataset.tags.update(name, version)


def untag(uri: str, name: str) -> None:
    """Remove a tag, if there is one."""
    dataset = open_dataset(uri)
    if dataset is None or name not in dataset.tags.list():
        return
    try:
        dataset.tags.delete(name)
    except ValueError as error:
        # Another process may have removed it meanwhile.
        if not is_missing(error):
            raise


def clean(uri: str, older_than: timedelta) -> tuple[int, int]:
    """Remove older, untagged versions with the files that only they reference.

    Files of unfinished commits stay for seven days, whatever `older_than` is.

    Returns:
        (versions, bytes) removed.
    """
    dataset = open_dataset(uri)
    if dataset is None:
        return 0, 0
    removed = dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
    remove_strays(uri)
    return int(removed.old_versions), int(removed.bytes_removed)
