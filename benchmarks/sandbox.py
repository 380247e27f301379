"""Measure the sandbox's cost on healthy media: probe and decode in a child against the same in the process.

    python -m benchmarks.sandbox [ROUNDS] [--clock]

Photographs of 4 megapixels, sounds of 10 s, videos of 2 s, texts of 4,000 characters, 32 of each: one batch
of a stage. A round does both ways one after the other; the ratio is that of the fastest rounds, the spread
that of all rounds. Counted are the CPU seconds of this process and of the child, which other work on the
machine does not change; with ``--clock`` it is the time on the clock.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import ratios
from benchmarks.ratios import Row
from mm_embed_kernels.embedders import create
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox, call_guarded
from tests.kernels.media_samples import ENGLISH, encode_image, picture
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan

COUNT = 32
_EMBEDDERS = {"image": "conse", "audio": "aisfx", "video": "conse_frames"}


def healthy_media() -> dict[str, bytes]:
    """Return the bytes of one sample of each modality."""
    return {
        "text": (ENGLISH * 40).encode(),
        "image": encode_image(picture((2_400, 1_700)), "JPEG", quality=92),
        "audio": encode_audio(noise(10.0, 44_100), "FLAC", 44_100),
        "video": encode_video(pan(rate=25, size=(640, 360)), rate=25),
    }


def open_sample(modality: str, embedder: Any, data: bytes) -> Any:
    """Probe and segment one sample and decode its first segment, as the pipeline does."""
    kind = get(modality)
    row, segments = kind.probe(data), kind.segment(data)
    decoded = None if embedder is None else embedder.decode(data, segments[0].span)
    return row, [vars(segment) for segment in segments], decoded


def cpu_seconds(sandbox: Sandbox) -> float:
    """Return the CPU seconds that this process and the children of a sandbox have spent."""
    pids = [child._process.pid for child in sandbox._children if child._process is not None]
    # The clock of another process (clock_getcpuclockid(3)).
    return time.process_time() + sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def seconds(call: Callable[[], list[Any]], clock: Callable[[], float]) -> float:
    """Return the seconds of a call, whose outcomes must all be successes."""
    began = clock()
    outcomes = call()
    spent = clock() - began
    assert len(outcomes) == COUNT
    assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes[0]
    return spent


def rows(share: float) -> Iterator[Row]:
    """Measure all modalities together, over the same media at any share."""
    sandbox = Sandbox(Limits())
    each = list(measure(sandbox, max(ratios.PAIRS, round(7 * share))).values())
    sandbox.close()
    rounds = [[sum(part) for part in zip(*spent, strict=True)] for spent in zip(*each, strict=True)]
    yield ratios.row(
        "sandboxed decode of healthy media", (out / within for within, out in rounds), goal=1.05, sense="<="
    )


def measure(
    sandbox: Sandbox, rounds: int, clock: Callable[[], float] | None = None
) -> dict[str, list[tuple[float, float]]]:
    """Return for each modality and round the seconds in the process and in the sandbox, by default of CPU."""
    times = {}
    read = clock or (lambda: cpu_seconds(sandbox))
    for modality, data in healthy_media().items():
        embedder = create(_EMBEDDERS[modality]) if modality in _EMBEDDERS else None
        items = [(modality, embedder, data)] * COUNT
        ways: list[Callable[[], list[Any]]] = [
            lambda items=items: [call_guarded(open_sample, item) for item in items],  # type: ignore[misc]
            lambda items=items: sandbox.map(open_sample, items),  # type: ignore[misc]
        ]
        for way in ways:
            seconds(way, time.perf_counter)  # warm-up: imports and the child's start
        times[modality] = [(seconds(ways[0], read), seconds(ways[1], read)) for _ in range(rounds)]
    return times


def main() -> None:
    """Print milliseconds and ratios by modality."""
    words = [word for word in sys.argv[1:] if word != "--clock"]
    rounds, clock = int(words[0]) if words else 7, time.perf_counter if "--clock" in sys.argv else None
    sandbox = Sandbox(Limits())
    total = [0.0, 0.0]
    for modality, spent in measure(sandbox, rounds, clock).items():
        inside, outside = (min(column) for column in zip(*spent, strict=True))
        ratios_of_rounds = [pair[1] / pair[0] for pair in spent]
        total[0], total[1] = total[0] + inside, total[1] + outside
        print(
            f"{modality:6} {1000 * inside / COUNT:7.2f} ms in the process, "
            f"{1000 * outside / COUNT:7.2f} ms sandboxed: ratio {outside / inside:.3f} "
            f"(rounds {min(ratios_of_rounds):.3f} to {max(ratios_of_rounds):.3f}, "
            f"median {statistics.median(ratios_of_rounds):.3f})"
        )
    print(f"all    ratio {total[1] / total[0]:.3f}")
    sandbox.close()


if __name__ == "__main__":
    main()
