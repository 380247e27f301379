"""Check that a cell's texts are in languages that its embedders know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_embed_kernels import sql
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.media.language import MIN_PROBABILITY
from mm_embed_kernels.modalities import Modality

LANGUAGES_KNOWN = "languages_known"
# Share of texts in unknown languages that is no cause for a warning: quotations and wrong detections.
_TOLERATED = 0.05
_READ_TEXTS = 1_000
# The embedder of most languages, and the line of a spec that chooses it.
_ADVISED = "muse"
ADVICE = f"embedders: {{text: [{_ADVISED}]}}"
_TEXTS = """
SELECT count(*) AS texts,
       count(*) FILTER (v.language NOT IN ({known}) AND v.language_confidence >= {least}) AS unknown
FROM (SELECT DISTINCT sample_id FROM embeddings WHERE embedder = {embedder})
JOIN validated v USING (sample_id)
"""


class LanguageTally:
    """Vectors and tokens of the texts in languages that an embedder does not know.

    Attributes:
        known: codes of the languages that the embedder knows.
        is_measured: whether the embedder declares languages, and the cell's samples have one.
    """

    def __init__(self, embedder: Embedder, modality: Modality) -> None:
        self.embedder, self.known = embedder, embedder.languages or ()
        has_language = any(item.name == "language_confidence" for item in modality.signals)
        self.is_measured = has_language and bool(self.known)
        self._vectors: list[np.ndarray[Any, Any]] = []
        self._inputs: list[np.ndarray[Any, Any]] = []
        self._texts: list[str] = []

    def add(self, rows: pa.Table, vectors: np.ndarray[Any, Any]) -> None:
        """Add feature rows with the columns ``language``, ``text`` and ``cache_key``, and their vectors."""
        if not self.is_measured:
            return
        known = pc.is_in(rows["language"], value_set=pa.array(self.known, pa.string()))
        places = np.flatnonzero(~np.asarray(pc.or_(known, pc.is_null(rows["language"])), np.bool_))
        # Equal up to the last digits, which depend on the batch.
        coarse = np.round(vectors[places], 3) + np.float32(0)
        keys = rows["cache_key"].take(pa.array(places)).to_pylist()
        self._vectors.append(np.array([hash(row.tobytes()) for row in coarse], np.int64))
        self._inputs.append(np.array([hash(key) for key in keys], np.int64))
        wanted = pa.array(places[: _READ_TEXTS - len(self._texts)])
        self._texts += [text for text in rows["text"].take(wanted).to_pylist() if text]

    @property
    def coincidences(self) -> int:
        """Number of different texts whose vector is that of another one."""
        if not self._vectors:
            return 0
        pairs = np.unique(np.stack([np.concatenate(self._vectors), np.concatenate(self._inputs)]), axis=1)
        _, counts = np.unique(pairs[0], return_counts=True)
        return int(counts[counts > 1].sum())

    @property
    def unread_share(self) -> float | None:
        """Share of the tokens of up to 1,000 of these texts that the embedder cannot read."""
        shares = self.embedder.unread_shares(self._texts) if self._texts else None
        return None if shares is None else float(np.mean(shares))


def language_check(run: CellRun, tallies: Iterable[LanguageTally]) -> Check:
    """Check each embedder that declares its languages; the check warns, and blocks nothing."""
    lines: list[str] = []
    figures: dict[str, float] = {}
    passed, used = True, set[str]()
    for tally in tallies:
        if not tally.is_measured:
            continue
        name, known = tally.embedder.name, sql.literals(tally.known)
        counted = sql.fetch(
            _TEXTS.format(known=known, least=MIN_PROBABILITY, embedder=sql.literal(name)),
            embeddings=run.read_all("embeddings", ["sample_id", "embedder"]),
            validated=run.read_all("validated_samples", ["sample_id", "language", "language_confidence"]),
        ).to_pylist()[0]
        used.add(name)
        texts, unknown = int(counted["texts"]), int(counted["unknown"])
        passed = passed and unknown <= _TOLERATED * texts
        figures |= {f"{name}: texts": texts, f"{name}: texts in unknown languages": unknown}
        line = f"{unknown:,} of {texts:,} texts are in languages that {name} does not know"
        if unknown:
            figures[f"{name}: coinciding vectors"] = tally.coincidences
            line += f"; the vectors of {tally.coincidences:,} coincide"
            if (share := tally.unread_share) is not None:
                figures[f"{name}: unread tokens"] = share
                line += f"; it cannot read {share:.0%} of their tokens"
        lines.append(line)
    return Check(
        LANGUAGES_KNOWN,
        passed,
        ("; ".join(lines) or "no embedder of the cell declares languages")
        + ("" if passed or _ADVISED in used else f"; `{ADVICE}` in the spec reads 16 languages"),
        figures,
        blocking=False,
    )
