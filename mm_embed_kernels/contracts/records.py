"""Contracts of records about runs: lineage, failures, the ledger and reviews."""

from __future__ import annotations

import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field
from mm_embed_kernels.contracts.fields import DATASET, HASH, SAMPLE_ID, TIME, VERSION, amount, count

_MODALITY = field("modality", pa.string(), "modality of the cell", required=True)

LINEAGE_REPORT = Contract(
    "lineage_report",
    pa.schema(
        [
            field("stage", pa.string(), "asset", required=True),
            count("samples_in", "samples that reached the stage"),
            count("samples_out", "samples that left it"),
            count("failed", "samples that failed in it"),
            count("dropped", "samples that a rule dropped in it"),
            count("computed", "kernel rows computed in the last run that did work"),
            count("reused", "kernel rows taken from the cache in that run"),
            amount("seconds", "wall seconds of that run's stage"),
            amount("cpu_seconds", "CPU seconds of that run's stage, in all processes that worked for it"),
            amount("gpu_seconds", "GPU seconds of that run's stage"),
            count("bytes_read", "bytes of blobs and sources that it read"),
            count("bytes_written", "bytes of blobs, tables and cache that it wrote"),
            count("peak_bytes", "largest private resident memory of its processes together", required=False),
            amount("price", "price of all that, by the deployment's price table"),
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
            DATASET,
            VERSION,
            _MODALITY,
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
            DATASET,
            VERSION,
            _MODALITY,
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
            count("computed", "kernel rows computed"),
            count("reused", "kernel rows taken from the cache"),
            count("failed", "kernel rows that failed"),
            count("checkpoints", "commits to the cache"),
            count("rows", "rows of the stage's table"),
            amount("kernel_seconds", "wall seconds in the kernel"),
            amount("seconds", "wall seconds of the stage"),
            field("data_version", pa.string(), "content-derived version of the stage"),
            field("at", TIME, "when the stage ended", required=True),
            # Null in rows older than the column. A stage has a row for each of its kernels: its own figures
            # are set in the first alone, kernel_cpu_seconds and gpu_seconds in each.
            count("samples_in", "samples that reached the stage", required=False),
            count("samples_out", "samples that left it", required=False),
            amount(
                "cpu_seconds", "CPU seconds of the stage, in all processes that worked for it", required=False
            ),
            amount("kernel_cpu_seconds", "those of them that the kernel took", required=False),
            amount("gpu_seconds", "GPU seconds of the kernel", required=False),
            count("bytes_read", "bytes of blobs and sources read", required=False),
            count("bytes_written", "bytes of blobs, tables and cache written", required=False),
            count("bytes_transferred", "bytes read from sources beyond the machine", required=False),
            count(
                "peak_bytes",
                "largest private resident memory of all the stage's processes together",
                required=False,
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
            DATASET,
            field("modality", pa.string(), "modality of the sample", required=True),
            SAMPLE_ID,
            field(
                "content_hash",
                pa.string(),
                "the bytes that were marked, where they were read: a mark says nothing of others",
                pattern=HASH,
            ),
            field(
                "mark",
                pa.string(),
                "keep or drop; label: only a label was given",
                required=True,
                choices=("keep", "drop", "label"),
            ),
            field("version", pa.string(), "version of the dataset in which it was marked", required=True),
            field("origin", pa.string(), "name of the file that the mark comes from", required=True),
            field("at", TIME, "when it was recorded; the latest mark of a sample counts", required=True),
            field("label", pa.string(), "label that a person gave; empty where it was taken away"),
        ]
    ),
    key="sample_id",
    digest=(),
)

PICKS = Contract(
    "picks",
    pa.schema(
        [
            field("pick", pa.string(), "name of the pick", required=True),
            DATASET,
            VERSION,
            _MODALITY,
            SAMPLE_ID,
            field(
                "rank", pa.int32(), "place in the pick, from 1; of each label by itself", required=True, ge=1
            ),
            field("method", pa.string(), "diversity, coverage, typicality or random", required=True),
            field("value", pa.float64(), "what the method measured of it, see `mm pick`", required=True),
            field("stands_for", pa.float64(), "samples that are nearest to it, by estimate", required=True),
            field("stratum", pa.string(), "digest of the label whose quota it fills; null without quotas"),
            field("reason", pa.string(), "method, value and quota in words", required=True),
            field("pin", pa.int32(), "number of the published pin whose vectors were read", required=True),
            field("at", TIME, "when it was picked", required=True),
        ]
    ),
    key="sample_id",
    digest=("pick", "sample_id", "rank", "method"),
)
