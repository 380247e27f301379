"""Settings of the work, without Dagster: the share of the machine that models and sandboxed children have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mm_embed_kernels.embedders import Embedder, create
from mm_embed_kernels.inference.runtime import cpu_count
from mm_embed_kernels.kernels.base import Resources
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.transcribe import TranscribeKernel
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.sandbox.answers import ANSWER_BYTES
from mm_embed_kernels.sandbox.confinement import record_layers, require_layers, required_layers
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.transcribers import Transcriber
from mm_embed_kernels.transcribers import create as create_transcriber
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.calibration import stored_setting
from mm_resources.settings import Settings

MEMORY_MB, ITEM_SECONDS = 4096, 30.0


@dataclass(frozen=True)
class ModelSettings:
    """The primary embedder of one modality, its device and its share of the machine.

    The fields are those of `mm_resources.resources.EmbedderResource`, which describes them.
    """

    embedder: str
    device: str = "auto"
    batch_size: int = 0
    precision: str = ""
    batch_rows: int = 1024
    actors: int = 1
    num_cpus: float = 1
    num_gpus: float = 0
    decode_actors: int = 1

    def open(self, name: str = "") -> Embedder:
        """Return the embedder, or another one of the modality with the same share; not yet loaded."""
        settings, device, threads = Settings.from_environment(), self._device(), max(1, int(self.num_cpus))
        made = create(
            name or self.embedder,
            self.precision or settings.precision,
            device=device,
            batch_size=self.batch_size or None,
            threads=threads,
        )
        found = (
            stored_setting(settings.calibration_file, made.name, made.precision) if device == "cpu" else None
        )
        if found is None:
            return made
        # A calibration may not take more cores than the configuration leaves to a copy.
        suits = {"batch_size": self.batch_size or found.batch_size, "threads": min(threads, found.threads)}
        return create(made.name, made.precision, device=device, **suits)

    def open_all(self, names: list[str] | None) -> list[Embedder]:
        """Return the embedders that a spec names, the primary one first; by default this one alone."""
        return [self.open(name) for name in names or [self.embedder]]

    def require(self, spec: DatasetSpec, modality: str) -> list[Embedder | Transcriber]:
        """Return the models that a spec names, with their weights found and hashed.

        Raises:
            UserError: in one line, for a model that is missing or unreachable.
        """
        models: list[Embedder | Transcriber] = [*self.open_all(spec.embedders.get(modality))]
        if name := spec.transcribe.get(modality):
            models.append(create_transcriber(name, device=self._device()))
        for model in models:
            _ = model.fingerprint
        return models

    def kernel(self, reader: BlobStore, limits: Limits, embedder: Embedder | None = None) -> EmbedKernel:
        """Return the kernel of an embedder, by default of the primary one."""
        chosen = embedder or self.open()
        rows = self.batch_rows if chosen.input_shape is None else min(self.batch_rows, 64)
        return EmbedKernel(
            chosen,
            reader,
            limits,
            decode=Resources(num_cpus=1, actors=self.decode_actors, batch_rows=rows),
            infer=Resources(
                num_cpus=self.num_cpus, num_gpus=self.num_gpus, actors=self.actors, batch_rows=rows
            ),
        )

    def transcribe_kernel(self, name: str, reader: BlobStore, limits: Limits) -> TranscribeKernel:
        """Return the kernel of a transcriber with this embedder's share of the machine."""
        infer = Resources(num_cpus=self.num_cpus, num_gpus=self.num_gpus, actors=self.actors, batch_rows=16)
        transcriber = create_transcriber(name, device=self._device(), threads=max(1, int(self.num_cpus)))
        return TranscribeKernel(
            transcriber, reader, limits, Resources(actors=self.decode_actors, batch_rows=16), infer
        )

    def _device(self) -> str:
        if self.device != "auto":
            return self.device
        # The driver's own file: asking torch would cost seconds in runs that compute nothing.
        return "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"


def default_models(modality: Modality) -> ModelSettings:
    """Return the profile's embedder of a modality, on all cores; decoders beside it share them."""
    name = modality.primary(Settings.from_environment().profile)
    return ModelSettings(embedder=name, num_cpus=cpu_count())


def embedder_key(modality: str) -> str:
    """Return the resource key of a modality's primary embedder."""
    return f"mm_{modality}_embedder"


def sandbox_limits(
    memory_mb: int = MEMORY_MB,
    item_seconds: float = ITEM_SECONDS,
    workers: int = 0,
    answer_mb: int = ANSWER_BYTES >> 20,
    require: tuple[str, ...] = (),
) -> Limits:
    """Return limits of the sandbox; the arguments are described at `mm_resources.resources.SandboxResource`.

    Raises:
        UserError: when this kernel lacks a layer that is required.
    """
    memory = memory_mb << 20
    require = tuple(dict.fromkeys((*required_layers(), *require)))
    require_layers(require)
    record_layers(require)  # reports and sources open sandboxes with limits of their own
    return Limits(
        workers=workers or _child_count(memory),
        memory_bytes=memory,
        item_seconds=item_seconds,
        answer_bytes=answer_mb << 20,
        require=require,
    )


def _child_count(memory_bytes: int) -> int:
    """Return the number of sandboxed children for this machine's cores, as memory allows for the maximum."""
    import psutil

    return max(1, min(cpu_count(), psutil.virtual_memory().total // memory_bytes))
