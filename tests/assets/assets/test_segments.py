from __future__ import annotations

import pyarrow as pa

from mm_assets.assets.segments import SHARD_SEGMENTS, _segment_rows
from mm_embed_kernels.contracts import SEGMENTS
from mm_embed_kernels.identity import segment_id
from mm_embed_kernels.kernels.segment import SPAN

SAMPLES = pa.schema(
    [
        *((name, pa.string()) for name in ("sample_id", "content_hash", "transcript")),
        ("segments", pa.list_(SPAN)),
    ]
)


def test_a_row_for_each_segment() -> None:
    """What the source says of a sample is the text of one that is not cut, unless it has a text of its own."""
    spans = {"whole": [None], "cut": [None, None], "written": ["own"], "empty": [""], "none": []}
    rows = [
        {
            "sample_id": name,
            "content_hash": f"hash of {name}",
            "transcript": "given",
            "segments": [
                {"span": f"{place}", "text": text, "cost": place + 1} for place, text in enumerate(texts)
            ],
        }
        for name, texts in spans.items()
    ]
    found = SEGMENTS.cast(_segment_rows(pa.Table.from_pylist(rows, SAMPLES), SHARD_SEGMENTS - 2)).to_pylist()
    assert [(row["sample_id"], row["span"], row["text"], row["cost"], row["shard"]) for row in found] == [
        ("whole", "0", "given", 1, 0),
        ("cut", "0", None, 1, 0),
        ("cut", "1", None, 2, 1),
        ("written", "0", "own", 1, 1),
        ("empty", "0", "given", 1, 1),
    ]
    assert [row["segment_id"] for row in found] == [
        segment_id(row["sample_id"], row["span"]) for row in found
    ]
    assert {row["content_hash"] for row in found} == {
        "hash of whole",
        "hash of cut",
        "hash of written",
        "hash of empty",
    }
    assert _segment_rows(SAMPLES.empty_table(), 0).num_rows == 0
