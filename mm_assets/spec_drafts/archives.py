"""What `mm init` makes of archives, and of tables that name URLs."""

from __future__ import annotations

import mimetypes
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from mm_embed_kernels.modalities import modality_of
from mm_embed_kernels.spec.dataset_spec import escape_glob
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.http_client import is_web, shown
from mm_resources.sources.archives import Archives

_MOST_MEMBERS = 200


def is_archive(path: str) -> bool:
    return Archives.accepts(SourceSpec(name="s", modality="auto", uri=escape_glob(path)))


def archive_sources(
    folder: Path, archives: Iterable[str], root: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A source for each family of archives (``shard-0001.tar``, ``shard-0002.tar``) and each modality in it; what holds none, and why.

    Args:
        folder: where the archives lie, by their keys.
        root: the folder as the spec calls it, escaped; "" for the spec's own.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for key in archives:
        families[re.sub(r"\d+", "*", escape_glob(key))].append(key)
    sources: list[dict[str, Any]] = []
    skipped = {}
    for pattern, keys in families.items():
        uri = pattern if len(keys) > 1 else escape_glob(keys[0])
        found, problem = _endings(folder / keys[0])
        if not found:
            skipped[keys[0]] = problem or "no member is of a modality that is read"
        for modality, endings in sorted(found.items()):
            members = "**/*{" + ",".join(sorted(endings)) + "}" if len(endings) > 1 else f"**/*{min(endings)}"
            name = (
                re.sub(r"[^A-Za-z0-9_-]+", "-", re.sub(r"\.(tar|zip|tgz).*|\*", "", pattern)).strip("-_")
                or "archive"
            )
            sources.append(
                {
                    "name": f"{name[:20]}-{modality}",
                    "modality": modality,
                    "uri": f"{root}{uri}",
                    "members": members,
                }
            )
    return sources, skipped


def _endings(path: Path) -> tuple[dict[str, set[str]], str]:
    """Modality -> endings of an archive's first members, by their names; and what is wrong with it."""
    found: dict[str, set[str]] = defaultdict(set)
    archive = Archives(SourceSpec(name="s", modality="auto", uri=escape_glob(str(path)), members="**/*"), {})
    problem = ""
    for item in islice(archive.list(), _MOST_MEMBERS):
        problem = problem or (str(item.error) if item.error else "")
        modality = _modality(item.key)
        if item.error is None and modality is not None:
            found[modality].add(os.path.splitext(item.key)[1])
    return found, problem


def url_column(rows: list[dict[str, Any]]) -> tuple[str, str] | None:
    """The column that holds URLs in most rows, and the modality that their endings speak of (``auto`` where they are silent)."""
    for column in rows[0] if rows else ():
        urls = [value for row in rows if isinstance(value := row.get(column), str) and is_web(value)]
        if len(urls) * 2 > len(rows):
            kinds = Counter(filter(None, (_modality(shown(url)) for url in urls)))
            return column, kinds.most_common(1)[0][0] if kinds else "auto"
    return None


def _modality(name: str) -> str | None:
    mime = mimetypes.guess_type(name)[0]
    # A part that describes others is no sample of its own.
    return modality_of(mime) if mime is not None and not name.endswith((".json", ".html")) else None
