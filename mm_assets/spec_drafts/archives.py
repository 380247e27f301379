"""Sources drafted from archives, and the columns of tables that contain URLs."""

from __future__ import annotations

import mimetypes
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from mm_assets.spec_drafts.names import clean
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import modality_of
from mm_embed_kernels.spec.dataset_spec import escape_glob
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import redact_url
from mm_resources.objects.http_client import is_web
from mm_resources.sources.archives import Archives

# Members of an archive that are inspected.
_MAX_MEMBERS = 200


def is_archive(path: str) -> bool:
    """Return whether the name of a file is that of an archive."""
    return Archives.accepts(SourceSpec(name="s", modality="auto", uri=escape_glob(path)))


def archive_sources(
    folder: Path, archives: Iterable[str], root: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Draft a source for each family of archives (``shard-0001.tar``, ``shard-0002.tar``) and modality in it.

    Args:
        folder: folder of the archives.
        archives: their keys below it.
        root: the folder as the spec names it, escaped, with a slash at its end; "" for the spec's own.

    Returns:
        The sources, and the archives without a readable member, with the cause.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for key in archives:
        families[re.sub(r"\d+", "*", escape_glob(key))].append(key)
    sources: list[dict[str, Any]] = []
    skipped = {}
    for pattern, keys in families.items():
        uri = pattern if len(keys) > 1 else escape_glob(keys[0])
        endings_by_modality, problem = _endings(folder / keys[0])
        if not endings_by_modality:
            skipped[keys[0]] = problem or "no member is of a modality that is read"
        for modality, endings in sorted(endings_by_modality.items()):
            members = "**/*{" + ",".join(sorted(endings)) + "}" if len(endings) > 1 else f"**/*{min(endings)}"
            sources.append(
                {
                    "name": f"{_family_name(pattern)[:20]}-{modality}",
                    "modality": modality,
                    "uri": f"{root}{uri}",
                    "members": members,
                }
            )
    return sources, skipped


def url_column(rows: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Find the column that contains URLs in most rows.

    Returns:
        The column and the modality that most endings of the URLs name, ``auto`` where none does; None without
        such a column.
    """
    for column in rows[0] if rows else ():
        urls = [value for row in rows if isinstance(value := row.get(column), str) and is_web(value)]
        if len(urls) * 2 > len(rows):
            kinds = Counter(filter(None, (_modality(redact_url(url)) for url in urls)))
            return column, kinds.most_common(1)[0][0] if kinds else "auto"
    return None


def _family_name(pattern: str) -> str:
    return clean(re.sub(r"\.(tar|zip|tgz|tbz2|txz|tzst)\b.*|\*", "", pattern, flags=re.I)) or "archive"


def _endings(path: Path) -> tuple[dict[str, set[str]], str]:
    """Return the endings of an archive's first members by modality, and the first error in listing them."""
    endings: dict[str, set[str]] = defaultdict(set)
    archive = Archives(SourceSpec(name="s", modality="auto", uri=escape_glob(str(path))), {})
    problem = ""
    try:
        # Not its samples, for which it would be read to its end.
        for member in islice(archive.members(str(path)), _MAX_MEMBERS):
            problem = problem or (member.error.message if member.error else "")
            is_litter = "/." in f"/{member.name}" or "__MACOSX/" in member.name
            modality = None if is_litter else _modality(member.name)
            if member.error is None and modality is not None:
                endings[modality].add(os.path.splitext(member.name)[1].lower())
    except SampleError as error:
        problem = problem or error.message
    return endings, problem


def _modality(name: str) -> str | None:
    mime = mimetypes.guess_type(name)[0]
    # A member that describes others is no sample of its own.
    return modality_of(mime) if mime is not None and not name.endswith((".json", ".html")) else None
