"""Normalization: the shared feature rows of all modalities, each with a checked vector."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mm_assets.cells.cached_vectors import open_vectors, open_vectors_of
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, embedder_inputs, embedder_rules
from mm_assets.cells.checks import Check
from mm_assets.cells.language_check import LANGUAGES_KNOWN, LanguageTally, language_check
from mm_assets.cells.row_inputs import RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.contracts.fields import MEDIA, current_times
from mm_embed_kernels.embedders import Embedder
from mm_resources.tables.stage_writer import WrittenRows

NORM_TOLERANCE = 1e-3

_ROWS = """
SELECT e.feature_id, e.segment_id, e.sample_id, c.entity_id, e.content_hash, c.source_uri, c.key, e.span,
       e.embedder, e.fingerprint, c.label, c.split, c.quality_score, c.passed, c.duplicate_group,
       coalesce(s.text, c.transcript) AS text, c.mime, c.width, c.height, c.duration, c.sample_rate,
       c.language, c.captured_at, e.cache_key, v._rowid AS row_id,
       f.sample_id IS NOT NULL AS partial
FROM embeddings e
JOIN segments s USING (segment_id)
JOIN curated c ON e.sample_id = c.sample_id
JOIN vectors v ON e.cache_key = v.key
LEFT JOIN (SELECT DISTINCT sample_id FROM answers WHERE status = 'failed') f ON e.sample_id = f.sample_id
WHERE e.status = 'ok' AND e.embedder = {embedder} ORDER BY row_id, e.feature_id
"""
_FEW_KEYS = 100_000
_UNKNOWN_KEYS = f"""
SELECT DISTINCT cache_key AS key FROM rows
WHERE embedder = {{embedder}} AND language NOT IN ({{known}}) LIMIT {_FEW_KEYS + 1}
"""
_UNKNOWN = """
SELECT r.cache_key, r.language, r.text, v._rowid AS row_id FROM rows r JOIN vectors v ON r.cache_key = v.key
WHERE r.embedder = {embedder} AND r.language NOT IN ({known}) ORDER BY r.feature_id
"""
# Columns of a sample; without decisions and duplicates, which take more memory than all others.
_CURATED = [
    *(
        "sample_id",
        "entity_id",
        "source_uri",
        "key",
        "label",
        "split",
        "quality_score",
        "passed",
        "duplicate_group",
        "transcript",
    ),
    *(item.name for item in MEDIA),
]


@cell_asset(
    group="3_embed",
    deps=["curated_samples", "segments", "embeddings"],
    kinds=["lance", "pandera"],
    checks=[("vectors_sound", True), (LANGUAGES_KNOWN, False)],
    requires_models=True,
    extra_inputs=embedder_inputs,
    row_inputs=RowInputs(
        {
            "embeddings": columns_of("embeddings", "seconds"),
            "segments": ("segment_id", "sample_id", "text"),
            "curated_samples": tuple(_CURATED),
        },
        embedder_rules,
    ),
)
def normalized_features(run: CellRun) -> StageOutput:
    """The shared feature rows of all modalities without their vectors, which are checked and referenced."""
    counts = {"features": 0, "unsound": 0}
    written = run.write(table for embedder in run.embedders for table in _check_norms(run, embedder, counts))
    counts["features"] = written.rows
    tallies = [_tally_languages(run, written, embedder) for embedder in run.embedders]
    return StageOutput(
        written,
        counts,
        [
            Check(
                "vectors_sound",
                not counts["unsound"],
                f"{counts['unsound']:,} vectors are not finite, of unit norm and of the declared dimension"
                if counts["unsound"]
                else "all vectors are finite, of unit norm and of the declared dimension",
                dict(counts),
                blocking=False,
            ),
            language_check(run, tallies),
        ],
    )


def _rows(run: CellRun, embedder: Embedder) -> Iterator[pa.Table]:
    """Yield one embedder's feature rows with their vectors."""
    vectors = open_vectors(run, embedder)
    rows = run.query_tables(
        _ROWS.format(embedder=sql.literal(embedder.name)),
        embeddings=run.read("embeddings"),
        segments=run.read("segments", ["segment_id", "text"]),
        curated=run.read("curated_samples", _CURATED),
        vectors=vectors.row_ids(),
        answers=run.read("embeddings", ["sample_id", "status"]),
    )
    return vectors.attach(rows, embedder.dimension)


def _tally_languages(run: CellRun, written: WrittenRows, embedder: Embedder) -> LanguageTally:
    """Tally the texts in languages that an embedder does not know, which are few, with their vectors."""
    tally = LanguageTally(embedder, run.modality)
    if not tally.is_measured:
        return tally
    chosen = {"embedder": sql.literal(embedder.name), "known": sql.literals(tally.known)}
    keys = sql.fetch(
        _UNKNOWN_KEYS.format(**chosen), rows=run.read_written(written, ["cache_key", "language", "embedder"])
    )["key"].combine_chunks()
    if len(keys):
        # Of many keys, all vectors' keys are read instead.
        vectors = open_vectors_of(run, embedder, keys, _FEW_KEYS)
        columns = ["feature_id", "cache_key", "language", "text", "embedder"]
        rows = run.query_tables(
            _UNKNOWN.format(**chosen), rows=run.read_written(written, columns), vectors=vectors.row_ids()
        )
        for table in vectors.attach(rows, embedder.dimension):
            tally.add(table, vectors_of(table))
    return tally


def _check_norms(run: CellRun, embedder: Embedder, counts: dict[str, int]) -> Iterator[pa.Table]:
    """Yield the rows with a valid vector, without it; record a failure for each of the others."""
    events = run.new_failure_spill()
    shared = {
        "dataset": run.cell.dataset,
        "version": run.cell.version,
        "modality": run.cell.modality,
        "weights_hash": embedder.weights_hash,
        "preprocessing": json.dumps(embedder.preprocessing, sort_keys=True),
        "run_id": run.run_id,
    }
    for table in _rows(run, embedder):
        vectors = vectors_of(table)
        with np.errstate(invalid="ignore", over="ignore"):
            sound = np.abs(np.linalg.norm(vectors, axis=1) - 1) < NORM_TOLERANCE
        if vectors.shape[1] != embedder.dimension:
            sound[:] = False
        counts["unsound"] += int((~sound).sum())
        bare = table.drop(["vector"])
        bad = bare.filter(pa.array(~sound)).to_pylist()
        events += [
            {
                **row,
                "error_class": "bad_vector",
                "message": "the cached vector is not finite, of unit norm and of the declared dimension",
            }
            for row in bad
        ]
        good = bare.filter(pa.array(sound))
        for name, value in shared.items():
            good = good.append_column(name, pa.array([value] * good.num_rows, pa.string()))
        yield good.append_column("created_at", current_times(good.num_rows))
