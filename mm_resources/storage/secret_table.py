"""The one table of a store that holds URLs with users, passwords and signatures, and the references to it.

Every other table holds such a URL stripped, and a listing beside it, in the locator, the id of its row here.
A spec names secrets by `${env:NAME}` and `${file:NAME}`, and this table repeats the reference instead of the
value. The values come from variables whose names begin with ``MM_SECRET_`` and from files below the folder
``MM_SECRETS``: a spec from elsewhere reads no other variable or file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.urls import REFERENCE, replace_secrets, strip_secrets
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store

PART = "secrets"
_TABLE, _SALT = f"{PART}/urls.lance", f"{PART}/salt"
_SCHEMA = pa.schema([pa.field("id", pa.string(), False), pa.field("secret", pa.string(), False)])
_MARK = "#secret:"
_NAME_PREFIX, _DEFAULT_FOLDER = "MM_SECRET_", "/run/secrets"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MOST_BYTES, _ROWS, _DEPTH = 64 << 10, 1_000, 3


class SecretTable:
    """Replaces URLs with secrets by references, and resolves these where an object is read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._waiting: dict[str, str] = {}

    def reference(self, text: str, known: Mapping[str, str] = {}) -> str:
        """Return the id under which `save` stores a text.

        Args:
            known: values of the spec's references, by value: the table holds the reference instead.
        """
        # A row of a list names no variable: only a spec's own references are resolved.
        text = REFERENCE.sub(lambda found: found[0].replace("$", "%24"), text)
        if known:  # in one pass: a value may lie within another one, or within a reference
            longest_first = sorted(known, key=len, reverse=True)
            text = re.sub("|".join(map(re.escape, longest_first)), lambda found: known[found[0]], text)
        name = hmac.digest(self._salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()[:32]
        self._waiting[name] = text
        return name

    def save(self) -> None:
        """Store the texts that have got an id since the last call."""
        waiting, self._waiting = self._waiting, {}
        stored = self._read(waiting)
        missing = {name: text for name, text in waiting.items() if name not in stored}
        if missing:
            rows = [{"id": name, "secret": text} for name, text in missing.items()]
            lance_datasets.append(self.store.uri(_TABLE), pa.Table.from_pylist(rows, schema=_SCHEMA))

    def reveal(self, names: Iterable[str]) -> dict[str, str]:
        """Return the texts of ids, with the values of their references; without ids that are not stored.

        Raises:
            UserError: for a reference that cannot be resolved.
        """
        return {name: self.resolve(text) for name, text in self._read(names).items()}

    def remove(self, names: Iterable[str]) -> None:
        """Write the table again without some rows, while no other process works on the store.

        The files that hold these rows go with the superseded versions.
        """
        uri, chosen = self.store.uri(_TABLE), pa.array(sorted(set(names)), pa.string())
        dataset = lance_datasets.open_dataset(uri) if len(chosen) else None
        if dataset is None:
            return
        kept = (
            batch.filter(pc.invert(pc.is_in(batch["id"], chosen)))
            for batch in lance_datasets.reader(dataset, _SCHEMA)
        )
        lance_datasets.overwrite(uri, _SCHEMA, kept, dataset.version, "forget")

    def resolve(self, text: str, depth: int = 0) -> str:
        """Return a text of a spec or of this table with the values of its references.

        Raises:
            UserError: for a variable, file or id that does not exist or may not be read.
        """

        def value(found: re.Match[str]) -> str:
            kind, name = found.groups()
            if kind == "secret":
                stored = self._read([name]).get(name)
                if stored is None or depth >= _DEPTH:
                    raise UserError(f"{found[0]} is not in the store's {PART}; register the spec again")
                return self.resolve(stored, depth + 1)
            return _variable(name) if kind == "env" else _file(name)

        return REFERENCE.sub(value, text)

    def values(self, texts: Iterable[str]) -> dict[str, str]:
        """Return the references in the URIs of a spec by their values."""
        found = (match[0] for text in texts for match in REFERENCE.finditer(text))
        return {self.resolve(reference): reference for reference in found}

    def seal(self, text: str) -> str:
        """Return a URI of a spec with references in place of its literal secrets; `save` stores these."""
        return replace_secrets(text, lambda secret: f"${{secret:{self._spec_reference(secret)}}}")

    def _spec_reference(self, secret: str) -> str:
        name = hmac.digest(self._salt, secret.encode(), hashlib.sha256).hex()[:32]
        self._waiting[name] = secret
        return name

    def _read(self, names: Iterable[str]) -> dict[str, str]:
        chosen = [name for name in dict.fromkeys(names) if name.isalnum()]
        dataset = lance_datasets.open_dataset(self.store.uri(_TABLE)) if chosen else None
        found: dict[str, str] = {}
        for start in range(0, len(chosen) if dataset is not None else 0, _ROWS):
            some = ", ".join(f"'{name}'" for name in chosen[start : start + _ROWS])
            rows = lance_datasets.reader(dataset, _SCHEMA, where=f"id IN ({some})").read_all()
            found |= dict(zip(rows["id"].to_pylist(), rows["secret"].to_pylist(), strict=True))
        return found

    @cached_property
    def _salt(self) -> bytes:
        """A random key of the store: ids reveal nothing about short secrets, and stay the same."""
        try:
            return self.store.read(_SALT)
        except FileNotFoundError:
            self.store.create(_SALT, secrets.token_hex(32).encode())
            return self.store.read(_SALT)


def split_locator(locator: str) -> tuple[str, str]:
    """Split a stored locator into the locator of the source, and the id of its URL ("" for none)."""
    own, mark, name = locator.rpartition(_MARK)
    return (own, name) if mark else (locator, "")


def join_locator(locator: str, name: str) -> str:
    """Return the locator that is stored for a URL under an id; `split_locator` reverses it."""
    return f"{locator}{_MARK}{name}" if name else locator


def has_secrets(uri: str) -> bool:
    """Return whether a URI must not be stored as it is."""
    return strip_secrets(uri) != uri


def _variable(name: str) -> str:
    if not name.startswith(_NAME_PREFIX):
        raise UserError(
            f"${{env:{name}}}: a spec may name variables that begin with {_NAME_PREFIX} and no others; "
            f"set {_NAME_PREFIX}{name.upper()} and name that"
        )
    value = os.environ.get(name, "")
    if not value:
        raise UserError(f"${{env:{name}}}: the variable {name} is not set; set it where sources are read")
    return value


def _file(name: str) -> str:
    folder = Path(os.environ.get("MM_SECRETS") or _DEFAULT_FOLDER)
    if not _FILE_NAME.fullmatch(name):
        raise UserError(f"${{file:{name}}}: give the name of a file in {folder}, which MM_SECRETS sets")
    path = folder / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"${{file:{name}}}: {path} is no file")
            value = stream.read(_MOST_BYTES + 1).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"${{file:{name}}}: {path} cannot be read: {error}; MM_SECRETS names its folder"
        ) from None
    if not value or len(value) > _MOST_BYTES:
        raise UserError(f"${{file:{name}}}: {path} is empty or larger than {_MOST_BYTES:,} bytes")
    return value
