"""What an embedder is: named weights, a preprocessing, a space, and a batch function."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import digest, fingerprint
from mm_embed_kernels.inference.precision import FLOAT32, resolve
from mm_embed_kernels.inference.weights import installed_hash
from mm_embed_kernels.plugins import discover, pick

_SLUG = 60
_GPU_ROWS = 64


class Embedder(ABC):
    """A model that turns segments of one modality into vectors. Heavy imports belong into `load`.

    Attributes:
        name: what specs, tables and the ledger call it; ``KIND:MODEL`` where it takes a model.
        takes_model: whether the user names its model (``KIND:MODEL``), rather than the class.
        modality: the modality that it reads.
        dimension: length of its vectors.
        input_shape: shape of the array that `decode` returns, or None where it reads the segment's text.
        input_dtype: NumPy name of that array's type: ``uint8`` for pixels, ``float32`` for sound.
        libraries: packages whose version changes its vectors.
        code_version: raised when the code changes its vectors.
        tolerance: largest cosine distance between two computations of the same vector that `audit` accepts.
        precisions: what it may compute in besides float32, each with the tolerance there, which must hold against float32, too.
        precision: what it computes in.
        seconds: first guess of the cost of a segment on one CPU core.
        batch_size: default rows per forward pass on a processor's core.
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
    seconds: ClassVar[float] = 0.01
    batch_size: int = 64

    def __init__(
        self, device: str = "cpu", batch_size: int | None = None, threads: int | None = None, model: str = ""
    ) -> None:
        self.device, self.model = device, model
        self.name = f"{type(self).name}:{model}" if model else type(self).name
        # What suits the caches of a processor's core leaves a GPU idle.
        self.batch_size = batch_size or max(type(self).batch_size, 1 if device == "cpu" else _GPU_ROWS)
        self.threads = threads

    @property
    @abstractmethod
    def weights(self) -> tuple[Path, ...]:
        """The weight files; raises `UserError` in one line when they are missing."""

    @property
    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """Everything done to a segment before the model sees it, as JSON-able values."""

    @property
    def space(self) -> str:
        """Vectors of embedders that return the same space can be compared."""
        return f"{type(self).name}-{self.weights_hash[:12]}"

    @cached_property
    def weights_hash(self) -> str:
        return installed_hash(f"embedder {self.name}", self.weights)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            # The class, not the place of the model: the same weights elsewhere make the same vectors.
            name=type(self).name,
            code_version=self.code_version,
            weights=self.weights_hash,
            preprocessing=self.preprocessing,
            libraries=self.libraries,
            device=self.device.split(":")[0],
            dtype=self.precision,
            output=self.dimension,
        )

    def at(self, precision: str) -> Self:
        """This embedder, told what to compute in (see `mm_embed_kernels.inference.precision.resolve`) before anybody asks for its fingerprint."""
        self.precision = resolve(precision, self.precisions, self.device)
        self.tolerance = self.precisions.get(self.precision, self.tolerance)
        return self

    @abstractmethod
    def load(self) -> None:
        """Load the model onto the device; called once per process, cheap when called again."""

    @abstractmethod
    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        """Vectors of a batch, float32 [n, dimension].

        Args:
            inputs: list of n texts, or array [n, *input_shape] of `input_dtype`.
        """

    def decode(self, data: Any, span: str) -> np.ndarray[Any, Any]:
        """One segment as an array of `input_shape` and `input_dtype`; runs inside the sandbox, must not need `load`.

        Args:
            data: the blob's bytes; where the modality streams, a `Path` to them if they are many.
            span: the segment's place in the blob.
        """
        raise SampleError("contract", f"embedder {self.name} does not decode")

    def embed_text(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """Query vectors for texts in this embedder's space, float32 [n, dimension].

        Raises:
            UserError: when the space has no text side.
        """
        raise UserError(f"embedder {self.name} has no text side: query it with media, a vector or an id")

    def __getstate__(self) -> dict[str, Any]:
        """Settings and identity travel to workers and sandboxes; loaded models do not."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}


def embedders() -> dict[str, type[Embedder]]:
    """All embedder classes, by name."""
    return discover("mm_embed_kernels.embedders", "embedders", Embedder)


def kind_of(name: str) -> type[Embedder]:
    """The class behind a name.

    Raises:
        UserError: for one that does not exist, or a model that is missing or too many.
    """
    kind, colon, model = name.partition(":")
    found: type[Embedder] = pick(embedders(), "embedder", kind)
    if found.takes_model and not model:
        raise UserError(
            f"embedder {kind} needs a model: {kind}:ORG/NAME@REVISION of a hub, or {kind}:/an/absolute/folder"
        )
    if colon and not found.takes_model:
        raise UserError(f"embedder {kind} brings its own model: write {kind} instead of {name}")
    return found


def create(name: str, precision: str = FLOAT32, **settings: Any) -> Embedder:
    """The embedder called `name` (``KIND`` or ``KIND:MODEL``), not yet loaded."""
    kind, model = kind_of(name), name.partition(":")[2]
    made = kind(**settings, model=model) if model else kind(**settings)
    return made.at(precision)


def maker_of(name: str, fingerprint: str) -> Embedder:
    """The embedder called `name`, in the precision that a fingerprint tells; in float32 where something else differs, too."""
    candidates = [create(name, precision) for precision in (FLOAT32, *kind_of(name).precisions)]
    return next((made for made in candidates if made.fingerprint == fingerprint), candidates[0])


def slug_of(name: str) -> str:
    """A name in letters, digits, ``.``, ``_`` and ``-``; a short hash tells apart what looks the same afterwards."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).replace("..", "-")
    return name if plain == name and len(name) <= _SLUG else f"{plain[:_SLUG]}-{digest('embedder', name)[:8]}"
