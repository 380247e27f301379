"""The Arrow schema of every boundary, in the order of the graph."""

from __future__ import annotations

import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field

TIME = pa.timestamp("us", tz="UTC")
HASH = r"^[0-9a-f]{64}$"
ID = r"^[0-9a-f]{32}$"

_SAMPLE = field("sample_id", pa.string(), "hash of dataset, source and key; stable across versions", required=True, pattern=ID)
_CONTENT = field("content_hash", pa.string(), "sha256 of the bytes, hex", required=True, pattern=HASH)
_KEY = field("key", pa.string(), "the sample's key inside its source", required=True)
_URI = field("source_uri", pa.string(), "where the bytes come from", required=True)
_ENTITY = field("entity_id", pa.string(), "joins the modalities of one thing", required=True, pattern=ID)

# Columns that travel with a sample from the listing to the feature row.
PASSENGERS = [
    _ENTITY,
    _KEY,
    _URI,
    field("source", pa.string(), "name of the source in the spec", required=True),
    field("label", pa.string(), "the label, if the source has one"),
    field("group", pa.string(), "declared split group; samples of one group never straddle splits"),
    field("transcript", pa.string(), "text that the source gives for the sample"),
]

# Measured by every probe, for every modality; a modality adds its own signals.
MEDIA = [
    field("mime", pa.string(), "media type decided by content", required=True),
    field("width", pa.int32(), "pixels", ge=1),
    field("height", pa.int32(), "pixels", ge=1),
    field("duration", pa.float64(), "seconds", ge=0),
    field("sample_rate", pa.int32(), "Hz", ge=1),
    field("language", pa.string(), "ISO 639-1 code of the text or speech"),
    field("captured_at", TIME, "timestamp that the medium itself carries"),
]

DATASET_REGISTRY = Contract(
    "dataset_registry",
    pa.schema(
        [
            _SAMPLE,
            *PASSENGERS,
            field("locator", pa.string(), "where inside the source URI the sample lies; opaque to all but its source"),
            field("tag", pa.string(), "etag, or size and mtime, of the source URI when it was listed"),
            field("size", pa.int64(), "bytes, as listed", ge=0),
            field("modified_at", TIME, "mtime, as listed"),
            field("error_class", pa.string(), "set where the listing itself refuses the sample"),
            field("message", pa.string(), "why the listing refuses it"),
        ]
    ),
    key="sample_id",
    digest=("sample_id", "entity_id", "key", "source_uri", "label", "group", "transcript", "locator", "tag", "error_class"),
)

RAW_ASSETS = Contract(
    "raw_assets",
    pa.schema(
        [
            _SAMPLE,
            *PASSENGERS,
            field("status", pa.string(), "fetched or failed", required=True, choices=("fetched", "failed")),
            field("content_hash", pa.string(), "sha256 of the bytes, hex; null when the fetch failed", pattern=HASH),
            field("size", pa.int64(), "bytes read", ge=0),
            field("tag", pa.string(), "etag, or size and mtime, as listed"),
            field("modified_at", TIME, "mtime, as listed"),
        ]
    ),
    key="sample_id",
    digest=("sample_id", "entity_id", "key", "source_uri", "label", "group", "transcript", "status", "content_hash"),
)

CONTENT_BLOBS = Contract(
    "content_blobs",
    pa.schema(
        [
            _CONTENT,
            field("size", pa.int64(), "bytes", required=True, ge=0),
            field("refcount", pa.int64(), "samples of this cell that reference the blob", required=True, ge=1),
            field(
                "path", pa.string(), "object or pack below the store root; source:URI#TAG of one that stays in its source", required=True
            ),
            field("offset", pa.int64(), "first byte inside the object", required=True, ge=0),
            field("verified_at", TIME, "when the stored object was last seen to hold these bytes", required=True),
        ]
    ),
    key="content_hash",
    digest=("content_hash", "size", "refcount"),
)

SAMPLE_METADATA = Contract(
    "sample_metadata",
    pa.schema(
        [
            _SAMPLE,
            *PASSENGERS,
            field("content_hash", pa.string(), "sha256 of the bytes, hex", required=True, pattern=HASH),
            field("size", pa.int64(), "bytes", required=True, ge=0),
            field("modified_at", TIME, "mtime, as listed"),
            field("probe", pa.string(), "ok or failed", required=True, choices=("ok", "failed")),
            field("error_class", pa.string(), "cause, when the probe failed"),
            field("message", pa.string(), "one line, when the probe failed"),
            field("retryable", pa.bool_(), "whether the same bytes may pass later"),
            # Nullable here: a failed probe measures nothing. The validation contract requires them.
            *[pa.field(item.name, item.type, metadata=item.metadata) for item in MEDIA],
        ]
    ),
    key="sample_id",
    digest=("sample_id", "content_hash", "probe", "error_class", "mime", "label", "group", "entity_id"),
)

