"""Identity: hashes that identify blobs, samples, segments, features and kernels, and names of datasets."""

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

# Keys that become a Dagster partition, a table name or a path.
PARTITION_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
DATASET_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*\Z")
VERSION_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")
ALIASES = frozenset({"production", "staging", "latest", "champion", "candidate"})

# Ids have 128 bits: no collision is to be expected below 10^18 samples, and tables stay small.
_ID_HEX = 32


def digest(*parts: str) -> str:
    """Return the sha256 over length-prefixed parts (so that ("a", "bc") and ("ab", "c") differ), hex."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def content_hash(data: bytes) -> str:
    """Return the sha256 of the bytes, hex, as ``sha256sum`` prints it."""
    return hashlib.sha256(data).hexdigest()


def sample_id(dataset: str, source: str, key: str) -> str:
    """Return the id of a sample, which its dataset, source and key decide: it is stable across versions."""
    return digest("sample", dataset, source, key)[:_ID_HEX]


def entity_id(dataset: str, link: str) -> str:
    """Return the id of the thing that a declared link names, and that several samples have in common."""
    return digest("entity", dataset, link)[:_ID_HEX]


def segment_id(sample: str, span: str) -> str:
    """Return the id of a span of a sample."""
    return digest("segment", sample, span)[:_ID_HEX]


def feature_id(segment: str, fingerprint: str) -> str:
    """Return the id of the vector of a segment by an embedder with a fingerprint."""
    return digest("feature", segment, fingerprint)[:_ID_HEX]


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, the form in which configuration is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def fingerprint(  # noqa: PLR0913 - keywords only, one for each thing that changes an output
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
    """Return the sha256 over everything that changes an output of a kernel, hex.

    Args:
        name: of the kernel.
        code_version: raised with a change of its code.
        weights: hash of the weight files.
        preprocessing: settings.
        libraries: packages whose installed versions count.
        device: kind of device.
        dtype: number format of the computation.
        output: shape or type of an output.
    """
    return digest(
        "fingerprint",
        name,
        code_version,
        weights,
        canonical_json(dict(preprocessing or {})),
        canonical_json(library_versions(libraries)),
        device,
        dtype,
        str(output),
    )


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the installed versions by package metadata, ``absent`` for none; imports nothing."""
    return {name: _version(name) for name in sorted(libraries)}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Packages that open or embed media, or store results.
ENVIRONMENT_LIBRARIES = (
    "av",
    "decord2",
    "duckdb",
    "lancedb",
    "numpy",
    "open_clip_torch",
    "pillow",
    "pyarrow",
    "pylance",
    "ray",
    "sentence-transformers",
    "soundfile",
    "timm",
    "torch",
    "torchaudio",
    "transformers",
)


@cache
def environment_digest() -> str:
    """Return a digest of the interpreter, the machine type and `ENVIRONMENT_LIBRARIES`.

    A permanent failure is permanent only in the environment that recorded it; drivers and workers must have
    the same.
    """
    return digest(
        "environment",
        platform.python_version(),
        platform.machine(),
        canonical_json(library_versions(ENVIRONMENT_LIBRARIES)),
    )[:16]


def split_dataset_version(text: str) -> tuple[str, str]:
    """Split ``birds@v1`` into ``("birds", "v1")``.

    Raises:
        ValueError: when it is no key, or as `check_name` and `check_version`.
    """
    name, at, ver = text.partition("@")
    if not at or not name or not ver:
        raise ValueError(f"{text!r} is not DATASET@VERSION (for example birds@v1)")
    return check_name(name), check_version(ver)


def check_name(name: str) -> str:
    """Return the name of a dataset.

    Raises:
        ValueError: when the name breaks the rules.
    """
    if not DATASET_NAME.fullmatch(name) or len(name) > 31:
        raise ValueError(
            f"dataset name {name!r} must match {DATASET_NAME.pattern} and have at most 31 characters"
        )
    return name


def check_version(ver: str) -> str:
    """Return the version of a dataset.

    Raises:
        ValueError: when the version breaks the rules, or is an alias.
    """
    if not VERSION_NAME.fullmatch(ver) or ".." in ver or len(ver) > 32:
        raise ValueError(
            f"version {ver!r} must match {VERSION_NAME.pattern}, have no '..' and at most 32 characters"
        )
    if ver.lower() in ALIASES:
        raise ValueError(f"version {ver!r} is an alias and cannot name a version; use for example v1")
    return ver
