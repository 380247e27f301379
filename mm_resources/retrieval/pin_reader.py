"""Reading answers from the pins of published versions, while some of them may be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.modalities import modalities
from mm_resources.catalog import Catalog
from mm_resources.features.removed_rows import RemovedRows, removal_errors, versions_of
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_text

_EXAMPLE = "birds@v1"
# How often an answer is read again from new pins, after the rows of the old ones were forgotten meanwhile.
_TRIES = 5
Answer = TypeVar("Answer")


class PinReader:
    """The pins of a store, and answers that are read from them."""

    catalog: Catalog

    def read_pins(self, resolve: Callable[[], list[Pin]], read: Callable[[list[Pin]], Answer]) -> Answer:
        """Return an answer that is read from pins.

        Forgetting may replace the pins while they are read, and remove the rows that they named: then the
        answer is read once more, from the pins as they are by then.

        Raises:
            RemovedRows: when it happens too often.
        """
        for tries_left in range(_TRIES, -1, -1):
            pins = resolve()
            try:
                with removal_errors(
                    self.catalog.receipts, [version for pin in pins for version in versions_of(pin)]
                ):
                    return read(pins)
            except RemovedRows:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def pins(self, versions: list[str] | None, names: list[str]) -> list[Pin]:
        """Return the pins of the requested versions, each once; of all versions when none is given."""
        if versions is not None:
            found = [self.published(version, name) for version in versions for name in names]
            # A version and its alias may name the same pin.
            return list({(pin.cell, pin.number): pin for pin in found}.values())
        # A version whose files are damaged costs itself alone, and is named where nothing else is found.
        problems: list[str] = []
        pins = list(self.catalog.registry.latest_pins(modalities=names, problems=problems))
        if not pins:
            for name in names:
                if name not in modalities() and not problems:
                    raise unknown_choice("modality", name, modalities())
            raise UserError(
                "; ".join(problems)
                or f"nothing is published of any {' or '.join(names)} in {self.catalog.store.root}; "
                "run `mm backfill DATASET@VERSION`, or set MM_STORE"
            )
        return pins

    def published(self, dataset_version: str, modality: str) -> Pin:
        """Return the pin of a cell; for an alias, the promoted one. See `Registry.published_pin`."""
        require_text("dataset_version", dataset_version, _EXAMPLE)
        require_text("modality", modality, "image")
        return self.catalog.registry.published_pin(dataset_version, modality)
