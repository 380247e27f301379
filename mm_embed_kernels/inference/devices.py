"""Devices: how arrays reach them, and what tells that their memory is used up."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_device(array: np.ndarray[Any, Any], device: str) -> Any:
    """Return a tensor of an array on a device; to a GPU by pinned memory, without waiting for the copy.

    From pageable memory the driver copies twice, and the calling thread waits for it.
    """
    import torch

    tensor = torch.tensor(array)
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device lacks memory; if so, release what torch keeps of it."""
    # By name: a process without torch raises none of these.
    if type(error).__name__ != "OutOfMemoryError" or not type(error).__module__.startswith("torch"):
        return False
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True
