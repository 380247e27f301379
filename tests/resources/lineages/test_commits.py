"""Lance puts a commit that does not conflict on top of another writer's, without a word: each one is found."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mm_resources.lineages import commits
from mm_resources.lineages.commits import Change, Raced
from mm_resources.storage import lance_datasets

SCHEMA = pa.schema([("key", pa.string())])


def batches(*keys: str) -> list[pa.RecordBatch]:
    return [pa.record_batch([pa.array(keys)], schema=SCHEMA)]


def head(uri: str) -> int:
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    return int(dataset.version)


def keys(uri: str, version: int) -> list[str]:
    dataset = lance_datasets.open_dataset(uri, version)
    assert dataset is not None
    return sorted(dataset.to_table()["key"].to_pylist())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A table whose version 1 is the base, and whose head another writer has moved."""
    uri = str(tmp_path / "t.lance")
    commits.commit_whole(uri, SCHEMA, commits.write_files(uri, SCHEMA, batches("a", "b")), "base")
    other = Change(added=commits.write_files(uri, SCHEMA, batches("other")))
    assert commits.commit_change(uri, 1, other, "other") == 2
    return uri


def test_a_stale_update_that_appends_is_found(uri: str) -> None:
    own = Change(added=commits.write_files(uri, SCHEMA, batches("c")))
    with pytest.raises(Raced, match="version 3 is not the one behind 1"):
        commits.update(uri, 1, own, "own")
    assert keys(uri, head(uri)) == ["a", "b", "c", "other"], "Lance has committed it, on top of the other's"
    version = commits.commit_change(uri, 1, own, "own")
    assert keys(uri, version) == ["a", "b", "c"]


def test_a_stale_restore_is_found(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer commits after the head was read."""
    commits.update(uri, 2, Change(added=commits.write_files(uri, SCHEMA, batches("more"))), "other")
    real, found = lance_datasets.commit_transaction, []

    def late(uri: str, transaction: object, races: int = 0) -> int:
        if not found:
            found.append(head(uri))
            commits.update(
                uri, head(uri), Change(added=commits.write_files(uri, SCHEMA, batches("late"))), "late"
            )
        return real(uri, transaction, races)  # type: ignore[arg-type]

    monkeypatch.setattr(lance_datasets, "commit_transaction", late)
    with pytest.raises(Raced, match="version 5 is not the one behind 3"):
        commits.restore(uri, 1, "own")


def test_rows_are_those_of_the_change_whoever_comes_between(uri: str) -> None:
    """The whole burst: what another writer has added is in no version of this one."""
    own = Change(added=commits.write_files(uri, SCHEMA, batches("c")))
    version = commits.commit_change(uri, 1, own, "own")
    assert keys(uri, version) == ["a", "b", "c"]
    assert version == head(uri) == 4, "restored, then updated"


def test_a_whole_write_behind_another_is_repeated(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, passed = lance_datasets.commit, []

    def late(*args: object) -> int:
        if not passed:
            passed.append(head(uri))
            commits.update(
                uri, head(uri), Change(added=commits.write_files(uri, SCHEMA, batches("late"))), "late"
            )
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lance_datasets, "commit", late)
    version = commits.commit_whole(uri, SCHEMA, commits.write_files(uri, SCHEMA, batches("z")), "own")
    assert keys(uri, version) == ["z"]


def test_a_table_that_another_writer_creates_is_written_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, real, passed = str(tmp_path / "new.lance"), lance_datasets.commit, list[str]()
    own, other = (commits.write_files(uri, SCHEMA, batches(key)) for key in ("own", "other"))

    def late(*args: object) -> int:
        if not passed:
            passed.append("other")
            assert real(uri, SCHEMA, other, 0, "other") == 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lance_datasets, "commit", late)
    version = commits.commit_whole(uri, SCHEMA, own, "own")
    assert (version, keys(uri, version), keys(uri, 1)) == (2, ["own"], ["other"])
