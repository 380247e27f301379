"""Problems of sensors on the page of the asset `dataset_registry`, once for each state of them.

A tick's own page says what it could not read, too, and is gone with the tick.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from mm_assets.cells.asset_keys import asset_key
from mm_embed_kernels.errors import error_fingerprint, sentence_of
from mm_embed_kernels.escapes import escape_markdown, escape_terminal
from mm_embed_kernels.identity import digest
from mm_embed_kernels.messages import first_items
from mm_embed_kernels.urls import redact_text

# Problems that are named in one place, and characters of one.
_NAMED, _CHARACTERS = 20, 300


def problem_line(name: str, error: Exception) -> str:
    """Return what could not be read, and why, in one line."""
    text = sentence_of(type(error).__name__, redact_text(str(error)[: 4 * _CHARACTERS]))
    line = text if text.startswith(name) else f"{name}: {text}"
    return escape_terminal(line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}...")


def join_problems(problems: Sequence[str]) -> str:
    """Return the first problems in one line, and how many more there are."""
    return "; ".join(first_items(problems, _NAMED))


def problem_state(problems: Sequence[str]) -> str:
    """Return a digest of problems, without numbers such as seconds, which differ each time; "" for none."""
    causes = sorted(error_fingerprint("sensor", "", problem) for problem in problems)
    return digest("problems", *causes)[:16] if problems else ""


def problem_observation(sensor: str, problems: Sequence[str], next_: str) -> dg.AssetObservation:
    """Return an observation that names what a sensor could not read, or that it reads all of it again.

    Args:
        next_: what to do about it.
    """
    lines = [f"- {escape_markdown(line)}" for line in first_items(problems, _NAMED)]
    return dg.AssetObservation(
        asset_key("dataset_registry"),
        description=join_problems(problems) or f"the sensor {sensor} reads all again",
        metadata={
            "sensor": sensor,
            "unread": len(problems),
            "problems": dg.MetadataValue.md("\n".join(lines) or "all is read again"),
            **({"next": dg.MetadataValue.md(next_)} if problems else {}),
        },
    )
