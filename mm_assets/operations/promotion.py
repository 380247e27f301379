"""Promotion: move an alias to a version that passes its gate, and roll it back."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from mm_assets.cells.checks import Check
from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.identity import ALIASES
from mm_embed_kernels.spec.thresholds import Promotion
from mm_resources.catalog import Catalog
from mm_resources.features.reader_tags import move_reader_tags
from mm_resources.monitoring.version_diff import vector_drift
from mm_resources.registry.aliases import Alias, check_dataset
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.feature_store import FeatureStore

# (feature store, candidate, current target of the alias or None) -> whether the candidate passes, or that and
# a description.
Evaluation = Callable[[FeatureStore, str, str | None], bool | tuple[bool, str]]
_DUPLICATES = """
SELECT coalesce(sum(n - 1), 0)::BIGINT AS n FROM (
  SELECT count(DISTINCT sample_id) AS n FROM rows WHERE duplicate_group IS NOT NULL GROUP BY duplicate_group
)
"""
_LABELS = "SELECT label, count(DISTINCT sample_id) AS n FROM rows WHERE label IS NOT NULL GROUP BY label"


def promote(
    catalog: Catalog, dataset_version: str, alias: str, evaluation: str = "", override: str = ""
) -> Alias:
    """Move an alias to a version whose gate is open.

    Args:
        evaluation: ``module:function`` of the user's own test, see `Evaluation`.
        override: the reason for moving the alias although the gate is closed.

    Returns:
        The move, with the checks of the gate.

    Raises:
        UserError: for an unknown alias, an unpublished version, or a closed gate, naming each value and
            threshold.
    """
    _check_alias(alias)
    cells = catalog.registry.cells(dataset_version)
    pins = [pin for cell in cells if (pin := catalog.registry.pins.get(cell))]
    if not pins:
        raise UserError(f"nothing is published of {dataset_version}; run `mm backfill {dataset_version}`")
    dataset, version = pins[0].dataset, pins[0].version
    now = catalog.registry.aliases.target(dataset, alias)
    checks = list(promotion_checks(catalog, pins, now, evaluation))
    failed = [check for check in checks if not check.passed]
    if failed and not override:
        causes = "; ".join(check.description for check in failed)
        raise UserError(
            f"{dataset}@{version} is not promoted to {alias}: {causes}; "
            "to promote it anyway: --override REASON"
        )
    moved = Alias(
        number=now.number + 1 if now else 1,
        dataset=dataset,
        alias=alias,
        version=version,
        pins={pin.modality: pin.number for pin in pins},
        moved_at=datetime.now(UTC).isoformat(),
        checks=[asdict(replace(check, waived=not check.passed)) for check in checks],
        reason=override if failed else "",
    )
    return _move(catalog, moved)


def roll_back(catalog: Catalog, dataset: str, alias: str) -> Alias:
    """Move an alias back to its target before the last move.

    Raises:
        UserError: for a word that is no alias, and when it had no other target.
    """
    check_dataset(dataset)
    _check_alias(alias)
    moves = catalog.registry.aliases.history(dataset, alias)
    if not moves:
        raise UserError(f"nothing was promoted to {dataset}@{alias}")
    last = moves[-1]
    earlier = [move for move in moves if (move.version, move.pins) != (last.version, last.pins)]
    if not earlier:
        raise UserError(
            f"{dataset}@{alias} has only ever been {last.dataset_version}; there is nothing to go back to"
        )
    back = replace(
        earlier[-1],
        number=last.number + 1,
        moved_at=datetime.now(UTC).isoformat(),
        reason=f"taken back from {last.dataset_version}",
    )
    return _move(catalog, back)


def _move(catalog: Catalog, alias: Alias) -> Alias:
    """Move an alias, and then the tags of the feature tables that follow it."""
    catalog.registry.aliases.move(alias)
    for modality in alias.pins:
        move_reader_tags(catalog.registry, catalog.features, alias.dataset, modality)
    return alias


def _check_alias(alias: str) -> None:
    if alias not in ALIASES - {"latest"}:
        raise unknown_choice("alias", alias, sorted(ALIASES - {"latest"}))


def promotion_checks(
    catalog: Catalog, pins: list[Pin], now: Alias | None, evaluation: str = ""
) -> Iterator[Check]:
    """Yield the checks of a promotion, with their figures.

    Args:
        now: the current target of the alias.
    """
    candidate = pins[0].dataset_version
    thresholds = catalog.registry.spec(pins[0].dataset, pins[0].version).promotion
    served = (
        {
            modality: catalog.registry.published_pin(f"{now.dataset}@{now.alias}", modality)
            for modality in now.pins
        }
        if now
        else {}
    )
    lacking = sorted(served.keys() - {pin.modality for pin in pins})
    yield Check(
        "modalities",
        not lacking,
        f"published of {candidate} is no {', '.join(lacking)}" if lacking else "no modality is lost",
    )
    for pin in pins:
        yield from _cell_checks(catalog, pin, served.get(pin.modality), thresholds)
    if evaluation:
        yield _evaluation_check(catalog, candidate, now.dataset_version if now else None, evaluation)


def _cell_checks(catalog: Catalog, pin: Pin, served: Pin | None, thresholds: Promotion) -> Iterator[Check]:
    name, counts = pin.modality, pin.accounting
    balanced = counts["discovered"] == counts["published"] + counts["dropped"] + counts["failed"]
    yield Check(
        f"{name}.accounting",
        balanced,
        f"{counts['discovered']:,} discovered = {counts['published']:,} published"
        f" + {counts['dropped']:,} dropped + {counts['failed']:,} failed",
    )
    recall = min(
        (one for table in pin.tables for one in (table.recall, table.recall_filtered) if one is not None),
        default=1.0,
    )
    yield _threshold_check(f"{name}.recall", recall, thresholds.min_recall, "recall@10")
    labels, rows = _labels(catalog, pin), max(1, counts["published"])
    repeated = (
        sql.fetch(_DUPLICATES, rows=catalog.features.rows(pin, ["sample_id", "duplicate_group"]))["n"][
            0
        ].as_py()
        / rows
    )
    yield _threshold_check(
        f"{name}.duplicates", repeated, thresholds.max_duplicate_share, "share of repeated samples", most=True
    )
    if served is None:
        return
    shares = {label: labels.get(label, 0) / count for label, count in _labels(catalog, served).items()}
    worst = min(shares, key=lambda label: shares[label], default=None)
    if worst is not None:
        yield _threshold_check(
            f"{name}.coverage",
            shares[worst],
            thresholds.min_label_share,
            f"share of what label {worst!r} has now",
        )
    drift = vector_drift(catalog, served, pin)
    if drift.centroid_cosine is not None:
        yield _threshold_check(
            f"{name}.drift",
            drift.centroid_cosine,
            thresholds.min_centroid_cosine,
            "cosine of the mean vectors",
        )


def _labels(catalog: Catalog, pin: Pin) -> dict[str, int]:
    """Count published samples by label."""
    rows = sql.fetch(_LABELS, rows=catalog.features.rows(pin, ["sample_id", "label"]))
    return dict(zip(rows["label"].to_pylist(), rows["n"].to_pylist(), strict=True))


def _threshold_check(name: str, value: float, threshold: float, what: str, most: bool = False) -> Check:
    """Check a value against a lower threshold, or with `most` an upper one."""
    passed = value <= threshold if most else value >= threshold
    bound = f"{'at most' if most else 'at least'} {threshold:g}"
    line = f"{name}: {what} is {value:.3f}, {bound} is required"
    return Check(name, passed, line, {"value": value, "threshold": threshold})


def _import_evaluation(name: str) -> ModuleType:
    """Import the user's module, which may lie in the working folder; nothing else is imported from there.

    The folder comes last, for the modules that this one imports, and is left again behind it: a file there
    named as a library (lance.py) stands in for none.
    """
    folder = os.getcwd()
    # By its own name it comes first: a script `evaluate.py` is meant, whatever is installed.
    found = importlib.machinery.PathFinder.find_spec(name, [folder]) if "." not in name else None
    sys.path.append(folder)
    try:
        if found is None or found.loader is None or name in sys.modules:
            return importlib.import_module(name)
        module = sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(folder)


def _evaluation_check(catalog: Catalog, candidate: str, served: str | None, evaluation: str) -> Check:
    """Check a version by the user's own function, see `Evaluation`.

    Raises:
        UserError: when the function cannot be imported.
    """
    module, _, name = evaluation.partition(":")
    try:
        judge: Evaluation = getattr(_import_evaluation(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--evaluate {evaluation}: {error}; give MODULE:FUNCTION, importable from here"
        ) from None
    result: Any = judge(FeatureStore(catalog), candidate, served)
    passed, detail = result if isinstance(result, tuple) else (result, "passed" if result else "not passed")
    return Check("evaluation", bool(passed), f"evaluation {evaluation}: {detail}")
