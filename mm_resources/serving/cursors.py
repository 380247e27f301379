"""Cursors of pages: the place, and the pins that the first page was read from."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.serving.problems import Problem

_LONGEST, _MOST_PINS = 8_000, 400


@dataclass(frozen=True)
class Cursor:
    """The beginning of a page.

    Attributes:
        offset: rows before it.
        pins: ``(dataset@version, modality, number)`` of each pin that is read.
        request: digest of what is asked, which a cursor of another request lacks.
    """

    offset: int
    pins: tuple[tuple[str, str, int], ...]
    request: str

    def dump(self) -> str:
        """Return the cursor as a text for a client."""
        raw = json.dumps([self.offset, self.pins, self.request], separators=(",", ":"))
        return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")

    def resolve(self, catalog: Catalog) -> list[Pin]:
        """Return the pins that the cursor names.

        Raises:
            Problem: where one of them is gone.
        """
        found = []
        for dataset_version, modality, number in self.pins:
            cell = catalog.registry.cells(dataset_version, modality)[0]
            if number not in catalog.registry.pins.numbers(cell):
                raise Problem(
                    "not_found", f"pin {number} of {dataset_version} {modality} is gone; begin again"
                )
            pin = catalog.registry.pins.get(cell, number)
            assert pin is not None
            found.append(pin)
        return found


def request_digest(*parts: object) -> str:
    """Return what tells one request from others."""
    return digest("cursor", json.dumps(parts, default=str, sort_keys=True))[:16]


def cursor_at(offset: int, pins: Sequence[Pin], request: str) -> str:
    """Return the text of a cursor at a row of pins."""
    return Cursor(
        offset, tuple((pin.dataset_version, pin.modality, pin.number) for pin in pins), request
    ).dump()


def parse_cursor(text: str, request: str) -> Cursor:
    """Return the cursor of a text that a client sends.

    Raises:
        Problem: where it is none, or one of another request.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError
        raw = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        offset, pins, asked = raw
        named = tuple((str(version), str(modality), int(number)) for version, modality, number in pins)
        if not isinstance(offset, int) or offset < 0 or not 0 < len(named) <= _MOST_PINS:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Problem("not_found", "the cursor is none; leave it out to begin with the first page") from None
    if asked != request:
        raise Problem("not_found", "the cursor is that of another request; leave it out to begin again")
    return Cursor(offset, named, str(asked))
