"""Google Cloud Storage as Lance and fsspec see it; where its emulator is installed, `test_store.py` runs on it as well."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pyarrow as pa
import pytest

from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import open_source
from mm_resources.storage import lance_datasets
from mm_resources.storage.filesystems import fsspec_options, lance_options
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.store import Store
from tests.gcs import BUCKET

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.binary())])


@pytest.mark.parametrize("said", ["http://127.0.0.1:4443", "127.0.0.1:4443"])
def test_both_libraries_ask_the_emulator_that_the_environment_names(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT", raising=False)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", said)
    assert fsspec_options("gs://bucket/store")["endpoint_url"] == "http://127.0.0.1:4443"
    told = lance_options("gs://bucket/store")
    assert told is not None
    assert told["allow_http"] == "true"
    assert json.loads(told["google_service_account_key"])["gcs_base_url"] == "http://127.0.0.1:4443"
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/a/file.json")
    assert lance_options("gs://bucket/store") == {"allow_http": "true"}, (
        "a file that the user names says where its server is"
    )
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    assert lance_options("gs://bucket/store") is None
    assert fsspec_options("gs://bucket/store")["endpoint_url"] is None


def test_lance_tables(gcs: str) -> None:
    uri = f"gs://{BUCKET}/{uuid4().hex}/t.lance"
    # Larger than what Lance sends in one request.
    large = pa.table({"a": [1], "b": [b"x" * (12 << 20)]}, schema=SCHEMA)
    assert lance_datasets.create(uri, SCHEMA, large.to_batches())
    assert not lance_datasets.create(uri, SCHEMA, large.to_batches())
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda i: lance_datasets.append(uri, pa.table({"a": [i], "b": [b""]}, schema=SCHEMA)),
                range(2, 10),
            )
        )
    found = lance_datasets.open_dataset(uri)
    assert found is not None
    assert sorted(found.to_table(columns=["a"])["a"].to_pylist()) == list(range(1, 10))
    assert found.to_table(filter="a = 1")["b"][0].as_py() == b"x" * (12 << 20)
    before = lance_datasets.fence(uri, SCHEMA)
    lance_datasets.overwrite(uri, SCHEMA, large.to_batches(), before, "first")
    with pytest.raises(Fenced):
        lance_datasets.overwrite(uri, SCHEMA, [], before, "second")


def test_an_object_is_known_by_its_generation(gcs: str) -> None:
    folder = f"gs://{BUCKET}/{uuid4().hex}"
    store = Store(folder)
    store.write("a/1.txt", b"one")
    source = open_source(SourceSpec(name="s", modality="text", uri=f"{folder}/**/*.txt"), {})
    (item,) = source.list()
    assert (item.key, item.size, source.fetch(item.uri, item.locator)) == ("a/1.txt", 3, b"one")
    assert source.tag(item.uri, item.locator) == item.tag
    store.write("a/1.txt", b"one")
    assert source.tag(item.uri, item.locator) not in (None, item.tag)
