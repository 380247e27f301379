"""Files that look like samples of a spec's modalities, and match none of its sources."""

from __future__ import annotations

import mimetypes
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice

from mm_embed_kernels.modalities import modality_of
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources.base import Unmatched
from mm_resources.sources.globs import exclusion, glob_root, is_local, key_matcher

# Files that are looked at, and those of a modality that are named.
_MOST, _NAMED = 100_000, 3
# Texts for readers; tables, code and settings are texts as well.
_TEXTS = {".txt", ".text", ".md", ".markdown", ".rst"}


def unlisted_files(spec: DatasetSpec) -> dict[str, Unmatched]:
    """Return, by modality, the files below the roots of local sources that no source matches or excludes.

    The name of a file decides whether it looks like a sample. Names that begin with a dot, and folders that
    cannot be read, are left out; of very large folders, what comes after the first 100,000 files.
    """
    claims = [_claims(source) for source in spec.sources if is_local(source.uri)]
    roots = {root for root, glob in map(_glob, spec.sources) if glob is not None}
    declared = set(spec.modalities)
    found: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    seen = set[str]()
    for path in islice((path for root in sorted(roots) for path in _files(root)), _MOST):
        modality = _modality_by_name(path)
        if modality not in declared or path in seen or any(claim(path) for claim in claims):
            continue
        seen.add(path)
        counts[modality] += 1
        if counts[modality] <= _NAMED:
            found[modality].append(path)
    return {modality: Unmatched(counts[modality], names) for modality, names in found.items()}


def _glob(source: SourceSpec) -> tuple[str, str | None]:
    """Return root and glob of a local source of files; a glob of None where it takes every file."""
    if not is_local(source.uri) or source.record is not None or source.track_of is not None:
        return "", None
    root, glob = glob_root(source.uri)
    return (root, glob) if os.path.isdir(root) else ("", None)


def _claims(source: SourceSpec) -> Callable[[str], bool]:
    """Return a test of paths: whether a source matches or excludes one, or has it as its side table."""
    root, glob = glob_root(source.uri)
    matches, excludes = key_matcher(glob), exclusion(source.exclude)
    table = source.table.uri if source.table else None

    def claims(path: str) -> bool:
        if path in (root, table):
            return True
        if not path.startswith(f"{root.rstrip('/')}/"):
            return False
        key = os.path.relpath(path, root)
        return bool(matches(key)) or excludes(key)

    return claims


def _files(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in sorted(files) if not name.startswith("."))


def _modality_by_name(path: str) -> str:
    mime = mimetypes.guess_type(path)[0]
    if mime is None:
        return ""
    modality = modality_of(mime) or ""
    return modality if modality != "text" or os.path.splitext(path)[1].lower() in _TEXTS else ""
