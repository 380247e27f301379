"""Manifests of training sets: JSON that names rows, and gives the same ones again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.filters import join_conditions
from mm_resources.retrieval.manifest_rows import ManifestRows
from mm_resources.retrieval.mixture_rows import MixtureRows
from mm_resources.retrieval.pick_splits import split_condition

# Labels of more values are no classes.
MOST_CLASSES = 10_000
Manifest = dict[str, Any]
Rows = ManifestRows | MixtureRows


def rows_of(catalog: Catalog, manifest: Manifest) -> Rows:
    """Return the rows that a manifest selects."""
    return MixtureRows(catalog, manifest) if "parts" in manifest else ManifestRows(catalog, manifest)


def parts_of(manifest: Manifest) -> list[Manifest]:
    """Return the parts of a mixture, each of which names tables; of any other manifest, itself."""
    parts: list[Manifest] = manifest.get("parts") or [manifest]
    return parts


def tables_of(manifest: Manifest) -> list[dict[str, Any]]:
    """Return all tables of a manifest."""
    return [table for part in parts_of(manifest) for table in part["tables"]]


def pin_manifest(
    catalog: Catalog,
    pins: list[Pin],
    embedder: str | Mapping[str, str] | None,
    where: str | Mapping[str, str] | None,
    split: str | None,
    columns: list[str] | dict[str, list[str]],
    classes: Sequence[str] | None,
) -> Manifest:
    """Return the manifest of the rows of pins, without their count; see `TrainingSet.from_pins`."""
    conditions = [split_condition(catalog, pins, split)] if split is not None else []
    manifest: Manifest = {
        "dataset_version": pins[0].dataset_version,
        "tables": [manifest_table(pin, pinned_table(pin, embedder, len(pins))) for pin in pins],
        "where": _filter(where, pins, []),
        "columns": columns,
    }
    # Those of all splits, so that a number means the same class in each.
    known = list(classes) if classes is not None else find_classes(ManifestRows(catalog, manifest))
    return manifest | {"where": _filter(where, pins, conditions), **({"classes": known} if known else {})}


def _filter(
    where: str | Mapping[str, str] | None, pins: list[Pin], conditions: list[str]
) -> str | dict[str, str] | None:
    """Return the filter of a manifest: of all modalities, or by modality."""
    if not isinstance(where, Mapping):
        return join_conditions(where, *conditions)
    filters = {pin.modality: join_conditions(where.get(pin.modality), *conditions) for pin in pins}
    return {modality: found for modality, found in filters.items() if found}


def find_classes(rows: ManifestRows) -> list[str]:
    """Return the labels of the rows of all tables, sorted; [] for more than `MOST_CLASSES`."""
    found: set[str] = set()
    for table in rows.tables:
        if "label" in rows.columns(table):
            found |= rows.values(table, "label")
    return sorted(found) if len(found) <= MOST_CLASSES else []


def pinned_table(pin: Pin, embedder: str | Mapping[str, str] | None, modalities: int) -> PinnedTable:
    """Return the table of a pin that an argument `embedder` chooses, see `TrainingSet.from_pins`."""
    try:
        return pin.table(embedder.get(pin.modality) if isinstance(embedder, Mapping) else embedder)
    except UserError as error:
        if modalities == 1 or isinstance(embedder, Mapping):
            raise
        raise UserError(
            f"{error}; choose one for each modality: embedder={{'MODALITY': 'NAME'}} in Python, "
            "--embedder MODALITY=NAME for `mm export`"
        ) from None


def manifest_table(pin: Pin, table: PinnedTable) -> dict[str, Any]:
    """Return a pin's table as a manifest names it."""
    return {
        "modality": pin.modality,
        "pin": pin.number,
        "table": table.table,
        "lance_version": table.lance_version,
        "tag": table.tag,
        "fingerprint": table.fingerprint,
        "dimension": table.dimension,
    }


def check_manifest(manifest: object) -> None:
    """Check that a manifest has the entries of one, with their types.

    Raises:
        UserError: naming the first that is wrong.
    """
    given = manifest if isinstance(manifest, dict) else {}
    is_mixture = "parts" in given
    wrong = _wrong(given, _MIXTURE if is_mixture else _MANIFEST)
    if not wrong and is_mixture:
        parts = given["parts"]
        if not parts or len(given["weights"]) != len(parts):
            wrong = ["parts"]
        wrong += [
            name for part in parts for name in ("tables" if not isinstance(part, dict) else "",) if name
        ]
        for part in parts if not wrong else []:
            check_manifest(part)
    elif not wrong:
        wrong = [
            f"tables: {name}"
            for table in given["tables"]
            for name, kind in _MANIFEST_TABLE.items()
            if not isinstance(table, dict) or not isinstance(table.get(name), kind)
        ] or ([] if given["tables"] else ["tables"])
    if wrong:
        raise UserError(
            f"this is no manifest of a training set (wrong: {wrong[0]}); "
            "give TrainingSet.manifest, or the content of _manifest.json"
        )


def _wrong(given: Mapping[str, Any], known: Mapping[str, tuple[type, ...]]) -> list[str]:
    return [name for name, kinds in known.items() if not isinstance(given.get(name, ...), kinds)]


_OF_EVERY: dict[str, tuple[type, ...]] = {"dataset_version": (str,), "rows": (int,), "digest": (str,)}
_MANIFEST: dict[str, tuple[type, ...]] = {
    **_OF_EVERY, "tables": (list,), "where": (str, dict, type(None)), "columns": (list, dict),
}  # fmt: skip
_MIXTURE: dict[str, tuple[type, ...]] = {
    **_OF_EVERY, "parts": (list,), "weights": (list,), "balance": (str, type(None)), "seed": (int,),
    "temperature": (int, float, type(None)), "epoch_rows": (int,),
}  # fmt: skip
_MANIFEST_TABLE = {"modality": str, "pin": int, "table": str, "lance_version": int}
