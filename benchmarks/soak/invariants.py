"""What must hold of a store after whatever was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from benchmarks.soak.world import Version, World, digest_of
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.maintenance.verification import verify
from mm_resources.registry.damaged_files import describe_damage
from mm_resources.retrieval.feature_store import FeatureStore

# Key of the rows of a stage.
_KEYS = ("feature_id", "segment_id", "sample_id")
# Growth of a reader, between the first and the last third of its life, that is no leak: caches of versions
# that were added meanwhile.
_MEMORY, _MEMORY_BYTES, _DESCRIPTORS = 1.2, 48 << 20, 16
# Fewer samples tell nothing.
_SAMPLES = 60


def violations(world: World) -> Iterator[str]:
    """Yield a line for each invariant that does not hold; a check that fails is one, and ends no other."""
    catalog, features = Catalog.open(world.store), FeatureStore.open(world.store)
    yield from _check("registry", lambda: describe_damage(catalog.registry))
    yield from _check("receipts", lambda: _receipts(catalog))
    for version in world.versions:
        cell = Cell(version.dataset, version.name, "text")
        checks = {
            "counts": partial(_counts, catalog, cell, version, world),
            "rows": partial(_doubled_rows, catalog, cell),
            "pins": partial(_pins, catalog, cell),
            "search": partial(_search, features, version, world),
            "loader": partial(_media, features, version, world),
        }
        for name, check in checks.items():
            yield from _check(f"{cell.partition_key}: {name}", check)
    yield from _check("blobs", lambda: _blobs(catalog, world))
    yield from _check("files", lambda: _leftovers(world))


def _check(what: str, check: Callable[[], Iterable[str]]) -> Iterator[str]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - whatever a reader raises is what the soak looks for
        yield f"{what}: {type(error).__name__}: {error}"


def _receipts(catalog: Catalog) -> Iterator[str]:
    for receipt in catalog.receipts.all():
        if not receipt.done_at:
            yield f"forgetting {receipt.asked} is not complete"


def _counts(catalog: Catalog, cell: Cell, version: Version, world: World) -> Iterator[str]:
    pin = catalog.registry.pins.get(cell)
    if pin is None:
        yield f"{cell.partition_key} is not published"
    elif wrong := version.miscount(pin.accounting, world.forgotten):
        yield f"{cell.partition_key}: {wrong}"


def _kept(version: Version, world: World) -> list[str]:
    return sorted({text for text in version.texts.values() if text not in world.forgotten})


def _search(features: FeatureStore, version: Version, world: World) -> Iterator[str]:
    hits = features.search([1.0] * 256, dataset_version=version.dataset_version, modality="text", k=1_000)
    kept = _kept(version, world)
    if sorted(hits["text"].to_pylist()) != kept:
        yield f"{version.dataset_version}: search returns {hits.num_rows} rows for {len(kept)} texts"


def _media(features: FeatureStore, version: Version, world: World) -> Iterator[str]:
    chosen = features.training_set(version.dataset_version, modality="text", columns=["text"])
    texts = [data.decode() for batch in chosen.to_torch(media=True) for data in batch["media"]]
    kept = _kept(version, world)
    if sorted(texts) != kept:
        yield f"{version.dataset_version}: a loader returns {len(texts)} media for {len(kept)} texts"


def _doubled_rows(catalog: Catalog, cell: Cell) -> Iterator[str]:
    for asset in STAGES:
        if catalog.tables.meta(asset, cell) is None:
            yield f"{cell.partition_key}: {asset} is missing"
            continue
        table = catalog.tables.read(asset, cell).read_all()
        key = next((name for name in _KEYS if name in table.column_names), "content_hash")
        if key in table.column_names and (twice := _twice(table, key)):
            yield f"{cell.partition_key}: {asset} has {twice:,} doubled rows"


def _pins(catalog: Catalog, cell: Cell) -> Iterator[str]:
    pins = catalog.registry.pins
    for number in pins.numbers(cell):
        pin = pins.get(cell, number)
        assert pin is not None
        for table in pin.tables:
            measured = catalog.features.measure(table.table, table.lance_version)
            if measured != (table.rows, table.digest):
                yield f"{cell.partition_key} pin {number}: {table.table} has other rows than its pin says"
            ids = catalog.features.dataset(table.table, table.lance_version).to_table(columns=["feature_id"])
            if twice := _twice(ids, "feature_id"):
                yield f"{cell.partition_key} pin {number}: {twice:,} doubled features"
        for asset, stage in pin.stages.items():
            meta = catalog.tables.meta(asset, cell, stage)
            if meta is None:
                yield f"{cell.partition_key} pin {number}: {asset} is not there at its version"
            elif (rows := catalog.tables.read(asset, cell, at=stage).read_all().num_rows) != meta.rows:
                yield f"{cell.partition_key} pin {number}: {asset} has {rows:,} rows of {meta.rows:,}"


def _twice(table: pa.Table, key: str) -> int:
    counts = Counter(table[key].to_pylist())
    return sum(count - 1 for value, count in counts.items() if value is not None)


def _blobs(catalog: Catalog, world: World) -> Iterator[str]:
    for batch in verify(catalog.blobs):
        for location, error in batch.bad:
            yield f"blob {location.content_hash[:16]}: {error}"
    hashes = set(catalog.blobs.index.rows(["content_hash"]).read_all()["content_hash"].to_pylist())
    missing = {digest_of(text) for text in world.texts()} - hashes
    if missing:
        yield f"{len(missing)} contents are not indexed"
    if refused := hashes & {digest_of(text) for text in world.forgotten}:
        yield f"{len(refused)} forgotten contents are indexed"


def _leftovers(world: World) -> Iterator[str]:
    """Yield the files that hold a forgotten text, and empty packs."""
    roots = [world.folder / "home"]
    roots.append(world.server.folder if world.server else Path(world.store))
    words = [text.encode() for text in world.forgotten]
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for word in words:
            if word in data:
                yield f"{path} holds a forgotten text"
        if path.suffix == ".pack" and not data:
            yield f"{path} is empty"


def growth(samples: list[tuple[int, int]]) -> str:
    """Return how a reader grew, by samples of its memory (bytes) and descriptors; "" where it is flat."""
    if len(samples) < _SAMPLES:
        return ""
    third = len(samples) // 3
    before, after = (
        [sorted(values)[third // 2] for values in zip(*part[:third], strict=True)]
        for part in (samples, samples[-third:])
    )
    if after[0] > before[0] * _MEMORY + _MEMORY_BYTES:
        return f"memory grew from {before[0] >> 20} to {after[0] >> 20} MiB"
    if after[1] > before[1] + _DESCRIPTORS:
        return f"descriptors grew from {before[1]} to {after[1]}"
    return ""
