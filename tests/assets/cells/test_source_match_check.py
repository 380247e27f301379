"""The check of rows, files and links that belong to nothing."""

from __future__ import annotations

import json
from pathlib import Path

from mm_assets.cells.source_match_check import MATCHED, sources_matched
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import Store
from tests.resources.specs import freeze, spec_of


def test_what_belongs_to_nothing_is_counted_and_named(tmp_path: Path) -> None:
    registry = Registry(Store(str(tmp_path / "store")))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "meta.csv").write_text("file,label,link\na.txt,x,b.txt\ngone.txt,y,\n")
    table = {"uri": str(tmp_path / "meta.csv"), "key": "file", "columns": ["label", "link"]}
    spec = spec_of({"uri": f"{tmp_path}/*.txt", "table": table})
    freeze(registry, spec)
    check = sources_matched(registry, spec, "text")
    assert not check.passed
    assert not check.blocking
    assert check.description == (
        "source s0: 1 rows without a file ('gone.txt'); source s0: 1 files without a row ('b.txt')"
    )
    assert check.figures == {"rows without a file": 1, "files without a row": 1, "links to no sample": 0}
    (tmp_path / "notes.jsonl").write_text(json.dumps({"text": "t", "link": "c.txt"}))
    record = {"text": "text", "link": "link"}
    other = spec_of({"uri": f"{tmp_path}/notes.jsonl", "record": record}, version="v2")
    freeze(registry, other)
    told = sources_matched(registry, other, "text").description
    assert told == "1 of 1 links name no sample ('c.txt')"
    whole = spec_of({"uri": f"{tmp_path}/*.txt"}, version="v3")
    freeze(registry, whole)
    assert sources_matched(registry, whole, "text").description == MATCHED
    part = spec_of({"uri": f"{tmp_path}/a*.txt"}, version="v4")
    freeze(registry, part)
    check = sources_matched(registry, part, "text")
    assert check.passed
    assert check.figures == {"files of no source": 1}
    assert "1 files look like text samples and match no source" in check.description
