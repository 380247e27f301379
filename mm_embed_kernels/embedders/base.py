"""Base class of embedders: weights, preprocessing, vector space, and a function over batches."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.extras import require_installed
from mm_embed_kernels.identity import digest, fingerprint
from mm_embed_kernels.inference.precision import FLOAT32, resolve
from mm_embed_kernels.inference.weights import installed_hash
from mm_embed_kernels.plugins import discover, pick

_SLUG = 60
_GPU_ROWS = 64


class Embedder(ABC):
    """A model that computes vectors of segments of one modality. Heavy imports belong into `load`.

    Attributes:
        name: name in specs, tables and the ledger; ``KIND:MODEL`` where it takes a model.
        takes_model: whether the user names its model (``KIND:MODEL``).
        modality: the modality of its segments.
        dimension: length of its vectors.
        input_shape: shape of the array that `decode` returns, or None where it reads the segment's text.
        input_dtype: NumPy name of that array's type: ``uint8`` for pixels, ``float32`` for sound.
        libraries: packages whose version changes its vectors.
        code_version: raised when a change of the code changes its vectors.
        tolerance: largest cosine distance between two computations of the same vector that `audit` accepts.
        precisions: formats besides float32 in which it may compute, each with its tolerance, which must hold
            against float32 as well.
        precision: format in which it computes.
        languages: ISO 639-1 codes of the languages that it knows, for texts; None where that is unknown.
        seconds: initial estimate of the seconds per segment on one CPU core.
        batch_size: default rows per forward pass on one CPU core.
    """

    name: str = ""
    takes_model: ClassVar[bool] = False
    modality: ClassVar[str] = ""
    dimension: int = 0
    input_shape: tuple[int, ...] | None = None
    input_dtype: str = "uint8"
    libraries: ClassVar[tuple[str, ...]] = ()
    code_version: ClassVar[str] = "1"
    tolerance: float = 1e-4
    precisions: ClassVar[Mapping[str, float]] = {}
    precision: str = FLOAT32
    languages: tuple[str, ...] | None = None
    seconds: ClassVar[float] = 0.01
    batch_size: int = 64

    def __init__(
        self, device: str = "cpu", batch_size: int | None = None, threads: int | None = None, model: str = ""
    ) -> None:
        self.device, self.model = device, model
        self.name = f"{type(self).name}:{model}" if model else type(self).name
        # A batch that fits the caches of a CPU core leaves a GPU idle.
        self.batch_size = batch_size or max(type(self).batch_size, 1 if device == "cpu" else _GPU_ROWS)
        self.threads = threads

    @property
    @abstractmethod
    def weights(self) -> tuple[Path, ...]:
        """Weight files.

        Raises:
            UserError: in one line, when they are missing.
        """

    @property
    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """All steps between a segment and the model's input, as values for JSON."""

    @property
    def space(self) -> str:
        """Name of the vector space; vectors of embedders with the same space can be compared."""
        return f"{type(self).name}-{self.weights_hash[:12]}"

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the weight files."""
        return installed_hash(f"embedder {self.name}", self.weights)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that changes the vectors."""
        return fingerprint(
            # Without the location of the model: the same weights elsewhere make the same vectors.
            name=type(self).name,
            code_version=self.code_version,
            weights=self.weights_hash,
            preprocessing=self.preprocessing,
            libraries=self.libraries,
            device=self.device.split(":")[0],
            dtype=self.precision,
            output=self.dimension,
        )

    def with_precision(self, precision: str) -> Self:
        """Set the format to compute in, before `fingerprint` is read, and return the embedder.

        Args:
            precision: see `mm_embed_kernels.inference.precision.resolve`.
        """
        self.precision = resolve(precision, self.precisions, self.device)
        self.tolerance = self.precisions.get(self.precision, self.tolerance)
        return self

    def shrink_batches(self) -> bool:
        """Halve the rows of a forward pass, for a device that lacks memory; False when it is one row."""
        if self.batch_size == 1:
            return False
        self.batch_size //= 2
        return True

    @abstractmethod
    def load(self) -> None:
        """Load the model onto the device; called once per process, cheap when called again."""

    @abstractmethod
    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        """Compute the vectors of a batch, float32 [n, dimension].

        Args:
            inputs: list of n texts, or array [n, *input_shape] of `input_dtype`.
        """

    def decode(self, data: Any, span: str) -> np.ndarray[Any, Any]:  # noqa: ARG002 - for subclasses
        """Decode one segment to an array of `input_shape`, inside the sandbox, without `load`.

        Args:
            data: the blob's bytes; where the modality streams, a `Path` to a large blob.
            span: position of the segment in the blob.
        """
        raise SampleError("contract", f"embedder {self.name} does not decode")

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:  # noqa: ARG002 - for subclasses
        """Compute query vectors of texts in this embedder's space, float32 [n, dimension].

        Raises:
            UserError: when texts have no vectors in the space.
        """
        raise UserError(f"embedder {self.name} has no text side: query it with media, a vector or an id")

    def unread_shares(self, texts: list[str]) -> np.ndarray[Any, Any] | None:  # noqa: ARG002 - for subclasses
        """Return the share of the tokens of each text that it cannot read, float32 [n]; None if unknown."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle settings and identity for workers and sandboxes, without the loaded model."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}


def embedders() -> dict[str, type[Embedder]]:
    """All embedder classes by name."""
    return discover("mm_embed_kernels.embedders", "embedders", Embedder)


def kind_of(name: str) -> type[Embedder]:
    """Return the class of an embedder's name.

    Raises:
        UserError: for an unknown class, a missing model, or a model for a class that takes none.
    """
    kind, colon, model = name.partition(":")
    embedder: type[Embedder] = pick(embedders(), "embedder", kind)
    if embedder.takes_model and not model:
        raise UserError(
            f"embedder {kind} needs a model: {kind}:ORG/NAME@REVISION of a hub, or {kind}:/an/absolute/folder"
        )
    if colon and not embedder.takes_model:
        raise UserError(f"embedder {kind} brings its own model: write {kind} instead of {name}")
    return embedder


def create(name: str, precision: str = FLOAT32, **settings: Any) -> Embedder:
    """Create the embedder called `name` (``KIND`` or ``KIND:MODEL``), without loading it.

    Raises:
        UserError: for an unknown kind, and where a package that it needs is not installed.
    """
    kind, model = kind_of(name), name.partition(":")[2]
    require_installed(f"embedder {name}", kind.libraries)
    made = kind(**settings, model=model) if model else kind(**settings)
    return made.with_precision(precision)


def maker_of(name: str, fingerprint: str) -> Embedder:
    """Create the embedder called `name` in the precision of a fingerprint; in float32 where none has it."""
    candidates = [create(name, precision) for precision in (FLOAT32, *kind_of(name).precisions)]
    return next((made for made in candidates if made.fingerprint == fingerprint), candidates[0])


def slug_of(name: str) -> str:
    """Convert a name to letters, digits, ``.``, ``_``, ``-``; a short hash keeps converted names distinct."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).replace("..", "-")
    return name if plain == name and len(name) <= _SLUG else f"{plain[:_SLUG]}-{digest('embedder', name)[:8]}"
