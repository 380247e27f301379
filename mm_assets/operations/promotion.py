"""Promotion: an alias moves to a version that passes its gate, and can go back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from mm_assets.cells.checks import Check
from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ALIASES
from mm_embed_kernels.spec.thresholds import Promotion
from mm_resources.catalog import Catalog
from mm_resources.monitoring.version_diff import vector_drift
from mm_resources.registry.aliases import Alias
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.feature_store import FeatureStore

# (feature store, candidate, what the alias stands for now or None) -> whether it passes, or that and what was
# found.
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
    """Move an alias to a version, if the gate lets it; the move, with what the gate found.

    Args:
        evaluation: ``module:function`` of the user's own test, see `Evaluation`.
        override: the reason for which the alias moves in spite of a closed gate.

    Raises:
        UserError: when the gate is closed, naming each threshold and by how much.
    """
    if alias not in ALIASES - {"latest"}:
        raise UserError(f"{alias!r} is no alias; there are: {', '.join(sorted(ALIASES - {'latest'}))}")
    cells = catalog.registry.cells(dataset_version)
    pins = [pin for cell in cells if (pin := catalog.registry.pins.get(cell))]
    if not pins:
        raise UserError(f"nothing is published of {dataset_version}; run `mm backfill {dataset_version}`")
    dataset, version = pins[0].dataset, pins[0].version
    now = catalog.registry.aliases.current(dataset, alias)
    checks = list(gate(catalog, pins, now, evaluation))
    shut = [check for check in checks if not check.passed]
    if shut and not override:
        causes = "; ".join(check.description for check in shut)
        raise UserError(
            f"{dataset}@{version} is not promoted to {alias}: {causes}; to promote all the same: --override REASON"
        )
    moved = Alias(
        number=now.number + 1 if now else 1,
        dataset=dataset,
        alias=alias,
        version=version,
        pins={pin.modality: pin.number for pin in pins},
        moved_at=datetime.now(UTC).isoformat(),
        checks=[asdict(replace(check, waived=not check.passed)) for check in checks],
        reason=override if shut else "",
    )
    catalog.registry.aliases.move(moved)
    return moved


def take_back(catalog: Catalog, dataset: str, alias: str) -> Alias:
    """Move an alias back to where it stood before its last move.

    Raises:
        UserError: when it has stood nowhere else.
    """
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
    catalog.registry.aliases.move(back)
    return back


def gate(catalog: Catalog, pins: list[Pin], now: Alias | None, evaluation: str = "") -> Iterator[Check]:
    """The checks of a promotion, each with the numbers behind it."""
    candidate = f"{pins[0].dataset}@{pins[0].version}"
    wanted = catalog.registry.spec(pins[0].dataset, pins[0].version).promotion
    served = (
        {
            modality: catalog.registry.published(f"{now.dataset}@{now.alias}", modality)
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
        yield from _cell(catalog, pin, served.get(pin.modality), wanted)
    if evaluation:
        yield _evaluated(catalog, candidate, now.dataset_version if now else None, evaluation)


def _cell(catalog: Catalog, pin: Pin, served: Pin | None, wanted: Promotion) -> Iterator[Check]:
    name, counts = pin.modality, pin.accounting
    balanced = counts["discovered"] == counts["published"] + counts["dropped"] + counts["failed"]
    yield Check(
        f"{name}.accounting",
        balanced,
        "{discovered:,} = {published:,} + {dropped:,} + {failed:,}".format(**counts),
    )
    recall = min(
        (one for table in pin.tables for one in (table.recall, table.recall_filtered) if one is not None),
        default=1.0,
    )
    yield _bounded(f"{name}.recall", recall, wanted.min_recall, "recall@10")
    labels, rows = _labels(catalog, pin), max(1, counts["published"])
    repeated = (
        sql.fetch(_DUPLICATES, rows=catalog.features.rows(pin, ["sample_id", "duplicate_group"]))["n"][
            0
        ].as_py()
        / rows
    )
    yield _bounded(
        f"{name}.duplicates", repeated, wanted.max_duplicate_share, "share of repeated samples", most=True
    )
    if served is None:
        return
    shares = {label: labels.get(label, 0) / count for label, count in _labels(catalog, served).items()}
    worst = min(shares, key=lambda label: shares[label], default=None)
    if worst is not None:
        yield _bounded(
            f"{name}.coverage",
            shares[worst],
            wanted.min_label_share,
            f"share of what label {worst!r} has now",
        )
    drift = vector_drift(catalog, served, pin)
    if drift.centroid_cosine is not None:
        yield _bounded(
            f"{name}.drift", drift.centroid_cosine, wanted.min_centroid_cosine, "cosine of the mean vectors"
        )


def _labels(catalog: Catalog, pin: Pin) -> dict[str, int]:
    """Published samples by label."""
    found = sql.fetch(_LABELS, rows=catalog.features.rows(pin, ["sample_id", "label"]))
    return dict(zip(found["label"].to_pylist(), found["n"].to_pylist(), strict=True))


def _bounded(name: str, value: float, threshold: float, what: str, most: bool = False) -> Check:
    passed = value <= threshold if most else value >= threshold
    told = f"{name}: {what} is {value:.3f}, {'at most' if most else 'at least'} {threshold:g} is asked for"
    return Check(name, passed, told, {"value": value, "threshold": threshold})


def _evaluated(catalog: Catalog, candidate: str, served: str | None, evaluation: str) -> Check:
    """The verdict of the user's own test.

    Raises:
        UserError: when there is no such function.
    """
    module, _, name = evaluation.partition(":")
    try:
        judge: Evaluation = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--evaluate {evaluation}: {error}; give MODULE:FUNCTION, importable from here"
        ) from None
    found: Any = judge(FeatureStore(catalog), candidate, served)
    passed, told = found if isinstance(found, tuple) else (found, "passed" if found else "not passed")
    return Check("evaluation", bool(passed), f"evaluation {evaluation}: {told}")
