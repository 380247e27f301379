"""Voice activity detection by Silero VAD (https://github.com/snakers4/silero-vad), in ONNX without torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.inference.weights import installed_hash, package_folder

# As the model was trained: 16 kHz, frames of 32 ms, each preceded by the last 4 ms of the frame before.
RATE, FRAME, _CONTEXT = 16_000, 512, 64
# Threshold of the model's authors.
THRESHOLD = 0.5
_STATE = (1, 1, 128)
# About 16 s per call, as in the package, so that memory is bounded.
_CALL_FRAMES = 512


def weights() -> Path:
    """Return the model file of the installed package.

    Raises:
        UserError: when silero-vad is not installed.
    """
    folder = package_folder("speech detection", "silero_vad", "silero-vad")
    return folder / "data" / "silero_vad_16k_sequence.onnx"


def probabilities(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the probability of speech in each frame of 32 ms.

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
    blocks = [np.zeros(0, np.float32)]
    for start in range(0, count, _CALL_FRAMES):
        block = np.ascontiguousarray(frames[start : start + _CALL_FRAMES])
        values, hidden, cell = _session().run(
            ["speech_probs", "hn", "cn"], {"input": block, "h": hidden, "c": cell}
        )
        blocks.append(values.reshape(-1))
    return np.concatenate(blocks)


@cache
def _session() -> Any:
    import onnxruntime

    installed_hash("speech detection", (weights(),))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(weights()), options, providers=["CPUExecutionProvider"])
