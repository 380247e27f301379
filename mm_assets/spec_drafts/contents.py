"""The files below a folder by kind, and those that a draft leaves out, by cause."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from mm_assets.spec_drafts.archives import is_archive
from mm_assets.spec_drafts.tables import ENDINGS
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import modality_of, modality_of_name
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_resources.objects.compressed_streams import uncompressed_name

_MAX_FILES = 20_000
# How many times as many files make a few texts, or a few media, a stray.
_MANY_BESIDE_TEXTS, _MANY = 20, 200
# What systems, file managers and office programs strew, in lower case.
_LITTER = (
    *("thumbs.db", "ehthumbs*.db", "desktop.ini", "icon\r", "~$*", "~lock.*", "*.tmp", "*.part"),
    *("*.crdownload", "__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found"),
)
# Texts that programs read: a dataset of their own, but beside media or tables no sample.
_PROGRAM_ENDINGS = (
    ".yaml .yml .toml .ini .cfg .conf .json .xml .svg .lock .log .sql .ipynb .css .js .ts .py .sh .bat .cmd "
    ".ps1 .c .h .cpp .java .go .rs .rb .php .pl .r .url .webloc"
)
_FOR_PROGRAMS = set(_PROGRAM_ENDINGS.split())
_CHECKSUMS = {".md5", ".sha1", ".sha256", ".sha512"}
LITTER = "strewn by systems and programs"
HIDDEN = "names that begin with a dot"
LINKS = "links to a folder, to nothing, or out of the folder: not followed"
UNREADABLE = "cannot be opened"
EMPTY = "empty"
WILL_FAIL = "matched by name, will fail: empty, or not what the name says"
PROGRAMS = "for programs, not for readers"
JSON = "JSON, of which lines are read: one object a line, in a file .jsonl"
UNKNOWN = "no modality reads them"
MISNAMED = "texts under a name of media, such as a web page that was saved as a picture"
FEW = "two or fewer of their modality, among many of another"
MORE = f"not looked at: more than {_MAX_FILES:,} files"


@dataclass(frozen=True)
class Contents:
    """Keys of the files below a folder.

    Attributes:
        media: by modality, which their content decides.
        left_out: by cause.
        litter: names and globs of what systems strew, as `exclude` of a source takes them, with their files.
    """

    media: dict[str, list[str]]
    tables: list[str]
    archives: list[str]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    litter: dict[str, list[str]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return the number of files of each kind."""
        counts = {f"{modality} files": len(files) for modality, files in sorted(self.media.items())}
        counts["tables"] = len(self.tables)
        return counts | ({"archives": len(self.archives)} if self.archives else {})


def scan_folder(folder: Path) -> Contents:
    """List the files below a folder."""
    media: dict[str, list[str]] = defaultdict(list)
    left: dict[str, list[str]] = defaultdict(list)
    litter: dict[str, list[str]] = defaultdict(list)
    tables: list[str] = []
    archives: list[str] = []
    programs: dict[str, list[str]] = defaultdict(list)
    for number, (key, cause) in enumerate(islice(_files(folder), _MAX_FILES + 1)):
        if number == _MAX_FILES:
            left[MORE].append(key)
            break
        ending = os.path.splitext(uncompressed_name(key))[1].lower()
        if cause or (cause := _obstacle(folder, key)):
            left[cause].append(key)
            if (pattern := _litter_of(key)) and cause == LITTER:
                litter[pattern].append(key)
        elif ending in ENDINGS:
            tables.append(key)
        elif is_archive(key):
            archives.append(key)
        elif ending in _CHECKSUMS or (modality := _modality(folder / key)) is None:
            left[UNKNOWN].append(key)
        else:
            found = programs if ending in _FOR_PROGRAMS else media
            (found[modality] if found is programs or _fits(key, modality) else left[MISNAMED]).append(key)
    if not (media or tables or archives):
        media, programs = programs, {}
    for key in (key for files in programs.values() for key in files):
        left[JSON if key.lower().endswith(".json") else PROGRAMS].append(key)
    for modality in _few(media):
        left[FEW] += media.pop(modality)
    return Contents(dict(media), tables, archives, dict(left), dict(litter))


def _few(media: dict[str, list[str]]) -> list[str]:
    """Return the modalities of two files or fewer among many of another, such as a README.

    Texts that describe a folder are common, lone films and recordings rare: of these "many" means more. Those
    whose ending files of another modality have are none: a glob would match them all the same.
    """
    total = sum(map(len, media.values()))
    endings = {name: {os.path.splitext(key)[1].lower() for key in files} for name, files in media.items()}
    return [
        name
        for name, files in media.items()
        if len(files) <= 2
        and len(files) * (_MANY_BESIDE_TEXTS if name == "text" else _MANY) <= total
        and not any(endings[name] & endings[other] for other in media if other != name)
    ]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the keys of files and, of folders that are not entered, with a cause; "" of all others."""
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(str(error.filename))

    for parent, folders, files in os.walk(folder, onerror=note):
        entered = []
        for name in sorted(folders):
            path = os.path.join(parent, name)
            key = os.path.relpath(path, folder)
            if name.startswith("."):
                yield f"{key}/", HIDDEN
            elif os.path.islink(path):
                yield key, LINKS
            else:
                entered.append(name)
        folders[:] = entered
        for name in sorted(files):
            yield os.path.relpath(os.path.join(parent, name), folder), HIDDEN if name.startswith(".") else ""
        for path in unreadable:
            yield f"{os.path.relpath(path, folder)}/", UNREADABLE
        unreadable.clear()


def _obstacle(folder: Path, key: str) -> str:
    """Return why a file is left out whatever its content is; "" where it is not."""
    if _litter_of(key):
        return LITTER
    path, root = folder / key, os.path.realpath(folder)
    if path.is_symlink() and not (os.path.realpath(path).startswith(f"{root}/") and path.is_file()):
        return LINKS
    if not path.is_file():
        return UNKNOWN
    if not path.stat().st_size:
        return EMPTY
    return "" if os.access(path, os.R_OK) else UNREADABLE


def _litter_of(key: str) -> str:
    """Return the name, or the glob, of what a system has strewn, in a key; "" of any other key."""
    for part in key.split("/"):
        for pattern in _LITTER:
            if fnmatchcase(part.lower(), pattern):
                return pattern if "*" in pattern else part
    return ""


def _fits(key: str, modality: str) -> bool:
    """Return whether a file is no text under a name of media; media fit any name of media."""
    return modality != "text" or modality_of_name(key) in (None, "text")


def _modality(path: Path) -> str | None:
    # In this process, as in listings: signatures are compared, nothing is decoded.
    mime = call_guarded(media_type, (path,))
    return modality_of(mime) if isinstance(mime, str) else None
