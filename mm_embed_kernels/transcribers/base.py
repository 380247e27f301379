"""Base class of transcribers: weights, settings, and a function from sound to text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mm_embed_kernels.extras import require_installed
from mm_embed_kernels.identity import fingerprint
from mm_embed_kernels.inference.weights import installed_hash
from mm_embed_kernels.plugins import discover, pick


class Transcriber(ABC):
    """A model that transcribes speech. Heavy imports belong into `load`.

    Attributes:
        name: name in specs, tables and the ledger.
        languages: ISO 639-1 codes of its languages; empty for many.
        libraries: packages whose version changes its texts.
        code_version: raised when a change of the code changes its texts.
        seconds: initial estimate of the seconds per window of ten seconds on one CPU core.
    """

    name: ClassVar[str] = ""
    languages: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    code_version: ClassVar[str] = "1"
    seconds: ClassVar[float] = 1.0

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        self.device, self.threads = device, threads

    @property
    @abstractmethod
    def weights(self) -> tuple[Path, ...]:
        """Weight files.

        Raises:
            UserError: in one line, when they are missing.
        """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All settings of the decoding, as values for JSON."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that changes the texts."""
        return fingerprint(
            name=f"transcribe:{self.name}",
            code_version=self.code_version,
            weights=installed_hash(f"transcriber {self.name}", self.weights),
            preprocessing=self.settings,
            libraries=self.libraries,
            device=self.device.split(":")[0],
            output="text, language",
        )

    @abstractmethod
    def load(self) -> None:
        """Load the model onto the device; called once per process, cheap when called again."""

    @abstractmethod
    def transcribe(self, sounds: list[np.ndarray[Any, Any]]) -> list[tuple[str, str]]:
        """Transcribe sounds: text, empty without intelligible speech, and ISO 639-1 code of each.

        Args:
            sounds: float32 arrays [samples], mono, 16 kHz.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Pickle settings and identity for workers, without the loaded model."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}


def transcribers() -> dict[str, type[Transcriber]]:
    """All transcriber classes by name."""
    return discover("mm_embed_kernels.transcribers", "transcribers", Transcriber)


def create(name: str, **settings: Any) -> Transcriber:
    """Create the transcriber called `name`, without loading it.

    Raises:
        UserError: for an unknown name, and where a package that it needs is not installed.
    """
    kind: type[Transcriber] = pick(transcribers(), "transcriber", name)
    require_installed(f"transcriber {name}", kind.libraries)
    return kind(**settings)
