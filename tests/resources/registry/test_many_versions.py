"""Reading many versions takes few requests, whatever their number, and believes no stale or damaged copy."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.damaged_files import describe_damage
from mm_resources.registry.registrations import Registration, record_name
from mm_resources.registry.registry import Registry
from mm_resources.storage import record_folder
from mm_resources.storage.layout import record_layout
from mm_resources.storage.store import Store
from tests.request_counts import count_requests
from tests.resources.registry.test_registry import pin
from tests.resources.specs import spec_of
from tests.s3 import BUCKET

INDEXES = [f"registry/indexes/{part}.json.gz" for part in ("datasets", "pins")]


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    if request.param == "folder":
        return lambda: str(tmp_path / uuid4().hex)
    request.getfixturevalue("s3")
    return lambda: f"s3://{BUCKET}/{uuid4().hex}"


def fill(store: Store, versions: int) -> None:
    """Register versions of five to a dataset, each with a published cell, as `register` and `publish` do."""
    registry = Registry(store)
    record_layout(store)
    for number in range(versions):
        dataset, version = f"d{number // 5}", f"v{number % 5}"
        spec = spec_of({"uri": f"/data/{number}"}, name=dataset, version=version)
        at = f"2026-01-01T00:00:{number % 5:02d}+00:00"
        store.write(record_name(dataset, version), Registration(spec, at).dump())
        cell = Cell(dataset, version, "text")
        registry.pins.publish(cell, replace(pin(1), dataset=dataset, version=version))


def begin_process() -> None:
    """Forget what a process has in memory."""
    record_folder._folder.cache_clear()


USES: dict[str, Callable[[Registry], int]] = {
    "datasets": lambda registry: len(registry.datasets()),
    "newest_versions": lambda registry: 5 * len(registry.newest_versions()),
    "all_cells": lambda registry: len(list(registry.all_cells())),
    "latest_pins": lambda registry: len(list(registry.latest_pins(modalities=["text"]))),
    "published, for mm datasets": lambda registry: len(list(registry.published())),
    "describe_damage, for gc": lambda registry: (
        len(registry.datasets()) + len(describe_damage(registry, False))
    ),
    "published_pin": lambda registry: (
        0 * registry.published_pin("d3@v1", "text").number + len(registry.datasets())
    ),
    "proposed_parent": lambda registry: (
        len(registry.datasets())
        if registry.proposed_parent(spec_of({"uri": "/x"}, name="d3", version="v9")) == "v4"
        else 0
    ),
}


def test_requests_do_not_grow_with_the_versions(root: Callable[[], str]) -> None:
    """A process that begins with an index takes the same number at 50 and at 200 versions, at most sixteen.

    Most are taken by the search for damage, which looks at the folders of refs and receipts, too.
    """
    counts: dict[int, dict[str, int]] = {}
    for versions in (50, 200):
        store = Store(root())
        fill(store, versions)
        registry = Registry(store)
        begin_process()
        with count_requests(store) as first:
            assert len(list(registry.latest_pins())) == versions
        assert 2 * versions <= sum(first.values()) <= 2 * versions + 10, "each record once, and the indexes"
        assert all(store.entry(name) for name in INDEXES)
        counts[versions] = {}
        for name, use in USES.items():
            begin_process()
            with count_requests(store) as counted:
                assert use(registry) == versions, name
            counts[versions][name] = sum(counted.values())
            with count_requests(store) as again:
                assert use(registry) == versions, name
            assert sum(again.values()) <= sum(counted.values()), "what is known is not read again"
    assert counts[50] == counts[200]
    assert max(counts[200].values()) <= 16, counts[200]


def test_a_change_costs_one_read(root: Callable[[], str]) -> None:
    store = Store(root())
    fill(store, 50)
    registry = Registry(store)
    assert len(registry.newest_versions()) == 10
    with count_requests(store) as known:
        registry.newest_versions()
    changed = spec_of({"uri": "/data/9"}, name="d1", version="v4", watch={"sources": "propose"})
    store.write(record_name("d1", "v4"), Registration(changed, "2026-01-01T00:00:04+00:00").dump())
    with count_requests(store) as counted:
        newest = {each.spec.name: each.spec.watch.sources for each in registry.newest_versions()}
    assert newest["d1"] == "propose"
    assert sum(counted.values()) == sum(known.values()) + 1
    begin_process()
    newest = {each.spec.name: each.spec.watch.sources for each in registry.newest_versions()}
    assert newest["d1"] == "propose", "the index has the older record"
    registry.pins.replace(Cell("d1", "v4", "text"), replace(pin(1, "r2"), dataset="d1", version="v4"))
    begin_process()
    assert {each.run_id for each in registry.latest_pins() if each.dataset_version == "d1@v4"} == {"r2"}


@pytest.mark.parametrize("damage", [b"", b"{", b"\x1f\x8b cut", None], ids=["empty", "text", "cut", "half"])
def test_a_damaged_index_is_made_again(root: Callable[[], str], damage: bytes | None) -> None:
    store = Store(root())
    fill(store, 50)
    registry = Registry(store)
    expected = list(registry.latest_pins())
    for name in INDEXES:
        whole = store.read(name)
        store.write(name, whole[: len(whole) // 2] if damage is None else damage)
    begin_process()
    assert list(registry.latest_pins()) == expected
    begin_process()
    with count_requests(store) as counted:
        assert list(registry.latest_pins()) == expected
    assert sum(counted.values()) < 10


def test_damaged_records_name_themselves(root: Callable[[], str]) -> None:
    store = Store(root())
    fill(store, 50)
    registry = Registry(store)
    list(registry.latest_pins())
    spoiled, lost = record_name("d2", "v0"), "registry/pins/d3/v0/text/00000001.json"
    store.write(spoiled, bytes(range(128, 256)))
    store.write(lost, b"{")
    for fresh in (True, False):
        begin_process()
        problems: list[str] = []
        found = {each.dataset_version for each in registry.latest_pins(problems=problems)}
        assert len(found) == 48
        assert [name in problem for name, problem in zip((spoiled, lost), problems, strict=True)] == [
            True
        ] * 2
        assert describe_damage(registry, fresh) == problems
    with pytest.raises(UserError, match=r"d2@v0 cannot be read"):
        list(registry.all_cells())


def test_silent_damage_of_a_disk_is_found_by_reading(tmp_path: Path) -> None:
    """Other bytes, of the same size and time, in the same file."""
    store = Store(str(tmp_path))
    fill(store, 40)
    registry = Registry(store)
    assert describe_damage(registry, False) == []
    path = tmp_path / record_name("d2", "v0")
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [record_name("d2", "v0") in line for line in describe_damage(registry)] == [True]


def test_an_unknown_version_names_a_bounded_number_of_others(root: Callable[[], str]) -> None:
    store = Store(root())
    fill(store, 50)
    with pytest.raises(UserError, match=r"registered are: d0@v0, .*, and 30 more") as told:
        Registry(store).spec("nothing", "v1")
    assert len(str(told.value)) < 500
    with pytest.raises(UserError, match=r"registered are: d3@v0, d3@v1, d3@v2, d3@v3, d3@v4$"):
        Registry(store).spec("d3", "v9")


def write_versions(root: str, number: int, versions: int) -> None:
    registry = Catalog.open(root).registry
    for version in range(versions):
        registry.register(spec_of({"uri": "/x"}, name=f"w{number}", version=f"v{version}"))
        registry.pins.publish(
            Cell(f"w{number}", f"v{version}", "text"),
            replace(pin(1), dataset=f"w{number}", version=f"v{version}"),
        )
        record_folder._folder.cache_clear()
        assert f"w{number}@v{version}" in registry.datasets()
        assert f"w{number}@v{version}" in {each.dataset_version for each in registry.latest_pins()}


def test_writers_at_once(tmp_path: Path) -> None:
    """Each sees its own versions at once, whatever index another one writes."""
    root = str(tmp_path / "store")
    fill(Store(root), 40)
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=write_versions, args=(root, number, 12)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    begin_process()
    registry = Catalog.open(root).registry
    assert len(registry.datasets()) == len(list(registry.latest_pins())) == 40 + 3 * 12
