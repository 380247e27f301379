"""Mixtures of training sets: how the rows of an epoch are drawn, and the arguments that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.arguments import require_number, require_text, require_texts
from mm_resources.retrieval.filters import check_filter
from mm_resources.retrieval.manifests import MOST_CLASSES, Manifest

Columns = list[str] | dict[str, list[str]]


@dataclass(frozen=True)
class Draw:
    """The draw of the rows of each epoch, see `FeatureStore.training_set`."""

    balance: str | None = None
    temperature: float | None = None
    epoch_rows: int | None = None
    seed: int = 0

    @property
    def is_plain(self) -> bool:
        """True where each row comes once an epoch."""
        return self.balance is None and self.epoch_rows is None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the set needs for it."""
        return (self.balance,) if self.balance else ()

    def check(self) -> None:
        """Check the arguments.

        Raises:
            UserError: for one of another type or out of its range.
        """
        if self.balance is not None:
            require_text("balance", self.balance, "label")
        if self.epoch_rows is not None:
            require_number("epoch_rows", self.epoch_rows, 1)
        require_number("seed", self.seed, 0)
        if self.temperature is None:
            return
        if self.balance is None:
            raise UserError("temperature is of the values of a column; add balance='label'")
        if not _is_positive(self.temperature):
            raise UserError(f"temperature is {self.temperature!r}; give a number above 0")

    def mix(
        self, parts: Sequence[Manifest], weights: Sequence[float], classes: Sequence[str] | None
    ) -> Manifest:
        """Return the manifest of a mixture.

        Args:
            parts: manifests with row counts.
            weights: of the parts.
            classes: names of classes; by default those of all parts, sorted.

        Raises:
            UserError: for parts whose vectors cannot be compared, or that have no rows.
        """
        first = parts[0]["tables"]
        for part in parts[1:]:
            for one, other in zip(first, part["tables"], strict=True):
                if (one["fingerprint"], one["dimension"]) != (other["fingerprint"], other["dimension"]):
                    raise UserError(
                        f"{one['table']} and {other['table']} have vectors of other embedders, which cannot "
                        "be mixed; choose one that all versions have: embedder='NAME'"
                    )
        rows = sum(part["rows"] for part in parts)
        if not rows:
            raise UserError("no rows pass the filter, so there is nothing to draw from")
        found = sorted({name for part in parts for name in part.get("classes", ())})
        names = list(classes) if classes is not None else found if len(found) <= MOST_CLASSES else []
        return {
            "dataset_version": " + ".join(part["dataset_version"] for part in parts),
            "parts": [{name: value for name, value in part.items() if name != "classes"} for part in parts],
            "weights": [float(weight) for weight in weights],
            "balance": self.balance,
            "temperature": self.temperature,
            "epoch_rows": self.epoch_rows or rows,
            "seed": self.seed,
            "where": None,
            "columns": parts[0]["columns"],
            **({"classes": names} if names else {}),
        }


def require_weights(dataset_version: object, example: str) -> dict[str, float]:
    """Return versions with their weights; one version has the weight 1.

    Raises:
        UserError: for anything but a version, or versions with positive weights.
    """
    if not isinstance(dataset_version, Mapping):
        return {require_text("dataset_version", dataset_version, example): 1.0}
    if not dataset_version:
        raise UserError(f"dataset_version is empty; give versions with weights, such as {{{example!r}: 1}}")
    for version, weight in dataset_version.items():
        require_text("dataset_version", version, example)
        if not _is_positive(weight):
            raise UserError(f"the weight of {version} is {weight!r}; give a number above 0")
    return {version: float(weight) for version, weight in dataset_version.items()}


def check_columns(columns: object, names: list[str]) -> Columns:
    """Return the columns of a set: of all modalities, or by modality; by default the label."""
    if isinstance(columns, Mapping):
        _check_modalities("columns", columns, names)
        return {name: require_texts("columns", columns[name], "label") for name in columns if columns[name]}
    return ["label"] if columns is None or columns == [] else require_texts("columns", columns, "label")


def add_columns(columns: Columns, more: Sequence[str]) -> Columns:
    """Return columns with further ones of all modalities."""
    if isinstance(columns, dict):
        return {name: list(dict.fromkeys([*own, *more])) for name, own in columns.items()}
    return list(dict.fromkeys([*columns, *more]))


def check_filters(where: object, names: list[str]) -> None:
    """Check a filter, or one for each modality."""
    if isinstance(where, Mapping):
        _check_modalities("where", where, names)
    for each in where.values() if isinstance(where, Mapping) else [] if where is None else [where]:
        check_filter(each)


def _check_modalities(argument: str, given: Mapping[Any, Any], names: list[str]) -> None:
    for name in given:
        if name not in names:
            raise UserError(f"{argument} names {name!r}, but the modalities are: {', '.join(names)}")


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
    )
