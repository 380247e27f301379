"""Where somebody speaks: Silero VAD (https://github.com/snakers4/silero-vad), its bundled ONNX weights, without torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError

# As the model was trained: 16 kHz, frames of 32 ms, each preceded by the last 4 ms of the frame before.
RATE, FRAME, _CONTEXT = 16_000, 512, 64
# The threshold that the model's authors use.
THRESHOLD = 0.5
_STATE = (1, 1, 128)
# About 16 s a call, as in the package: memory stays bounded.
_CALL_FRAMES = 512


def weights() -> Path:
    # Looked up, not imported: importing the package would bring torch into every sandboxed child.
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise UserError(
            "speech detection needs the package silero-vad, which is not installed; run `make install`"
        )
    return Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"


def speech(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probability of speech in each frame of 32 ms.

    Args:
        samples: mono float32 [n] at 16 kHz; the last frame is padded with zeros.

    Returns:
        float32 [ceil(n / 512)].
    """
    count = -(-len(samples) // FRAME)
    padded = np.zeros(_CONTEXT + count * FRAME, np.float32)
    padded[_CONTEXT : _CONTEXT + len(samples)] = samples
    frames = (
        np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + FRAME)[::FRAME]
        if count
        else np.zeros((0, 1))
    )
    hidden, cell = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
    found = [np.zeros(0, np.float32)]
    for place in range(0, count, _CALL_FRAMES):
        block = np.ascontiguousarray(frames[place : place + _CALL_FRAMES])
        values, hidden, cell = _session().run(
            ["speech_probs", "hn", "cn"], {"input": block, "h": hidden, "c": cell}
        )
        found.append(values.reshape(-1))
    return np.concatenate(found)


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(weights()), options, providers=["CPUExecutionProvider"])
