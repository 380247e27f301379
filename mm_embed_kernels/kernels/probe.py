"""Kernel of the probe: metadata and quality signals of a blob."""

from __future__ import annotations

from mm_embed_kernels.contracts.fields import MEDIA
from mm_embed_kernels.identity import digest
from mm_embed_kernels.kernels.answer_checks import MeasurementCheck
from mm_embed_kernels.kernels.base import BlobReader, Kernel, Resources, Stage
from mm_embed_kernels.kernels.blob_stage import BlobStage
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.sandbox.sandbox import Limits

# Error classes of media of which the beginning may be readable.
PARTIAL = ("truncated", "decode_error")


class ProbeKernel(Kernel):
    """Metadata and quality signals of a blob.

    With ``on_partial="keep_prefix"`` it also probes media of which only the beginning is readable. It is a
    second kernel for those alone that ``reject`` refuses (`PARTIAL`), so that whole media have one
    fingerprint either way.
    """

    name = "probe"
    limits: Limits

    def __init__(
        self,
        modality: Modality,
        reader: BlobReader,
        limits: Limits = Limits(),
        resources: Resources = Resources(),
        on_partial: str = "reject",
    ) -> None:
        self.modality, self.reader, self.limits, self.resources = modality, reader, limits, resources
        self.scope = f"probe-{modality.name}"
        self.function = modality.probe_prefix if on_partial == "keep_prefix" else modality.probe
        self.fingerprint = modality.fingerprint("probe")
        if on_partial != "reject":
            self.fingerprint = digest(on_partial, self.fingerprint)
        self.payload = [*MEDIA, *modality.signals]
        self.seconds_per_row = modality.probe_seconds

    def stages(self) -> list[Stage]:
        return [
            BlobStage(
                self.reader,
                self.function,
                MeasurementCheck(self.modality),
                self.modality,
                self.result,
                self.limits,
                self.resources,
            )
        ]
