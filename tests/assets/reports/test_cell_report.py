"""`mm report`: a page of its own, of bounded size, in which nothing that a sample says is markup."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from mm_assets.cli.main import app
from mm_assets.reports.cell_report import (
    MAX_CARDS,
    MAX_GROUPS,
    MAX_MEMBERS,
    Card,
    CellReport,
    Sheet,
    cell_report,
)
from mm_assets.reports.histograms import Histogram
from mm_assets.reports.html_page import page
from mm_assets.reports.previews import BlobPreview
from mm_embed_kernels.contracts import CONTENT_BLOBS, CURATED_SAMPLES, VALIDATED_SAMPLES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prices import Prices
from mm_resources.tables.stage_refs import StageMeta

CELL = Cell("birds", "v1", "text")
HOSTILE = (
    "<script>alert('1')</script>\"'><img src=http://evil.example onerror=alert(2)>\u202egnp.exe\x1b[31m&amp;"
)


class Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def require_harmless(text: str) -> Tags:
    tags = Tags(text)
    known = "html head meta title style body h1 h2 h3 h4 p nav a div span i b bdi figure figcaption img blockquote"
    known += " svg path g rect line text table tr th td"
    assert {tag for tag, _ in tags.found} <= set(known.split())
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "default-src 'none'" in str(tags.of("meta"))
    assert "url(" not in text
    assert "@import" not in text
    return tags


def stage(catalog: Catalog, contract: Any, table: pa.Table) -> None:
    tables, rows = catalog.tables, table.num_rows
    meta = StageMeta("d", "i", rows, rows, 0, 0, 0, "e", "", {}, "r", "now", samples=rows)
    read_version = tables.fence(contract.name, CELL)
    written = tables.write(contract.name, CELL, contract, [contract.cast(table)])
    tables.commit(contract.name, CELL, written, meta, read_version)


def curated(catalog: Catalog, rows: list[dict[str, Any]]) -> None:
    """A curated cell whose samples all have one blob."""
    blobs = catalog.blobs
    (content,) = blobs.put([HOSTILE.encode()])
    given = {"content_hash": content, "split": "train", "kept": True, "duplicates": [], "rules": []}
    stage(catalog, CURATED_SAMPLES, CURATED_SAMPLES.rows([{**given, **row} for row in rows]))
    stage(
        catalog,
        VALIDATED_SAMPLES.extend(get("text").signals),
        pa.table({"words": pa.array(range(len(rows)), pa.int64())}),
    )
    (place,) = blobs.index.rows().read_all().to_pylist()
    stage(catalog, CONTENT_BLOBS, CONTENT_BLOBS.rows([{**place, "refcount": len(rows)}]))


def decision(rule: str, passed: bool, action: str = "flag") -> dict[str, Any]:
    return {
        "rule": rule,
        "version": "1",
        "passed": passed,
        "action": action,
        "value": "3",
        "threshold": "t",
        "reason": f"{HOSTILE} {rule}",
    }


def test_what_is_shown_does_not_grow_with_the_cell(birds: Catalog) -> None:
    rows = []
    for n in range(3_000):
        dropped = n % 3 == 0
        row = {
            "sample_id": f"{n:032x}",
            "key": f"k{n}",
            "kept": not dropped,
            "rule": "too_short" if dropped else None,
            "reason": "r",
        }
        row["rules"] = [
            decision("too_short", not dropped, "drop"),
            decision("boilerplate", n % 2 == 0),
            decision("empty", True),
        ]
        row["duplicate_group"] = f"g{n // 2 % 20}" if n < 400 else "alone" if n == 401 else None
        row["duplicates"] = (
            [{"of": "x", "kind": "near_text", "score": 0.91234, "span": None}] if n < 400 else []
        )
        rows.append(row)
    curated(birds, rows)
    found = cell_report(birds, CELL, Prices())
    assert [(sheet.kind, sheet.rule, sheet.samples, len(sheet.cards)) for sheet in found.sheets] == [
        ("kept", "", 2_000, MAX_CARDS["kept"]),
        ("dropped", "too_short", 1_000, MAX_CARDS["dropped"]),
        ("flagged", "boilerplate", 1_500, MAX_CARDS["flagged"]),
    ]
    assert all(int(card.key[1:]) % 3 for card in found.sheets[0].cards)
    assert not any(int(card.key[1:]) % 3 for card in found.sheets[1].cards)
    assert all(card.preview.text.startswith("<script>") for card in found.sheets[0].cards)
    assert [(group.samples, len(group.cards)) for group in found.groups] == [(20, MAX_MEMBERS)] * MAX_GROUPS
    assert {card.note for group in found.groups for card in group.cards} <= {
        "kept; near_text 0.912",
        "dropped by too_short; near_text 0.912",
    }
    again = cell_report(birds, CELL, Prices())
    assert replace(again, counts=found.counts) == found, "the same samples each time"


def test_nothing_that_a_sample_says_is_markup(birds: Catalog, tmp_path: Path) -> None:
    rules = [decision("too_short", False, "drop"), decision("boilerplate", False)]
    names = {"key": HOSTILE, "label": HOSTILE, "split": HOSTILE, "duplicate_group": "g"}
    rows = [
        {"sample_id": f"{n:032x}", **names, "rules": rules, "kept": n > 1, "rule": HOSTILE, "reason": HOSTILE}
        for n in range(4)
    ]
    curated(birds, rows)
    out = tmp_path / "report.html"
    done = CliRunner().invoke(
        app, ["report", "birds@v1", "--out", str(out), "--json"], catch_exceptions=False
    )
    text = out.read_text("utf-8")
    assert json.loads(done.output) == {
        "dataset_version": "birds@v1",
        "path": str(out),
        "bytes": out.stat().st_size,
    }
    tags = require_harmless(text)
    assert tags.text.count("<script>alert") >= 8
    assert not {"\u202e", "\x1b"} & set(text)
    assert not list(tmp_path.glob(".*unfinished"))


def test_a_key_that_is_a_url_shows_no_signature(birds: Catalog) -> None:
    curated(birds, [{"sample_id": "0" * 32, "key": "https://u:secret@host/a.txt?X-Signature=secret"}])
    text = "".join(page("birds@v1", [cell_report(birds, CELL, Prices())], ["text"], Prices()))
    assert "https://host/a.txt" in text
    assert "secret" not in text


def test_a_lost_blob_is_a_line(birds: Catalog) -> None:
    curated(birds, [{"sample_id": "0" * 32, "key": "a"}])
    for pack in Path(birds.store.path("blobs/packs")).iterdir():
        pack.unlink()
    (card,) = cell_report(birds, CELL, Prices()).sheets[0].cards
    assert "is not in the store" in card.preview.fault


def test_mistakes_are_one_line(birds: Catalog, tmp_path: Path) -> None:
    def ask(out: Path) -> None:
        CliRunner().invoke(app, ["report", "birds@v1", "--out", str(out)], catch_exceptions=False)

    with pytest.raises(
        UserError, match=r"curated_samples of birds@v1\|text is not materialized; run `mm backfill birds@v1"
    ):
        ask(tmp_path / "r.html")
    assert not list(tmp_path.glob("*r.html*"))
    with pytest.raises(UserError, match="there is no folder"):
        ask(tmp_path / "none" / "r.html")
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        ask(tmp_path)


def test_a_published_version_is_seen(published: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MM_STORE", published.settings.store)
    out = tmp_path / "report.html"
    CliRunner().invoke(app, ["report", "tiny@v1", "--out", str(out)], catch_exceptions=False)
    tags = require_harmless(out.read_text("utf-8"))
    assert len([item for item in tags.of("img") if len(item["src"] or "") > 2_000]) >= 2, "two photographs"
    assert "The cat sleeps on the warm sofa" in tags.text
    assert "failures by cause: 1 truncated" in tags.text
    assert "for 1,000 published samples" in tags.text
    assert len(tags.of("line")) >= 8, "thresholds"


def test_every_kind_of_card_is_drawn(birds: Catalog) -> None:
    curated(birds, [{"sample_id": "0" * 32, "key": "a"}])
    cards = [
        Card("1", "a", None, "train", "", BlobPreview(picture="data:image/jpeg;base64,AA")),
        Card("2", "b", None, "train", "", BlobPreview(wave=(0.0, 1.0))),
        Card("3", "c", None, "train", "", BlobPreview(fault="gone")),
    ]
    both = [Card("4", "d", None, "train", "full", BlobPreview(text=HOSTILE))] * 2
    made: CellReport = replace(
        cell_report(birds, CELL, Prices()),
        sheets=[Sheet("kept", "", 3, cards)],
        similar=[Sheet("similar", "0.981", 2, both)],
        checked_vectors=7,
        histograms=[Histogram("r", "drop", "c", 1.0, 0.0, 2.0, 0.5, False, [1, 2])],
    )
    tags = require_harmless("".join(page("birds@v1", [made], ["text"], Prices())))
    assert (len(tags.of("img")), len(tags.of("svg")), len(tags.of("rect"))) == (1, 2, 2)
    assert "gone" in tags.text
    assert "Neighbours of 7 vectors" in tags.text
    assert "cosine 0.981" in tags.text
