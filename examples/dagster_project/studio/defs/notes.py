"""Upstream of the platform: the table that the dataset reads."""

import json
from pathlib import Path

import dagster as dg

NOTES = {
    "owls": [
        "The barn owl hunts mice over the meadow at dusk.",
        "A tawny owl calls from the oak in the night.",
        "Owls turn their heads further than any other bird.",
        "The long-eared owl sleeps in a pine by day.",
    ],
    "ducks": [
        "Mallards dabble for water plants near the bank.",
        "The tufted duck dives to the bottom of the lake.",
        "A teal rests on the pond beside the reeds.",
        "Eiders swim on the cold sea and dive for mussels.",
    ],
}


@dg.asset
def notes() -> dg.MaterializeResult:
    """Field notes, one JSON line each, beside the dataset's spec."""
    rows = [
        {"id": f"{family}-{number}", "text": text, "family": family}
        for family, texts in NOTES.items()
        for number, text in enumerate(texts)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path(__file__).with_name("birds").joinpath("notes.jsonl").write_text(lines, "utf-8")
    return dg.MaterializeResult(metadata={"dagster/row_count": len(rows)})
