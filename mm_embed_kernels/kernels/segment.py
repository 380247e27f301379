"""Kernel of segmentation: the parts of a blob that are embedded."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.answer_checks import check_segments
from mm_embed_kernels.kernels.base import BlobReader, Kernel, Resources, Stage
from mm_embed_kernels.kernels.blob_stage import BlobStage
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.sandbox.sandbox import Limits

SPAN = pa.struct([("span", pa.string()), ("text", pa.string()), ("cost", pa.int64())])


class Segmenter:
    """A modality's `segment` that returns a payload row; picklable."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, data: Any) -> dict[str, Any]:
        segments = self.modality.segment(data)
        if not segments:
            raise SampleError("no_segments", f"the {self.modality.name} sample has nothing to embed")
        return {"segments": [{"span": item.span, "text": item.text, "cost": item.cost} for item in segments]}


class SegmentKernel(Kernel):
    """The segments of a blob, each with its span, text and cost."""

    name = "segment"
    limits: Limits

    def __init__(
        self,
        modality: Modality,
        reader: BlobReader,
        limits: Limits = Limits(),
        resources: Resources = Resources(),
    ) -> None:
        self.modality, self.reader, self.limits, self.resources = modality, reader, limits, resources
        self.scope = f"segment-{modality.name}"
        self.fingerprint = modality.fingerprint("segment")
        self.payload = [pa.field("segments", pa.list_(SPAN))]
        self.seconds_per_row = modality.segment_seconds

    def stages(self) -> list[Stage]:
        return [
            BlobStage(
                self.reader,
                Segmenter(self.modality),
                check_segments,
                self.modality,
                self.result,
                self.limits,
                self.resources,
            )
        ]
