"""Page of the JSON that commands print, from the shapes that the tests compare with their output."""

from __future__ import annotations

import json

from reference_pages.markdown import generated_page
from tests.assets.cli.shapes import SHAPES


def page() -> str:
    """Return the page: a block of JSON for each command, with types in place of values."""
    parts = [
        "Commands that take `--json` print one JSON value on stdout. A type stands in place of each value; "
        "`?` marks one that may be null, and a key that may be absent; `any` is any value, also null; "
        "`NAME` is any key; a list shows its element once.",
    ]
    for command, shape in SHAPES.items():
        parts += [f"## mm {command}", f"```json\n{json.dumps(shape, indent=2)}\n```"]
    return generated_page("JSON output", "the shapes in `tests/assets/cli/shapes.py`", *parts)
