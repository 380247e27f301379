"""What a model computes in: float32, or a shorter format where an embedder declares it and the processor is faster with it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from mm_embed_kernels.errors import UserError

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (AUTO, FLOAT32, BFLOAT16)


def resolve(asked: str, offered: Collection[str], device: str = "cpu") -> str:
    """The precision that is meant: the same on all machines of one kind, and found without a library.

    ``auto`` is bfloat16 where it is offered and the processor multiplies tiles of it, else float32; what is asked for and
    not offered is float32, so that one setting can speak for all embedders.

    Args:
        asked: one of `PRECISIONS`.
        offered: what an embedder declares besides float32.

    Raises:
        UserError: for one that does not exist.
    """
    if asked not in PRECISIONS:
        raise UserError(f"precision {asked!r} is not known; there are: {', '.join(PRECISIONS)}")
    if asked == AUTO:
        asked = BFLOAT16 if device == "cpu" and fast_bfloat16() else FLOAT32
    return asked if asked in offered else FLOAT32


@cache
def fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether bfloat16 is faster than float32 here.

    AMX alone says so: without it, Intel's AVX512_BF16 multiplied at half the rate of float32 (benchmarks, "Speed" in the README).
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:  # not Linux
        return False
    return "amx_bf16" in flags.split()
