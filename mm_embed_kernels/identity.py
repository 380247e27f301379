"""Identity: the hashes by which blobs, samples, segments, features and kernels are known."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# One grammar for every key that becomes a Dagster partition, a table name or a path.
PARTITION_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
DATASET_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*\Z")
VERSION_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")
ALIASES = frozenset({"production", "staging", "latest", "champion", "candidate"})

# A sample-like id keeps 128 bits: no collision is to be expected below 10^18 samples, and tables stay small.
_ID_HEX = 32


def digest(*parts: str) -> str:
    """sha256 over length-prefixed parts (so that ("a", "bc") and ("ab", "c") differ), hex."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def content_hash(data: bytes) -> str:
    """sha256 of the bytes, hex: what ``sha256sum`` prints."""
    return hashlib.sha256(data).hexdigest()


def sample_id(dataset: str, source: str, key: str) -> str:
    """Stable across versions: a sample is its dataset, source and key."""
    return digest("sample", dataset, source, key)[:_ID_HEX]


def entity_id(dataset: str, link: str) -> str:
    """What a declared link names: the thing that several samples show."""
    return digest("entity", dataset, link)[:_ID_HEX]


def segment_id(sample: str, span: str) -> str:
    return digest("segment", sample, span)[:_ID_HEX]


def feature_id(segment: str, fingerprint: str) -> str:
    return digest("feature", segment, fingerprint)[:_ID_HEX]


def canonical(value: Any) -> str:
    """JSON with sorted keys: the form in which configuration is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def fingerprint(
    *,
    name: str,
    code_version: str,
    weights: str = "",
    preprocessing: Mapping[str, Any] | None = None,
    libraries: Iterable[str] = (),
    device: str = "cpu",
    dtype: str = "",
    output: Any = "",
) -> str:
    """sha256 over everything that would change an output of the kernel."""
    return digest(
        "fingerprint",
        name,
        code_version,
        weights,
        canonical(dict(preprocessing or {})),
        canonical(library_versions(libraries)),
        device,
        dtype,
        str(output),
    )


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed versions, read from package metadata: nothing is imported."""
    return {name: _version(name) for name in sorted(libraries)}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@cache
def weights_hash(files: tuple[Path, ...]) -> str:
    """sha256 over the weight files' own sha256 sums, in the order given."""
    return digest("weights", *(file_hash(path) for path in files))


def file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


ENVIRONMENT_LIBRARIES = (
    "av", "decord2", "duckdb", "lancedb", "numpy", "open_clip_torch", "pillow", "pyarrow", "pylance", "ray",
    "sentence-transformers", "soundfile", "timm", "torch", "torchaudio", "transformers",
)  # fmt: skip


@cache
def environment_digest() -> str:
    """Digest of interpreter, machine type and the libraries that open or embed media.

    A permanent failure is only permanent for the environment that saw it; drivers and workers must agree on it.
    """
    return digest(
        "environment",
        platform.python_version(),
        platform.machine(),
        canonical(library_versions(ENVIRONMENT_LIBRARIES)),
    )[:16]


def split_dataset_version(text: str) -> tuple[str, str]:
    """``birds@v1`` -> ``("birds", "v1")``.

    Raises:
        ValueError: with one line that says what is wrong with the key.
    """
    name, at, ver = text.partition("@")
    if not at or not name or not ver:
        raise ValueError(f"{text!r} is not DATASET@VERSION (for example birds@v1)")
    return check_name(name), check_version(ver)


def check_name(name: str) -> str:
    if not DATASET_NAME.fullmatch(name) or len(name) > 31:
        raise ValueError(
            f"dataset name {name!r} must match {DATASET_NAME.pattern} and have at most 31 characters"
        )
    return name


def check_version(ver: str) -> str:
    if not VERSION_NAME.fullmatch(ver) or ".." in ver or len(ver) > 32:
        raise ValueError(
            f"version {ver!r} must match {VERSION_NAME.pattern}, have no '..' and at most 32 characters"
        )
    if ver.lower() in ALIASES:
        raise ValueError(f"version {ver!r} is an alias and cannot name a version; use for example v1")
    return ver
