"""Damage of the ledger costs its rows; damage of a receipt ends what must know it, and no reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.blobs.receipts import Receipt
from mm_resources.registry.damaged_files import describe_damage
from tests.assets.conftest import Platform
from tests.assets.maintenance.test_damaged_tables import files_of, flip


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_a_damaged_ledger_costs_its_rows(
    published_copy: Platform, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    mine = published_copy
    cell = mine.cell("tiny@v1", "text")
    before = len(mine.catalog.ledger.read().read_all())
    stages = len(mine.catalog.ledger.stage_work(cell))
    file = files_of(mine, "ledger/stages.lance")[0]
    harm(file)
    left = len(mine.catalog.ledger.read().read_all())
    assert 0 < left < before
    assert "mm doctor --verify --mend" in caplog.text
    assert len(mine.catalog.ledger.stage_work(cell)) <= stages
    mine.catalog.tables.mark_stale("feature_table", cell)
    result = mine.backfill("tiny@v1", "text")["text"]
    assert result.status == "published", result.reason


@pytest.mark.parametrize("harm", [flip, cut])
def test_a_damaged_receipt_is_named_and_costs_no_reader(
    published_copy: Platform, harm: Callable[[Path], None]
) -> None:
    mine = published_copy
    receipts = mine.catalog.receipts
    receipt = Receipt("00000001", "a" * 64, "2026-01-01T00:00:00+00:00", ["a" * 64], done_at="2026-01-01")
    receipts.write(receipt)
    assert receipts.all() == [receipt]
    harm(Path(mine.settings.store) / "registry/forgotten/00000001.json")
    named = r"receipt: registry/forgotten/00000001\.json in the store is damaged .* restore it from a backup"
    (line,) = describe_damage(mine.registry)
    assert re.match(named, line)
    with pytest.raises(UserError, match=named):
        receipts.tombstones()
    assert mine.features.search("a cat", modality="text").num_rows == 2
    mine.catalog.tables.mark_stale("feature_table", mine.cell("tiny@v1", "text"))
    result = mine.backfill("tiny@v1", "text")["text"]
    assert result.status == "failed"
    assert re.search(named, result.reason)


def test_each_bit_of_a_receipt_tells(published_copy: Platform) -> None:
    """A hash with another digit would let its content in again."""
    receipts = published_copy.catalog.receipts
    receipt = Receipt("00000001", "b" * 64, "2026-01-01T00:00:00+00:00", ["0" * 64], done_at="2026-01-01")
    receipts.write(receipt)
    file = Path(published_copy.settings.store) / "registry/forgotten/00000001.json"
    sound = file.read_bytes()
    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        try:
            assert receipts.all() == [receipt], "white space and the like"
        except UserError:
            continue
