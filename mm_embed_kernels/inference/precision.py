"""Precision of models: float32, or a shorter format where embedder and processor support it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from mm_embed_kernels.errors import unknown_choice

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (AUTO, FLOAT32, BFLOAT16)


def resolve(setting: str, offered: Collection[str], device: str = "cpu") -> str:
    """Return the precision that a setting means: the same on all machines of one kind.

    ``auto`` is bfloat16 where it is offered and the processor multiplies tiles of it, else float32. A
    precision that is not offered becomes float32, so that one setting serves all embedders.

    Args:
        setting: one of `PRECISIONS`.
        offered: precisions that the embedder declares besides float32.
        device: of the model.

    Raises:
        UserError: when the setting is none of `PRECISIONS`.
    """
    if setting not in PRECISIONS:
        raise unknown_choice("precision", setting, PRECISIONS)
    if setting == AUTO:
        setting = BFLOAT16 if device == "cpu" and has_fast_bfloat16() else FLOAT32
    return setting if setting in offered else FLOAT32


@cache
def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this processor computes bfloat16 faster than float32, which needs AMX.

    Without it, Intel's AVX512_BF16 multiplied at half the rate of float32 ("Speed" in
    docs/how-to/models.md).
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:  # not Linux
        return False
    return "amx_bf16" in flags.split()
