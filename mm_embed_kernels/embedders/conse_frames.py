"""Embedder `conse_frames`: video in the space of the text model, by ConSE on frames."""

from __future__ import annotations

from mm_embed_kernels.embedders.conse import ConSE
from mm_embed_kernels.embedders.pictures import FrameEmbedder


class ConSEFrames(FrameEmbedder):
    """Scenes of ImageNet-like content, 384-d, in MiniLM's space, as texts and pictures are."""

    name = "conse_frames"
    libraries = (*ConSE.libraries, "av")
    code_version = "5"
    seconds = 0.1
    batch_size = 1

    def __init__(
        self, device: str = "cpu", batch_size: int | None = None, threads: int | None = None
    ) -> None:
        super().__init__(ConSE(device, (batch_size or self.batch_size) * self.frames, threads))
