"""Measure memory and time of probing, segmenting and decoding recordings of a minute, an hour, ten hours.

    python -m benchmarks.long_audio [--folder /tmp] [--hours 0.0167 1 10]

Each call runs in a process of its own under the sandbox's limit on address space; the column `grown` is the
growth of peak resident memory over the imports. The recordings are written to `--folder` and deleted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import measure

RATE = 16_000
KINDS = {
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "wav": ("WAV", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def record(path: Path, hours: float) -> None:
    """Write a recording of tone and noise, minute by minute."""
    import numpy as np
    import soundfile

    kind, subtype = KINDS[path.suffix[1:]]
    dice = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype, format=kind) as out:
        for _ in range(max(1, round(hours * 60))):
            time_axis = np.arange(60 * RATE) / RATE
            out.write(
                (0.2 * np.sin(2 * np.pi * 220 * time_axis) + 0.05 * dice.standard_normal(60 * RATE)).astype(
                    np.float32
                )
            )


def probe(path: Path) -> Any:
    """Probe a recording; return its measured seconds."""
    from mm_embed_kernels.modalities import get

    return get("audio").probe(path)["measured_seconds"]


def segment(path: Path) -> Any:
    """Segment a recording; return the number of segments."""
    from mm_embed_kernels.modalities import get

    return len(get("audio").segment(path))


def decode(path: Path) -> Any:
    """Decode the last window, which is the longest seek; return whether it has sound."""
    from mm_embed_kernels.embedders import create
    from mm_embed_kernels.modalities import get

    return create("aisfx").decode(path, get("audio").segment(path)[-1].span).any()


def main() -> None:
    """Print a line for each recording and call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--hours", type=float, nargs="+", default=[1 / 60, 1.0, 10.0])
    parser.add_argument("--kinds", nargs="+", default=["flac", "ogg"], choices=list(KINDS))
    arguments = parser.parse_args()
    print(
        f"{'recording':>14} {'size':>8} | {'call':>8} {'seconds':>8} {'base MiB':>9} "
        f"{'grown MiB':>9} | result"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for kind in arguments.kinds:
            warm = Path(folder) / f"warm.{kind}"
            record(warm, 1 / 60)
            for hours in arguments.hours:
                path = Path(folder) / f"long.{kind}"
                record(path, hours)
                for call in (probe, segment, decode):
                    base, grown, seconds, value = measure(call, path, warm)
                    name = f"{hours * 60:g} min {kind}"
                    size = f"{path.stat().st_size >> 20} MiB"
                    measured = f"{seconds:8.2f} {base:9d} {grown:9.1f} | {value}"
                    print(f"{name:>14} {size:>8} | {call.__name__:>8} {measured}", flush=True)
                path.unlink()


if __name__ == "__main__":
    main()
