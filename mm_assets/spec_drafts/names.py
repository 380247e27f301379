"""Names and URIs of drafted sources."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

# Letters that have no decomposition, or another spelling than their base letter.
_SPELLED = (
    "ä:ae ö:oe ü:ue ß:ss æ:ae œ:oe ø:oe å:aa ł:l đ:d ð:d þ:th ħ:h ı:i ŋ:n "
    "а:a б:b в:v г:g д:d е:e ё:yo ж:zh з:z и:i й:y к:k л:l м:m н:n о:o п:p р:r с:s т:t у:u ф:f х:kh ц:ts "
    "ч:ch ш:sh щ:shch ъ: ы:y ь: э:e ю:yu я:ya і:i ї:yi є:ye ґ:g "
    "α:a β:v γ:g δ:d ε:e ζ:z η:i θ:th ι:i κ:k λ:l μ:m ν:n ξ:x ο:o π:p ρ:r σ:s ς:s τ:t υ:y φ:f χ:ch ψ:ps ω:o"
)
_SPELLINGS = dict(pair.split(":") for pair in _SPELLED.split())


def transliterate(name: str) -> str:
    """Return a name in ASCII letters, as far as it is Latin, Cyrillic or Greek: ``Vögel`` -> ``Voegel``."""
    spelled = []
    for letter in unicodedata.normalize("NFC", name):
        lower = letter.lower()
        spelling = _SPELLINGS.get(lower)
        if spelling is None and (base := unicodedata.normalize("NFKD", lower)[0]) in _SPELLINGS:
            spelling = _SPELLINGS[base]  # with an accent, as in Greek
        spelled.append(letter if spelling is None else spelling if letter == lower else spelling.capitalize())
    return unicodedata.normalize("NFKD", "".join(spelled)).encode("ascii", "ignore").decode()


def clean(name: str) -> str:
    """Return a name in the letters, digits, ``-`` and ``_`` that names of datasets and sources have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", transliterate(name)).strip("-_")


def relative_uri(folder: Path, base: Path) -> str:
    """Return the path of a folder, relative to the folder of the spec if it is below that, else absolute."""
    full = str(folder.absolute())
    inside = full == str(base) or full.startswith(f"{base}/")
    return os.path.relpath(full, base) if inside else full


def join_uri(root: str, name: str) -> str:
    """Join a root (``.`` for the spec's own folder) and a key below it."""
    return name if root == "." else f"{root}/{name}"


def clean_name(path: Path) -> str:
    """Return a valid dataset or source name for a path, of at most 31 characters."""
    return (clean(str(path.resolve().name if path.is_dir() else path)) or "dataset")[:31].rstrip("-_")


def number_names(sources: list[dict[str, Any]]) -> None:
    """Make the names of sources unique, in place: each repeated name gets a number."""
    taken: set[str] = set()
    for source in sources:
        name, number = source["name"], 2
        while source["name"] in taken:
            source["name"], number = f"{name}-{number}", number + 1
        taken.add(source["name"])
