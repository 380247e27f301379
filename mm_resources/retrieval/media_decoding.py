"""Decoding of a loader's media, in threads of the process or in the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.media.decoded_media import DECODERS
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits

FORMS = ("pil", "torch")
_LIMITS = Limits(workers=2)


class MediaDecoder:
    """Decodes the media of rows.

    ========  =====================================  ==========================================
    modality  ``torch``                              ``pil``
    ========  =====================================  ==========================================
    image     uint8 [3, height, width], RGB          `PIL.Image.Image`, RGB
    audio     float32 [samples], mono, 16 kHz        refused
    video     uint8 [8, 3, height, width], RGB       list of 8 `PIL.Image.Image`
    text      str: the row's text                    the same
    ========  =====================================  ==========================================

    Of a sound or film, it is the row's span that is decoded.

    Args:
        form: ``pil`` or ``torch``.
        kinds: modality of each column of media.
        sandbox: whether they are decoded in confined children, as the pipeline does, at the cost of copies.

    Raises:
        UserError: for another form, or a modality that has none.
    """

    def __init__(self, form: str, kinds: dict[str, str], sandbox: bool = False) -> None:
        if form not in FORMS:
            raise UserError(f"decode is {form!r}; give 'pil', 'torch' or None")
        for name, kind in kinds.items():
            if kind != "text" and (kind not in DECODERS or (form == "pil" and kind == "audio")):
                raise UserError(f"decode={form!r} does not decode {name} ({kind}); leave it out for bytes")
        self.form, self.kinds, self.sandbox = form, kinds, sandbox

    def decode(
        self,
        pool: ThreadPoolExecutor,
        read: Callable[[dict[str, Any]], bytes],
        batch: dict[str, Any],
        name: str,
    ) -> Iterable[Any]:
        """Return the decoded media of a batch's column of locations.

        Raises:
            SampleError: of the first that cannot be decoded.
        """
        prefix = name.removesuffix("media")
        spans = batch[f"{prefix}span"]
        kind = self.kinds[name]
        if kind == "text":
            return [text if text is not None else read(place).decode("utf-8", "replace")
                    for text, place in zip(batch[f"{prefix}text"], batch[name], strict=True)]  # fmt: skip
        if not self.sandbox:
            decoder = DECODERS[kind]
            return pool.map(lambda place, span: self._convert(decoder(read(place), span)), batch[name], spans)
        data = list(pool.map(read, batch[name]))
        answers = map_in_sandbox(_LIMITS, DECODERS[kind], list(data), [(span,) for span in spans], get(kind))
        return [self._convert(_check_answer(answer)) for answer in answers]

    def _convert(self, pixels: np.ndarray[Any, Any]) -> Any:
        if pixels.ndim == 1:
            import torch

            return torch.from_numpy(np.array(pixels))
        if self.form == "pil":
            from PIL import Image

            frames = [Image.fromarray(frame) for frame in (pixels if pixels.ndim == 4 else pixels[None])]
            return frames if pixels.ndim == 4 else frames[0]
        import torch

        return torch.from_numpy(np.array(np.moveaxis(pixels, -1, -3), order="C"))


def _check_answer(answer: Any) -> np.ndarray[Any, Any]:
    """Return what a decoder has answered; it is not trusted to have done so."""
    if isinstance(answer, SampleError):
        raise answer
    shapes = {1: "f", 3: "u", 4: "u"}
    if not isinstance(answer, np.ndarray) or shapes.get(answer.ndim) != answer.dtype.kind:
        raise SampleError("bad_answer", "the decoder answered no decoded medium")
    return answer
