"""Calibration: batch size and threads of each embedder, measured once on this machine for later runs.

Kept beside the Dagster home, by machine, and never in the store. It affects speed, not vectors: it is part of
no fingerprint, and settings that change a vector beyond the embedder's tolerance are rejected.
"""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders import Embedder, create
from mm_embed_kernels.identity import digest, library_versions
from mm_embed_kernels.inference.precision import FLOAT32
from mm_embed_kernels.inference.runtime import cpu_count, keep_freed_memory

# Time of one measurement, seconds; its best pass counts, since other work on the machine only slows passes.
SECONDS = 1.5
# The gain from which another setting replaces the default.
_GAIN = 1.05
_MOST_ROWS = 128


@dataclass(frozen=True)
class Setting:
    """Batch size and threads of an embedder on this machine.

    Attributes:
        batch_size: rows per forward pass.
        threads: concurrent forward passes.
        rate: segments a second, decoding left out.
        kept: whether later runs use it.
    """

    embedder: str
    precision: str
    batch_size: int
    threads: int
    rate: float
    kept: bool = False


def machine() -> str:
    """Identify this kind of machine: processor, the cores that this process may use, and torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
        )
    except OSError:
        processor = platform.processor()
    torch = library_versions(["torch"])["torch"]
    return f"{processor or platform.machine()}, {cpu_count()} cores, torch {torch}"


def stored_setting(path: Path, embedder: str, precision: str = FLOAT32) -> Setting | None:
    """The setting measured on a machine of this kind; None where there is none or the file is unreadable."""
    found = _read(path).get(_cpu_name(), {}).get("settings", {}).get(f"{embedder} {precision}")
    try:
        return None if found is None else Setting(**found)
    except TypeError:
        return None


def calibrate(
    path: Path, names: list[str], precision: str, seconds: float = SECONDS
) -> Iterator[list[Setting]]:
    """Measure embedders one after the other, and write the best setting of each to `path`.

    Args:
        precision: number format of inference (see `mm_embed_kernels.inference.precision`). Others that an
            embedder declares are measured too, to be compared; the precision is part of fingerprints, so the
            user chooses it.
        seconds: of one measurement.

    Raises:
        UserError: for a model that is missing.
    """
    keep_freed_memory()
    for name in names:
        first = create(name, precision)
        tried: list[Setting] = []
        for offered in dict.fromkeys((first.precision, FLOAT32, *first.precisions)):
            found = _measure_settings(name, offered, seconds)
            best = _best(found)
            tried += [
                replace(setting, kept=setting is best and offered == first.precision) for setting in found
            ]
        _save(path, next(setting for setting in tried if setting.kept))
        yield tried


def _best(found: list[Setting]) -> Setting:
    """The fastest setting; the default, which is the first, unless another one is clearly faster."""
    best = max(found, key=lambda setting: setting.rate)
    return best if best.rate > _GAIN * found[0].rate else found[0]


def _measure_settings(name: str, precision: str, seconds: float) -> list[Setting]:
    """Measure the default setting, then other batch sizes, then other thread counts with the best of them."""
    cores = cpu_count()
    default = create(name, precision, threads=cores)
    inputs = _inputs(default)
    reference = np.asarray(default.embed(inputs))
    found: list[Setting] = []

    def measure(batch_size: int, threads: int) -> None:
        embedder = create(name, precision, batch_size=batch_size, threads=threads)
        if any((setting.batch_size, setting.threads) == (batch_size, threads) for setting in found):
            return
        if _largest_distance(np.asarray(embedder.embed(inputs)), reference) <= embedder.tolerance:
            found.append(
                Setting(name, precision, batch_size, threads, round(_rate(embedder, inputs, seconds), 2))
            )

    measure(default.batch_size, cores)
    for factor in (0.25, 0.5, 2, 4):
        measure(max(1, min(_MOST_ROWS, int(default.batch_size * factor))), cores)
    best = _best(found).batch_size
    for threads in sorted({1, cores // 2} - {0, cores}):
        measure(best, threads)
    return found


def _rate(embedder: Embedder, inputs: Any, seconds: float) -> float:
    fastest, until = float("inf"), time.perf_counter() + seconds
    while fastest == float("inf") or time.perf_counter() < until:
        began = time.perf_counter()
        embedder.embed(inputs)
        fastest = min(fastest, time.perf_counter() - began)
    return len(inputs) / fastest


def _inputs(embedder: Embedder) -> Any:
    """Inputs of a model for about half a second: sentences of a few to many words, or noise."""
    dice = np.random.default_rng(0)
    rows = int(np.clip(0.5 / embedder.seconds, 4 * cpu_count(), _MOST_ROWS * 4))
    if embedder.input_shape is None:
        return ["word " * int(length) for length in np.sort(dice.gamma(2.0, 10.0, rows))]
    shape = (rows, *embedder.input_shape)
    if embedder.input_dtype == "uint8":
        return dice.integers(0, 255, shape, dtype=np.uint8)
    return dice.standard_normal(shape).astype(embedder.input_dtype) * 0.1


def _largest_distance(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(1 - ((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def _cpu_name() -> str:
    return digest("machine", machine())[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _save(path: Path, setting: Setting) -> None:
    whole = _read(path)
    here = whole.setdefault(_cpu_name(), {"machine": machine(), "settings": {}})
    here["settings"][f"{setting.embedder} {setting.precision}"] = asdict(setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    unfinished.write_text(json.dumps(whole, indent=1), "utf-8")
    unfinished.replace(path)
