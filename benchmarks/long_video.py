"""Measure memory and time of probing, segmenting and decoding videos of a minute, half an hour, two hours.

    python -m benchmarks.long_video [--folder /tmp] [--minutes 1 30 120] [--size 640x360]

Each call runs in a process of its own under the sandbox's limit on address space; the column `grown` is the
growth of peak resident memory over a first call on a video of a few seconds. The videos are written to
`--folder` (H.264, 25 frames/s, a key frame every ten seconds) and deleted. `raw_decode` decodes the same
frames with PyAV alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import measure

RATE = 25


def film(path: Path, seconds: float, size: tuple[int, int]) -> None:
    """Write a video: ten seconds of a pan over patches, encoded once and repeated packet by packet."""
    import av
    import numpy as np

    dice = np.random.default_rng(0)
    width, height = size
    scene = np.kron(
        dice.integers(0, 255, (height // 8 + 1, width // 8 + 80, 3), dtype=np.uint8),
        np.ones((8, 8, 1), np.uint8),
    )
    with av.open(str(path), "w", format="mp4") as out:
        track: Any = out.add_stream("libx264", rate=RATE)
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        track.options = {"preset": "ultrafast", "g": str(10 * RATE), "bf": "0", "x264-params": "scenecut=0"}
        packets = []
        for number in range(10 * RATE):
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(scene[:height, 2 * number : 2 * number + width])
            )
            picture.pts = number
            packets += [(bytes(packet), packet.is_keyframe) for packet in track.encode(picture)]
        packets += [(bytes(packet), packet.is_keyframe) for packet in track.encode()]
        for number in range(round(seconds * RATE)):
            data, key = packets[number % len(packets)]
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream, packet.is_keyframe = (
                1,
                track.codec_context.time_base,
                track,
                key,
            )
            out.mux(packet)


def probe(path: Path) -> Any:
    """Probe a video; return its number of frames."""
    from mm_embed_kernels.modalities import get

    return get("video").probe(path)["frames"]


def segment(path: Path) -> Any:
    """Segment a video; return the number of segments."""
    from mm_embed_kernels.modalities import get

    return len(get("video").segment(path))


def decode(path: Path) -> Any:
    """Decode the first, the middle and the last scene with one open; return the number of frames."""
    from mm_embed_kernels.embedders import create

    embedder, spans = create("conse_frames"), _spans(path)
    return sum(len(embedder.decode(path, span)) for span in (spans[0], spans[len(spans) // 2], spans[-1]))


def raw_decode(path: Path) -> Any:
    """Decode the same frames with PyAV alone; return their number.

    For each frame: seek to the key frame before it, then decode up to it.
    """
    import av

    from mm_embed_kernels.media.spans import seconds_of

    spans, frames = _spans(path), 0
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        track.codec_context.thread_count = 1
        for span in (spans[0], spans[len(spans) // 2], spans[-1]):
            start, end = seconds_of(span)
            for i in range(4):
                target = start + (end - start) * (i + 0.5) / 4
                container.seek(int(target / track.time_base), stream=track)
                for frame in container.decode(track):
                    if frame.time + 1 / RATE > target:
                        frame.to_ndarray(format="rgb24")
                        frames += 1
                        break
    return frames


def _spans(path: Path) -> list[str]:
    from mm_embed_kernels.media.spans import span_of
    from mm_embed_kernels.media.video import describe
    from mm_embed_kernels.modalities.video import scenes

    return [span_of(*scene) for scene in scenes(describe(path).duration, [])]


def main() -> None:
    """Print a line for each video and call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 30.0, 120.0])
    parser.add_argument("--size", default="640x360")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    print(
        f"{'video':>14} {'size':>9} | {'call':>10} {'seconds':>8} {'base MiB':>9} {'grown MiB':>9} | result"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        warm, path = Path(folder) / "warm.mp4", Path(folder) / "long.mp4"
        film(warm, 12, (width, height))
        for minutes in arguments.minutes:
            film(path, minutes * 60, (width, height))
            for call in (probe, segment, decode, raw_decode):
                base, grown, seconds, value = measure(call, path, warm)
                size = f"{path.stat().st_size >> 20:,} MiB"
                measured = f"{seconds:8.2f} {base:9d} {grown:9.1f} | {value}"
                print(f"{minutes:>10g} min {size:>9} | {call.__name__:>10} {measured}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