VALIDATED_SAMPLES = Contract(
    "validated_samples",
    pa.schema(
        [
            _SAMPLE,
            *PASSENGERS,
            _CONTENT,
            field("size", pa.int64(), "bytes", required=True, ge=0),
            field("modified_at", TIME, "mtime, as listed"),
            *MEDIA,
        ]
    ),
    key="sample_id",
    digest=("sample_id", "content_hash", "mime", "label", "group", "entity_id"),
)

RULE_DECISION = pa.struct(
    [
        ("rule", pa.string()),
        ("version", pa.string()),
        ("passed", pa.bool_()),
        ("action", pa.string()),
        ("value", pa.string()),
        ("threshold", pa.string()),
        ("reason", pa.string()),
    ]
)
DUPLICATE = pa.struct([("of", pa.string()), ("kind", pa.string()), ("score", pa.float64()), ("span", pa.string())])

CURATED_SAMPLES = Contract(
    "curated_samples",
    pa.schema(
        [
            _SAMPLE,
            *PASSENGERS,
            _CONTENT,
            *MEDIA,
            field("kept", pa.bool_(), "whether the sample goes on to be embedded", required=True),
            field("rule", pa.string(), "the first rule that dropped it"),
            field("reason", pa.string(), "what that rule measured, against which threshold"),
            field("rules", pa.list_(RULE_DECISION), "every rule's decision, value and threshold"),
            field("passed", pa.list_(pa.string()), "ids of the rules that the sample passed"),
            field("quality_score", pa.float64(), "share of rules passed", required=True, ge=0, le=1),
            field("duplicate_group", pa.string(), "group of equal or near-equal samples"),
            field("duplicates", pa.list_(DUPLICATE), "evidence: of which sample, kind, score, span"),
            field("split_group", pa.string(), "what is hashed into a split", required=True),
            field("split", pa.string(), "train, validation, test, or as the spec names them", required=True),
        ]
    ),
    key="sample_id",
    digest=("sample_id", "content_hash", "kept", "rule", "passed", "duplicate_group", "split_group", "split", "label", "entity_id", "mime"),
)

SEGMENTS = Contract(
    "segments",
    pa.schema(
        [
            field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
            _SAMPLE,
            _CONTENT,
            field("span", pa.string(), "place inside the blob, e.g. full or chars=0-812", required=True),
            field("text", pa.string(), "the segment's text, where it is text"),
            field("cost", pa.int64(), "work units by which shards are balanced (characters, pixels, samples)", required=True, ge=0),
            field("shard", pa.int32(), "which worker batch the segment is planned into", required=True, ge=0),
        ]
    ),
    key="segment_id",
    digest=("segment_id", "sample_id", "content_hash", "span"),
)

EMBEDDINGS = Contract(
    "embeddings",
    pa.schema(
        [
            field("feature_id", pa.string(), "hash of segment and embedder fingerprint", required=True, pattern=ID),
            field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
            _SAMPLE,
            _CONTENT,
            field("span", pa.string(), "place inside the blob", required=True),
            field("embedder", pa.string(), "name of the embedder", required=True),
            field("fingerprint", pa.string(), "embedder fingerprint", required=True, pattern=HASH),
            field("cache_key", pa.string(), "where the vector lies in the compute cache", required=True),
            field("status", pa.string(), "ok or failed", required=True, choices=("ok", "failed")),
            field("seconds", pa.float64(), "wall seconds that the vector cost when it was computed", ge=0),
        ]
    ),
    key="feature_id",
    digest=("feature_id", "segment_id", "status", "cache_key"),
)

FEATURE = [
    field("feature_id", pa.string(), "hash of segment and embedder fingerprint", required=True, pattern=ID),
    field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
    _SAMPLE,
    _ENTITY,
    field("dataset", pa.string(), "name of the dataset", required=True),
    field("version", pa.string(), "version of the dataset", required=True),
    field("modality", pa.string(), "text, image, video, audio ...", required=True),
    _CONTENT,
    _URI,
    _KEY,
    field("span", pa.string(), "place inside the blob", required=True),
    field("embedder", pa.string(), "name of the embedder", required=True),
    field("fingerprint", pa.string(), "embedder fingerprint", required=True, pattern=HASH),
    field("weights_hash", pa.string(), "sha256 over the weight files", required=True),
    field("preprocessing", pa.string(), "the embedder's preprocessing, as JSON", required=True),
    field("label", pa.string(), "the label, if there is one"),
    field("split", pa.string(), "train, validation, test ...", required=True),
    field("quality_score", pa.float64(), "share of rules passed", required=True, ge=0, le=1),
    field("passed", pa.list_(pa.string()), "ids of the rules that the sample passed"),
    field("duplicate_group", pa.string(), "group of equal or near-equal samples"),
    field("partial", pa.bool_(), "whether other segments or embedders of the sample failed", required=True),
    field("text", pa.string(), "text or transcript, where there is one"),
    *MEDIA,
    field("run_id", pa.string(), "Dagster run that published the row", required=True),
    field("created_at", TIME, "when the row was made", required=True),
]

