"""Shapes of the JSON that commands print; `test_shapes.py` compares them, and the docs show them.

A word stands for a value of that type: text, int, float (also an integer), bool, time (text in ISO 8601), any
(also null). ``?`` after it: or null. A key that ends in ``?`` may be absent. The key ``NAME`` stands for any keys. A list
has the shape of its elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_NAME = "NAME"
_CELL_RESULT = {
    "modality": "text",
    "status": "text",
    "run_id": "text",
    "computed": {"NAME": "int"},
    "reused": {"NAME": "int"},
    "seconds": "float",
    "reason?": "text",
    "notes?": ["text"],
}
_FAILURE = {
    "sample_id": "text",
    "modality": "text",
    "stage": "text",
    "error_class": "text",
    "message": "text",
    "fingerprint": "text",
    "content_hash": "text?",
    "source_uri": "text",
    "attempt": "int",
    "retryable": "bool",
    "run_id": "text",
    "at": "time",
}
_PRICES = {
    "currency": "text",
    "cpu_hour": "float",
    "gpu_hour": "float",
    "gb_month": "float",
    "gb_read": "float",
    "gb_written": "float",
    "gb_transferred": "float",
}
_SAVINGS = {"count": "int", "seconds": "float", "price": "float"}
_ERROR_CLASS = {"name": "text", "meaning": "text", "transient": "bool", "action": "text"}

SHAPES: dict[str, Any] = {
    "init": {
        "spec": "text",
        "dataset_version": "text",
        "found": {"NAME": "int"},
        "skipped": {"NAME": "text"},
        "left_out": {"NAME": ["text"]},
    },
    "register": {
        "dataset_version": "text",
        "new": "bool",
        "modalities": ["text"],
        "by_content?": "bool",
        "proposed_parent?": "text",
        "parent?": "text",
        "spec?": "text?",
    },
    "unregister": {"dataset_version": "text", "modalities": ["text"]},
    "datasets": [{"dataset_version": "text", "published": "any"}],
    "backfill": {"dataset_version": "text", "cells": [_CELL_RESULT]},
    "backfill --plan": {
        "dataset_version": "text",
        "cells": [
            {
                "modality": "text",
                "computed": {"NAME": "int"},
                "reused": {"NAME": "int"},
                "seconds": "float",
                "price": "float",
                "currency": "text",
            }
        ],
    },
    "curate": {
        "dataset_version": "text",
        "what_if": {"NAME": {"NAME": "any"}},
        "currency": "text",
        "cells": [
            {
                "modality": "text",
                "samples": "int",
                "kept_now": "int",
                "kept_then": "int",
                "moves": [
                    {
                        "rule": "text",
                        "failing_now": "int",
                        "failing_then": "int",
                        "kept_to_dropped": "int",
                        "dropped_to_kept": "int",
                    }
                ],
                "seconds": "float",
                "price": "float",
            }
        ],
    },
    "label": {
        "dataset_version": "text",
        "recorded": "int",
        "unknown": "int",
        "unknown_lines": ["text"],
        "cells": [
            {
                "modality": "text",
                "scores": [
                    {
                        "kind": "text",
                        "name": "text",
                        "action": "text",
                        "marked": "int",
                        "caught": "int",
                        "wrong": "int",
                        "missed": "int",
                        "precision": "float?",
                        "recall": "float?",
                    }
                ],
            }
        ],
    },
    "cost": {
        "dataset_version": "text",
        "prices": _PRICES,
        "cells": [
            {
                "modality": "text",
                "stages": [{"NAME": "any"}],
                "runs": [{"NAME": "any"}],
                "published": "int",
                "price": "float",
                "per_1000_published": "float?",
                "stored_bytes": "int",
                "stored_month": "float",
                "per_kept_sample": "float",
                "by_rule": {"NAME": _SAVINGS},
                "deduplication": _SAVINGS,
                "same_bytes": _SAVINGS,
                "cache": {"NAME": _SAVINGS},
            }
        ],
        "total": {
            "price": "float",
            "published": "int",
            "per_1000_published": "float?",
            "stored_bytes": "int",
            "stored_month": "float",
            "avoided": "float",
        },
    },
    "report": {"dataset_version": "text", "path": "text", "bytes": "int"},
    "failures": [_FAILURE],
    "failures --classes": [_ERROR_CLASS],
    "failures --suggest": {
        "dataset_version": "text",
        "causes": [
            {
                "modality": "text",
                "stage": "text",
                "error_class": "text",
                "fingerprints": ["text"],
                "samples": "int",
                "rule": "any",
            }
        ],
        "validation": {"NAME": {"NAME": {"NAME": "any"}}},
    },
    "redrive": {
        "dataset_version": "text",
        "cells": [{**_CELL_RESULT, "tried": "int", "passed": "int", "failed": "int"}],
    },
    "status": {
        "dataset_version": "text",
        "cells": [
            {
                "modality": "text",
                "discovered": "int",
                "ingested": "int",
                "valid": "int",
                "kept": "int",
                "segments": "int",
                "features": "int",
                "published": "int",
                "dropped": "int",
                "failed": "int",
                "undecided": "int",
                "failures": {"NAME": "int"},
                "data_version": "text?",
                "published_at": "time?",
                "gates": [
                    {
                        "stage": "text",
                        "name": "text",
                        "passed": "bool",
                        "blocking": "bool",
                        "waived": "bool",
                        "description": "text",
                        "figures": {"NAME": "any"},
                    }
                ],
                "overrides": [{"stage": "text", "name": "text", "description": "text"}],
                "blocked?": "text",
                "override?": "text",
            }
        ],
        "drift": [
            {
                "source": "text",
                "added": "int",
                "removed": "int",
                "altered": "int",
                "names": {"NAME": ["text"]},
                "problem": "text",
                "state": "text",
                "looked_at": "text",
                "since": "text",
            }
        ],
        "drift_summary": "text",
    },
    "search": [
        {
            "feature_id": "text",
            "sample_id": "text",
            "segment_id": "text",
            "entity_id": "text",
            "content_hash": "text",
            "source_uri": "text",
            "dataset_version": "text",
            "modality": "text",
            "label": "text?",
            "split": "text?",
            "score": "float",
            "span": "text",
        }
    ],
    "explain": {"NAME": "any"},
    "try": {
        "embedder": "text",
        "current": "text",
        "sample": "int",
        "computed": "int",
        "failed": "int",
        "seconds_per_segment": "float?",
        "cell_segments": "int",
        "cell_seconds": "float?",
        "overlap": "float",
        "neighbours": [{"of": "text", "current": ["text"], "tried": ["text"]}],
    },
    "diff": {
        "from": "text",
        "to": "text",
        "cells": [
            {
                "modality": "text",
                "added": "int",
                "removed": "int",
                "altered": "int",
                "moved": "int",
                "same": "int",
                "decisions": [{"from": "text", "to": "text", "samples": "int", "examples": ["text"]}],
                "resplit": "int",
                "relabelled": "int",
                "examples": {"NAME": ["text"]},
                "vectors": {"shared": "int", "before": "int", "after": "int", "centroid_cosine": "float?"},
            }
        ],
    },
    "promote": {
        "number": "int",
        "dataset": "text",
        "alias": "text",
        "version": "text",
        "pins": {"NAME": "int"},
        "moved_at": "time",
        "checks": [{"NAME": "any"}],
        "reason": "text",
    },
    "sql": [{"NAME": "any"}],
    "pick": {
        "dataset_version": "text",
        "modality": "text",
        "by": "text",
        "name": "text",
        "samples": "int",
        "picked": "int",
        "labels": {"NAME": "int"},
        "distance": "float",
        "largest_distance": "float",
        "random_distance": "float",
        "random_largest_distance": "float",
    },
    "trace": {
        "digest": "text",
        "rows": "int",
        "sets": [
            {
                "recorded_at": "time?",
                "dataset_version": "text",
                "where": ["any"],
                "weights": "any",
                "is_redacted": "bool",
                "tables": [
                    {
                        "dataset_version": "text",
                        "modality": "text",
                        "pin": "int",
                        "run_id": "text?",
                        "published_at": "time?",
                        "embedder": "text?",
                        "weights_hash": "text?",
                        "fingerprint": "text?",
                        "table": "text",
                        "lance_version": "int",
                    }
                ],
            }
        ],
        "samples": [{"NAME": "any"}],
    },
    "forgotten": [
        {
            "export": "text",
            "file": "text",
            "feature_id": "text",
            "sample_id": "text",
            "content_hash": "text",
            "receipt": "text",
        }
    ],
    "export": {"folder": "text", "format": "text", "rows": "int", "manifest": {"NAME": "any"}},
    "audit": [
        {
            "dataset_version": "text",
            "modality": "text",
            "embedder": "text",
            "table": "text",
            "pin": "int",
            "rows": "int",
            "checked": "int",
            "tolerance": "float",
            "same_fingerprint": "bool",
            "worst": "float",
            "wrong": [
                {"feature_id": "text", "sample_id": "text", "cause": "text", "distance": "float?"},
            ],
        }
    ],
    "forget": {
        "number": "text",
        "asked": "text",
        "begun_at": "time",
        "hashes": ["text"],
        "samples": ["text"],
        "keys": ["text"],
        "blobs": "int",
        "rows": {"NAME": "int"},
        "pins": ["text"],
        "moved": {"NAME": {"NAME": "any"}},
        "done_at": "time",
    },
    "env": {"NAME": "text"},
    "doctor": [{"name": "text", "ok": "bool", "finding": "text"}],
    "upkeep": [
        {
            "part": "text",
            "tables": "int",
            "joined": "int",
            "doubles": "int",
            "versions": "int",
            "bytes": "int",
        }
    ],
    "gc": {
        "referenced": "int",
        "condemned": "int",
        "restored": "int",
        "removed": "int",
        "objects": "int",
        "bytes": "int",
        "rewritten": "int",
    },
}


def mismatches(value: Any, shape: Any, place: str = "") -> Iterator[str]:
    """Yield a line for each place where a value has another shape."""
    if isinstance(shape, dict) and isinstance(value, dict):
        if set(shape) == {_NAME}:
            for key, each in value.items():
                yield from mismatches(each, shape[_NAME], f"{place}.{key}")
            return
        required = {key for key in shape if not key.endswith("?")}
        optional = {key[:-1] for key in shape if key.endswith("?")}
        yield from (f"{place}.{key} is missing" for key in sorted(required - set(value)))
        yield from (f"{place}.{key} is new" for key in sorted(set(value) - required - optional))
        for key in sorted(set(value) & (required | optional)):
            yield from mismatches(value[key], shape.get(key, shape.get(f"{key}?")), f"{place}.{key}")
    elif isinstance(shape, list) and isinstance(value, list):
        for number, each in enumerate(value):
            yield from mismatches(each, shape[0], f"{place}[{number}]") if shape else ()
    elif not (isinstance(shape, str) and _is(value, shape)):
        yield f"{place} is {type(value).__name__}, not {shape}"


def _is(value: Any, kind: str) -> bool:
    name = kind.rstrip("?")
    if name == "any":
        return True
    if value is None:
        return kind.endswith("?")
    if name == "time":
        return (
            isinstance(value, str)
            and bool(re.match(r"\d{4}-", value))
            and bool(datetime.fromisoformat(value))
        )
    return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))
