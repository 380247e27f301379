"""Base class of embedders with models of a hub, by name and revision, or of a local folder."""

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
from mm_embed_kernels.extras import explain_missing
from mm_embed_kernels.identity import file_hash
from mm_embed_kernels.messages import message_line

# Files of a model: its configuration, and its weights, as safetensors where it has any, since reading those
# runs no code.
CONFIG_FILES = ("*.json", "*.txt", "*.model")
SAFETENSORS, PICKLES = ("*.safetensors",), ("*.bin", "*.pt", "*.pth")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubEmbedder(Embedder):
    """An embedder whose model the user names: ``KIND:ORG/NAME@REVISION``, or ``KIND:/an/absolute/folder``.

    Without a revision it is the newest one of the hub. In all cases the hash of the files is part of the
    fingerprint.
    """

    takes_model: ClassVar[bool] = True

    @cached_property
    def folder(self) -> Path:
        """Local folder of the model's files.

        Raises:
            UserError: in one line, when it is unavailable or damaged.
        """
        return model_folder(self.name, self.source)

    @property
    def source(self) -> str:
        """The model without settings that a kind writes behind it."""
        return self.model

    @property
    def weights(self) -> tuple[Path, ...]:
        # On another machine of a cluster the model may be in another folder.
        if "folder" in self.__dict__ and not self.folder.is_dir():
            del self.folder
        return tuple(model_files(self.name, self.folder))

    def read_json(self, name: str) -> Any:
        """Read a configuration file of the model.

        Raises:
            UserError: when it is missing or not JSON.
        """
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"embedder {self.name}: {self.folder / name} cannot be read: {message_line(error)}"
            ) from error

    def load(self) -> None:
        if "folder" in self.__dict__ and not self.folder.is_dir():
            del self.folder  # as above
        if "_model" not in self.__dict__:
            self._model = self.open_model()

    @abstractmethod
    def open_model(self) -> Any:
        """Load the model onto the device."""


def is_folder(model: str) -> bool:
    """Return whether a model is named by its folder instead of by a name in a hub."""
    return model.startswith(("/", "~", "."))


def model_folder(name: str, model: str) -> Path:
    """Return the folder of a model, downloaded where necessary; see `HubEmbedder.folder`.

    Args:
        name: name of the embedder, for error messages.
        model: ``ORG/NAME@REVISION`` or an absolute folder.
    """
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
    """Download a hub's model and verify its hashes, once per process; return the folder."""
    with explain_missing(f"embedder {name}"):
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = model.partition("@")
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*CONFIG_FILES, *SAFETENSORS]
            )
        )
        if not any(folder.rglob("*.safetensors")):
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision or None, allow_patterns=[*CONFIG_FILES, *PICKLES]
                )
            )
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"embedder {name}: the model hub cannot be reached and {model} is not among the models on this "
            f"machine; download it where there is a network (`hf download {repository}`), "
            "or name a local folder"
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"embedder {name}: {model} is neither ORG/NAME@REVISION nor an absolute path"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"embedder {name}: the model hub refuses {model}: {str(error).strip().splitlines()[-1]}"
        ) from error
    _verify(name, folder)
    return folder


def model_files(name: str, folder: Path) -> list[Path]:
    """List the files of a model: configuration and safetensors, or other weights where it has none.

    Raises:
        UserError: when there are no weights.
    """

    def matching(patterns: Iterable[str]) -> set[Path]:
        return {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}

    weights = matching(SAFETENSORS) or matching(PICKLES)
    if not weights:
        raise UserError(f"embedder {name}: {folder} holds no weights ({', '.join([*SAFETENSORS, *PICKLES])})")
    return sorted(weights | matching(CONFIG_FILES))


def _verify(name: str, folder: Path) -> None:
    """Verify large files by the hash that is their name in the hub's cache.

    Raises:
        UserError: for a file with another hash.
    """
    for path in sorted(folder.rglob("*")):
        stored = path.resolve()
        if path.is_symlink() and _SHA256.fullmatch(stored.name) and file_hash(stored) != stored.name:
            raise UserError(f"embedder {name}: {stored} is damaged; delete it and try again")
