"""Models by name and revision from a model hub, or from a local folder: found, checked, and only then used."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import file_hash

# What describes a model; its weights come beside, as safetensors where there are any: reading those runs no code.
DESCRIBING = ("*.json", "*.txt", "*.model")
SAFE, PICKLED = ("*.safetensors",), ("*.bin", "*.pt", "*.pth")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubEmbedder(Embedder):
    """An embedder whose model the user names: ``KIND:ORG/NAME@REVISION`` in a hub, or ``KIND:/an/absolute/folder``.

    A revision that is left out is the hub's newest; in both cases the files' own hash stands in the fingerprint.
    """

    takes_model: ClassVar[bool] = True

    @cached_property
    def folder(self) -> Path:
        """Where the model's files lie on this machine.

        Raises:
            UserError: in one line, when it cannot be had or is damaged.
        """
        return model_folder(self.name, self.model)

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(model_files(self.name, self.folder))

    def read_json(self, name: str) -> Any:
        """A configuration file of the model.

        Raises:
            UserError: when it is missing or no JSON.
        """
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"embedder {self.name}: {self.folder / name} cannot be read: {' '.join(str(error).split())}"
            ) from error

    def load(self) -> None:
        # Another machine of a cluster keeps its models elsewhere.
        if "folder" in self.__dict__ and not self.folder.is_dir():
            del self.folder
        if "_model" not in self.__dict__:
            self._model = self.open_model()

    @abstractmethod
    def open_model(self) -> Any:
        """The loaded model, on the device."""


def is_folder(model: str) -> bool:
    """Whether a model is named by its folder, not by its name elsewhere."""
    return model.startswith(("/", "~", "."))


def model_folder(name: str, model: str) -> Path:
    """The folder of a model, downloaded if need be; see `HubEmbedder.folder`."""
    if is_folder(model):
        folder = Path(model).expanduser()
        if not folder.is_absolute():
            raise UserError(
                f"embedder {name}: write the folder's absolute path, so that every process finds it"
            )
        if not folder.is_dir():
            raise UserError(f"embedder {name}: there is no folder {folder}")
        return folder
    return _snapshot(name, model)


@cache
def _snapshot(name: str, model: str) -> Path:
    """A hub's model on this machine; asked for, and held against its hashes, once per process."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = model.partition("@")
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*DESCRIBING, *SAFE]
            )
        )
        if not any(folder.rglob("*.safetensors")):
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision or None, allow_patterns=[*DESCRIBING, *PICKLED]
                )
            )
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"embedder {name}: the model hub cannot be reached and {model} is not among the models on this machine; download it "
            f"where there is a network (`hf download {repository}`), or name a local folder"
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"embedder {name}: {model} is neither ORG/NAME@REVISION nor an absolute path"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"embedder {name}: the model hub refuses {model}: {str(error).strip().splitlines()[-1]}"
        ) from error
    _check(name, folder)
    return folder


def model_files(name: str, folder: Path) -> list[Path]:
    """The files that make the model: what describes it, and its safetensors, or other weights where it has none.

    Raises:
        UserError: when there are no weights.
    """

    def found(patterns: Iterable[str]) -> set[Path]:
        return {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}

    weights = found(SAFE) or found(PICKLED)
    if not weights:
        raise UserError(f"embedder {name}: {folder} holds no weights ({', '.join([*SAFE, *PICKLED])})")
    return sorted(weights | found(DESCRIBING))


def _check(name: str, folder: Path) -> None:
    """Hold large files against the hash under which the hub's cache keeps them.

    Raises:
        UserError: for a file whose bytes are not those of its hash.
    """
    for path in sorted(folder.rglob("*")):
        stored = path.resolve()
        if path.is_symlink() and _SHA256.fullmatch(stored.name) and file_hash(stored) != stored.name:
            raise UserError(f"embedder {name}: {stored} is damaged; delete it and try again")
