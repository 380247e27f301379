"""TODO."""

from __future__ import annotations

import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field
from mm_embed_kernels.contracts.fields import HASH, SAMPLE, TIME

LINEAGE_REPORT = Contract(
    "lineage_report",
    pa.schema(
        [
            field("stage", pa.string(), "asset", required=True),
            field("samples_in", pa.int64(), "samples that reached the stage", required=True, ge=0),
            field("samples_out", pa.int64(), "samples that left it", required=True, ge=0),
            field("failed", pa.int64(), "samples that failed in it", required=True, ge=0),
            field("dropped", pa.int64(), "samples that a rule dropped in it", required=True, ge=0),
            field(
                "computed",
                pa.int64(),
                "kernel rows computed in the last run that did work",
                required=True,
                ge=0,
            ),
            field("reused", pa.int64(), "kernel rows taken from the cache in that run", required=True, ge=0),
            field("seconds", pa.float64(), "wall seconds of that run's stage", required=True, ge=0),
            field(
                "cpu_seconds",
                pa.float64(),
                "CPU seconds of that run's stage, in all processes that worked for it",
                required=True,
                ge=0,
            ),
            field("gpu_seconds", pa.float64(), "GPU seconds of that run's stage", required=True, ge=0),
            field("bytes_read", pa.int64(), "bytes of blobs and sources that it read", required=True, ge=0),
            field(
                "bytes_written",
                pa.int64(),
                "bytes of blobs, tables and cache that it wrote",
                required=True,
                ge=0,
            ),
            field(
                "peak_bytes", pa.int64(), "largest private resident memory of its processes together", ge=0
            ),
            field(
                "price",
                pa.float64(),
                "price of all that, by the deployment's price table",
                required=True,
                ge=0,
            ),
            field("data_version", pa.string(), "content-derived version of the stage"),
        ]
    ),
    key="stage",
    digest=("stage", "samples_in", "samples_out", "failed", "dropped", "data_version"),
)


FAILURES = Contract(
    "failures",
    pa.schema(
        [
            field("sample_id", pa.string(), "null for a failure of a whole source"),
            field("segment_id", pa.string(), "set when one segment failed"),
            field("embedder", pa.string(), "set when one embedder failed"),
            field("dataset", pa.string(), "name of the dataset", required=True),
            field("version", pa.string(), "version of the dataset", required=True),
            field("modality", pa.string(), "modality of the cell", required=True),
            field("stage", pa.string(), "asset in which it failed", required=True),
            field("error_class", pa.string(), "short, stable word for the cause", required=True),
            field("message", pa.string(), "one line that a person can act on", required=True),
            field("fingerprint", pa.string(), "same cause, same value", required=True),
            field("content_hash", pa.string(), "sha256 of the bytes, where they were read"),
            field("source_uri", pa.string(), "where the bytes come from"),
            field("attempt", pa.int32(), "how often it was tried", required=True, ge=1),
            field("retryable", pa.bool_(), "whether the same bytes may pass later", required=True),
            field("run_id", pa.string(), "Dagster run that recorded it", required=True),
            field("kernel_fingerprint", pa.string(), "kernel that failed"),
            field("environment", pa.string(), "environment digest that saw it", required=True),
            field("at", TIME, "when it was recorded", required=True),
        ]
    ),
    key="sample_id",
    digest=("sample_id", "segment_id", "embedder", "stage", "error_class", "fingerprint"),
)


LEDGER = Contract(
    "ledger",
    pa.schema(
        [
            field("dataset", pa.string(), "name of the dataset", required=True),
            field("version", pa.string(), "version of the dataset", required=True),
            field("modality", pa.string(), "modality of the cell", required=True),
            field("stage", pa.string(), "asset", required=True),
            field("run_id", pa.string(), "Dagster run", required=True),
            field(
                "unchanged",
                pa.bool_(),
                "whether the stage was skipped because nothing changed",
                required=True,
            ),
            field("kernel", pa.string(), "kernel that ran, if any"),
            field("fingerprint", pa.string(), "its fingerprint"),
            field("mode", pa.string(), "inline or ray"),
            field("computed", pa.int64(), "kernel rows computed", required=True, ge=0),
            field("reused", pa.int64(), "kernel rows taken from the cache", required=True, ge=0),
            field("failed", pa.int64(), "kernel rows that failed", required=True, ge=0),
            field("checkpoints", pa.int64(), "commits to the cache", required=True, ge=0),
            field("rows", pa.int64(), "rows of the stage's table", required=True, ge=0),
            field("kernel_seconds", pa.float64(), "wall seconds in the kernel", required=True, ge=0),
            field("seconds", pa.float64(), "wall seconds of the stage", required=True, ge=0),
            field("data_version", pa.string(), "content-derived version of the stage"),
            field("at", TIME, "when the stage ended", required=True),
            # Null in rows that were written before they were measured, and but for the kernels' own in all but a stage's first row.
            field("samples_in", pa.int64(), "samples that reached the stage", ge=0),
            field("samples_out", pa.int64(), "samples that left it", ge=0),
            field(
                "cpu_seconds",
                pa.float64(),
                "CPU seconds of the stage, in all processes that worked for it",
                ge=0,
            ),
            field("kernel_cpu_seconds", pa.float64(), "those of them that the kernel took", ge=0),
            field("gpu_seconds", pa.float64(), "GPU seconds of the kernel", ge=0),
            field("bytes_read", pa.int64(), "bytes of blobs and sources read", ge=0),
            field("bytes_written", pa.int64(), "bytes of blobs, tables and cache written", ge=0),
            field("bytes_transferred", pa.int64(), "bytes read from sources beyond the machine", ge=0),
            field(
                "peak_bytes",
                pa.int64(),
                "largest private resident memory of all the stage's processes together",
                ge=0,
            ),
        ]
    ),
    key="run_id",
    digest=(),
)


MARKS = Contract(
    "marks",
    pa.schema(
        [
            field("dataset", pa.string(), "name of the dataset", required=True),
            field("modality", pa.string(), "modality of the sample", required=True),
            SAMPLE,
            field(
                "content_hash",
                pa.string(),
                "the bytes that were marked, where they were read: a mark says nothing of others",
                pattern=HASH,
            ),
            field("mark", pa.string(), "keep or drop", required=True, choices=("keep", "drop")),
            field("version", pa.string(), "version of the dataset in which it was marked", required=True),
            field("origin", pa.string(), "name of the file that the mark comes from", required=True),
            field("at", TIME, "when it was recorded; the latest mark of a sample counts", required=True),
        ]
    ),
    key="sample_id",
    digest=(),
)
