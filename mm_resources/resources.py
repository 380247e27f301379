"""Dagster resources: thin configuration that hands out the plain objects of this package.

Dagster reads these annotations at run time, so this module does without `from __future__ import annotations`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field, PrivateAttr

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.transcribe import TranscribeKernel
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.sandbox.answers import ANSWER_BYTES
from mm_embed_kernels.sandbox.confinement import LAYERS
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.transcribers import Transcriber
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.catalog import Catalog
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.retry_policy import Backoff
from mm_resources.compute.runner import KernelRunner
from mm_resources.storage.permissions import share_store
from mm_resources.work_settings import (
    ITEM_SECONDS,
    MEMORY_MB,
    ModelSettings,
    default_models,
    sandbox_limits,
)


class StoreResource(dg.ConfigurableResource):
    """The store's root. Credentials come from the environment, never from here."""

    root: str = Field(default="", description="folder or fsspec URL; empty: MM_STORE")
    shared: bool = Field(
        default=False, description="files for the user's group as well as the user; also MM_STORE_SHARED"
    )

    def open(self) -> Catalog:
        """A catalog whose parts live as long as its user keeps it."""
        if self.shared:
            share_store()
        return Catalog.open(self.root or None)


class CatalogResource(dg.ConfigurableResource):
    """The parts of the store: registry, tables, failures, ledger, blobs, compute cache, features."""

    store: dg.ResourceDependency[StoreResource]

    def open(self) -> Catalog:
        """The catalog of the store; see `StoreResource.open`."""
        return self.store.open()


class RayResource(dg.ConfigurableResource):
    """One Ray session per run at most, started only when there is enough to compute."""

    address: str = Field(
        default="", description="of a running cluster; empty: RAY_ADDRESS, or a local one, started on demand"
    )
    num_cpus: int = Field(default=0, description="CPUs of a local cluster; 0: those that the process may use")
    object_store_mb: int = Field(default=512, description="size of a local cluster's object store, MiB")
    _session: RaySession | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(
        self,
        context: dg.InitResourceContext,  # noqa: ARG002 - Dagster's signature
    ) -> Iterator["RayResource"]:
        self._session = RaySession(
            self.address or os.environ.get("RAY_ADDRESS", ""),
            self.num_cpus or None,
            self.object_store_mb << 20,
        )
        try:
            yield self
        finally:
            self._session.close()

    @property
    def session(self) -> RaySession:
        assert self._session is not None
        return self._session


class RayClusterResource(RayResource):
    """The Ray cluster of a resource of `dagster-ray`.

    That is `LocalRay`, `KubeRayCluster` or `KubeRayInteractiveJob`. The cluster is made, joined and deleted
    as the life-cycle of that resource says; kernels run there.
    """

    cluster: dg.ResourceDependency[dg.ConfigurableResource]

    @contextmanager
    def yield_for_execution(
        self,
        context: dg.InitResourceContext,  # noqa: ARG002 - Dagster's signature
    ) -> Iterator["RayResource"]:
        # `dagster-ray` has joined the cluster, unless its life-cycle leaves that to the first use.
        address = str(getattr(self.cluster, "ray_address", None) or "")
        self._session = RaySession(address, self.num_cpus or None, self.object_store_mb << 20)
        try:
            yield self
        finally:
            self._session.close()


class ComputeCacheResource(dg.ConfigurableResource):
    """The compute cache, and the execution of what it lacks."""

    store: dg.ResourceDependency[StoreResource]
    ray: dg.ResourceDependency[RayResource]
    mode: str = Field(default="auto", description="auto (by estimated work), inline or ray")
    inline_seconds: float = Field(
        default=10.0, description="estimated work that is not worth starting Ray for"
    )
    attempts: int = Field(
        default=4, description="tries of one row in a run while its cause is transient; 1: no second one"
    )
    backoff_seconds: float = Field(
        default=0.5,
        description="upper bound of the pause before the second try, doubled with each further one",
    )

    def open(self) -> KernelRunner:
        backoff = Backoff(self.attempts, self.backoff_seconds)
        return KernelRunner(
            self.store.open().cache, self.ray.session, self.mode, self.inline_seconds, backoff
        )


class EmbedderResource(dg.ConfigurableResource):
    """The primary embedder of one modality: model, device, batch size, actors and their resources."""

    embedder: str = Field(description="name of the embedder, see `mm doctor`")
    device: str = Field(default="auto", description="auto, cpu or cuda")
    batch_size: int = Field(
        default=0, description="rows per forward pass; 0: as stored_setting, else the embedder's default"
    )
    precision: str = Field(
        default="",
        description="float32, bfloat16, or auto, by the processor; empty: MM_PRECISION, by default auto",
    )
    batch_rows: int = Field(default=1024, description="rows handed to an actor at once")
    actors: int = Field(default=1, description="copies of the model")
    num_cpus: float = Field(default=1, description="CPUs of each copy; also its thread count")
    num_gpus: float = Field(default=0, description="GPUs of each copy; a fraction lets copies share one")
    decode_actors: int = Field(default=1, description="CPU actors that decode ahead of the model")

    @property
    def settings(self) -> ModelSettings:
        """The settings as a plain object, which does the work."""
        return ModelSettings(**{name: getattr(self, name) for name in type(self).model_fields})

    def open(self, name: str = "") -> Embedder:
        """The embedder, or another one of the modality with the same share of the machine; not yet loaded."""
        return self.settings.open(name)

    def open_all(self, names: list[str] | None) -> list[Embedder]:
        """The embedders that a spec names, the primary one first; by default this one alone."""
        return self.settings.open_all(names)

    def require(self, spec: DatasetSpec, modality: str) -> list[Embedder | Transcriber]:
        """The models that a spec names, with their weights found and hashed.

        Raises:
            UserError: in one line, for a model that is missing or unreachable.
        """
        return self.settings.require(spec, modality)

    def kernel(self, reader: BlobStore, limits: Limits, embedder: Embedder | None = None) -> EmbedKernel:
        return self.settings.kernel(reader, limits, embedder)

    def transcribe_kernel(self, name: str, reader: BlobStore, limits: Limits) -> TranscribeKernel:
        """A transcriber with this embedder's share of the machine."""
        return self.settings.transcribe_kernel(name, reader, limits)


class SandboxResource(dg.ConfigurableResource):
    """Limits of the children that open untrusted bytes."""

    memory_mb: int = Field(default=MEMORY_MB, description="address space of one child, MiB")
    item_seconds: float = Field(
        default=ITEM_SECONDS, description="seconds that one sample may compute or hang"
    )
    workers: int = Field(
        default=0,
        description="children; 0: one for each core, as memory allows. A Ray worker has one",
    )
    answer_mb: int = Field(default=ANSWER_BYTES >> 20, description="largest answer to one sample, MiB")
    require: list[str] = Field(
        default=[],
        description=f"layers of confinement ({', '.join(LAYERS)}) without which no work starts, beside those "
        "that the variable MM_SANDBOX_REQUIRE names; `mm doctor` says what the kernel offers",
    )

    def limits(self) -> Limits:
        """Limits of the sandbox.

        Raises:
            UserError: when this kernel lacks a layer that is required.
        """
        return sandbox_limits(
            self.memory_mb, self.item_seconds, self.workers, self.answer_mb, tuple(self.require)
        )


def default_embedder(modality: Modality) -> EmbedderResource:
    """The profile's embedder of a modality, on all cores; decoders beside it share them."""
    return EmbedderResource(**vars(default_models(modality)))
