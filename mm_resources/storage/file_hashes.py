"""Hashes of the files of Lance datasets, which have none of their own.

The hash of ``data/X`` stands in ``_hashes/data/X`` of the same dataset, written with the file and before any
commit names it; behind that of a manifest, which is small, stands a copy. Lance leaves the folder alone. A
file without a hash was written by an older version, or its writer was killed: it is read, and counts as
unverified.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import xxhash

from mm_embed_kernels.errors import UserError
from mm_resources.storage.store import Store

FOLDER, MANIFESTS = "_hashes", "_versions/"
_CHUNK = 1 << 20
_THREADS = 4
# Files on this machine that are read without threads, whose start takes longer.
_FEW = 16
_PREFIX, _HEX = b"xxh3-128 ", 32


@dataclass
class FileCheck:
    """The result of comparing files with their hashes.

    Attributes:
        verified: names of intact files.
        unverified: names of files without a hash.
        damaged: name -> cause, ``missing`` or ``damaged``.
        bytes: size of the intact files.
    """

    verified: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


class DamagedFiles(UserError):
    """Files of a table differ from the hashes that were made when they were written."""


def record_hashes(uri: str, names: Iterable[str]) -> None:
    """Store the hashes of files of a dataset, which its writer has just written."""
    store = Store(uri)
    for name in names:
        digest, _ = _hash(store, name)
        copy = b"\n" + store.read(name) if name.startswith(MANIFESTS) else b""
        store.write(f"{FOLDER}/{name}", _PREFIX + digest.encode() + copy, sync=False)


def restore_manifest(uri: str, name: str) -> bool:
    """Write a manifest again from the copy beside its hash; return False where there is no sound copy."""
    store = Store(uri)
    expected = _stored_hash(store, name)
    if expected is None:
        return False
    copy = store.read(f"{FOLDER}/{name}")[len(_PREFIX) + _HEX + 1 :]
    if xxhash.xxh3_128(copy).hexdigest() != expected:
        return False
    store.write(name, copy)
    return True


def is_recorded(uri: str, name: str) -> bool:
    """Return whether a file of a dataset has a hash."""
    return _stored_hash(Store(uri), name) is not None


def check_files(uri: str, names: Iterable[str]) -> FileCheck:
    """Compare files of a dataset with their hashes."""
    store, found = Store(uri), FileCheck()
    chosen = list(dict.fromkeys(names))
    if store.is_local and len(chosen) <= _FEW:
        states = [_state(store, name) for name in chosen]
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            states = list(pool.map(lambda name: _state(store, name), chosen))
    for name, (state, size) in zip(chosen, states, strict=True):
        if state == "verified":
            found.verified.append(name)
            found.bytes += size
        elif state == "unverified":
            found.unverified.append(name)
        else:
            found.damaged[name] = state
    return found


def remove_strays(uri: str) -> None:
    """Remove the hashes of files that the dataset no longer has."""
    store = Store(uri)
    kept: dict[str, set[str]] = {}
    for entry in store.objects(FOLDER):
        # Listed after the hashes: a file is written before its hash.
        folder, _, name = entry.name.removeprefix(f"{FOLDER}/").rpartition("/")
        if folder not in kept:
            kept[folder] = set(store.names(folder))
        if name not in kept[folder]:
            store.remove(entry.name)


def _state(store: Store, name: str) -> tuple[str, int]:
    expected = _stored_hash(store, name)
    if expected is None:
        return ("unverified" if store.entry(name) is not None else "missing"), 0
    try:
        digest, size = _hash(store, name)
    except FileNotFoundError:
        return "missing", 0
    return ("verified" if digest == expected else "damaged"), size


def _stored_hash(store: Store, name: str) -> str | None:
    """Return the hash of a file; None where there is none, or it was not written to its end."""
    try:
        raw = store.read_range(f"{FOLDER}/{name}", 0, len(_PREFIX) + _HEX)
    except FileNotFoundError:
        return None
    digest = raw.removeprefix(_PREFIX)[:_HEX].decode("ascii", "replace")
    return digest if raw.startswith(_PREFIX) and len(digest) == _HEX else None


def _hash(store: Store, name: str) -> tuple[str, int]:
    """Return the hash of a file, and its size."""
    state, size = xxhash.xxh3_128(), 0
    with open(store.path(name), "rb") if store.is_local else store.reader(name) as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
            size += len(chunk)
    return state.hexdigest(), size