# What a feature table holds beside its vectors and the user's columns.
FEATURES = Contract("features", pa.schema(FEATURE), key="feature_id", digest=("feature_id",))

NORMALIZED_FEATURES = Contract(
    "normalized_features",
    pa.schema([*FEATURE, field("cache_key", pa.string(), "where the checked vector lies", required=True)]),
    key="feature_id",
    digest=("feature_id", "label", "split", "passed", "duplicate_group", "partial", "text", "content_hash", "source_uri", "entity_id"),
)


def feature_contract(dimension: int, extra: list[pa.Field]) -> Contract:
    """The feature table's contract: the shared feature row plus its unit-norm vector and the user's columns."""
    vector = field("vector", pa.list_(pa.float32(), dimension), "unit-norm embedding", required=True)
    return Contract("feature_table", pa.schema([*FEATURE, vector]), "feature_id", ("feature_id",)).extend(extra)


_TABLE = [
    field("embedder", pa.string(), "name of the embedder", required=True),
    field("fingerprint", pa.string(), "embedder fingerprint", required=True),
    field("primary", pa.bool_(), "whether publishing counts on this embedder", required=True),
    field("table", pa.string(), "LanceDB table below features/", required=True),
    field("lance_version", pa.int64(), "Lance version of the table", required=True, ge=1),
    field("rows", pa.int64(), "feature rows", required=True, ge=0),
    field("dimension", pa.int32(), "vector dimension", required=True, ge=1),
    field("space", pa.string(), "vectors of one space can be compared", required=True),
    field("index", pa.string(), "exact, or the type of the vector index", required=True),
    field("digest", pa.string(), "digest over the rows, without the vectors", required=True),
]

FEATURE_TABLE = Contract(
    "feature_table", pa.schema(_TABLE), key="embedder", digest=("embedder", "fingerprint", "table", "rows", "index", "digest")
)

FEATURE_VIEWS = Contract(
    "feature_views",
    pa.schema(
        [
            *_TABLE,
            field("recall", pa.float64(), "recall@10 of the index against exact search on the table's own vectors", ge=0, le=1),
            field("recall_filtered", pa.float64(), "the same under a filter that one row in a hundred meets", ge=0, le=1),
            field("tag", pa.string(), "Lance tag that keeps the version", required=True),
            field("pin", pa.int64(), "number of the pin that readers resolve", required=True, ge=1),
            field("published_at", TIME, "when the pin was written", required=True),
        ]
    ),
    key="embedder",
    digest=("embedder", "fingerprint", "table", "rows", "index", "digest"),
)

LINEAGE_REPORT = Contract(
    "lineage_report",
    pa.schema(
        [
            field("stage", pa.string(), "asset", required=True),
            field("samples_in", pa.int64(), "samples that reached the stage", required=True, ge=0),
            field("samples_out", pa.int64(), "samples that left it", required=True, ge=0),
            field("failed", pa.int64(), "samples that failed in it", required=True, ge=0),
            field("dropped", pa.int64(), "samples that a rule dropped in it", required=True, ge=0),
            field("computed", pa.int64(), "kernel rows computed in the last run that did work", required=True, ge=0),
            field("reused", pa.int64(), "kernel rows taken from the cache in that run", required=True, ge=0),
            field("seconds", pa.float64(), "wall seconds of that run's stage", required=True, ge=0),
            field("cpu_seconds", pa.float64(), "CPU seconds of that run's stage, in all processes that worked for it", required=True, ge=0),
            field("gpu_seconds", pa.float64(), "GPU seconds of that run's stage", required=True, ge=0),
            field("bytes_read", pa.int64(), "bytes of blobs and sources that it read", required=True, ge=0),
            field("bytes_written", pa.int64(), "bytes of blobs, tables and cache that it wrote", required=True, ge=0),
            field("peak_bytes", pa.int64(), "largest private resident memory of its processes together", ge=0),
            field("price", pa.float64(), "price of all that, by the deployment's price table", required=True, ge=0),
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
            field("unchanged", pa.bool_(), "whether the stage was skipped because nothing changed", required=True),
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
            field("cpu_seconds", pa.float64(), "CPU seconds of the stage, in all processes that worked for it", ge=0),
            field("kernel_cpu_seconds", pa.float64(), "those of them that the kernel took", ge=0),
            field("gpu_seconds", pa.float64(), "GPU seconds of the kernel", ge=0),
            field("bytes_read", pa.int64(), "bytes of blobs and sources read", ge=0),
            field("bytes_written", pa.int64(), "bytes of blobs, tables and cache written", ge=0),
            field("bytes_transferred", pa.int64(), "bytes read from sources beyond the machine", ge=0),
            field("peak_bytes", pa.int64(), "largest private resident memory of all the stage's processes together", ge=0),
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
            _SAMPLE,
            field(
                "content_hash", pa.string(), "the bytes that were marked, where they were read: a mark says nothing of others", pattern=HASH
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
