"""What models compute in, and that it is said truly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create, embedders, maker_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.inference import precision
from mm_embed_kernels.inference.precision import has_fast_bfloat16, resolve
from mm_resources.compute.environment import differences, environment, model_of
from mm_resources.settings import Settings

TEXTS = [
    "A lighthouse stands on the coast.",
    "Interest rates rose again.",
    "x",
    "",
    "\N{GRINNING FACE} " * 400,
    "word " * 200,
]


@pytest.mark.parametrize(
    ("flags", "fast"), [("sse avx512_bf16 amx_bf16 amx_tile", True), ("sse avx512_bf16", False), ("", False)]
)
def test_the_processor_decides(tmp_path: Path, flags: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_fast_bfloat16(tmp_path / "cpuinfo") is fast
    assert not has_fast_bfloat16(tmp_path / "absent")


def test_auto_takes_what_is_offered_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (True, False):
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda fast=fast: fast)
        assert resolve("auto", ["bfloat16"]) == ("bfloat16" if fast else "float32")
        assert (
            resolve("auto", [])
            == resolve("bfloat16", [])
            == resolve("auto", ["bfloat16"], "cuda")
            == "float32"
        )
        assert resolve("bfloat16", ["bfloat16"]) == "bfloat16"
    with pytest.raises(UserError, match="precision 'int8' is not known; there are: auto, float32, bfloat16"):
        resolve("int8", [])


def test_a_setting_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_PRECISION", "half")
    with pytest.raises(UserError, match="MM_PRECISION 'half' is not known"):
        Settings.from_environment()
    monkeypatch.setenv("MM_PRECISION", "float32")
    assert Settings.from_environment().exports()["MM_PRECISION"] == "float32"


@pytest.mark.parametrize("name", [name for name, kind in embedders().items() if kind.precisions])
def test_a_precision_keeps_its_tolerance_and_tells_itself(name: str) -> None:
    exact = create(name, threads=2)
    vectors = exact.embed(TEXTS)
    for short, tolerance in exact.precisions.items():
        other = create(name, short, threads=2)
        assert (other.precision, other.tolerance, other.space) == (short, tolerance, exact.space)
        assert other.fingerprint != exact.fingerprint
        found = other.embed(TEXTS)
        assert 0 < _worst(found, vectors) < tolerance
        # Alone, in other batches and threads: what `audit` does.
        assert _worst(np.concatenate([other.embed([text]) for text in TEXTS]), found) < tolerance
        assert maker_of(name, other.fingerprint).precision == short
    assert maker_of(name, exact.fingerprint).precision == maker_of(name, "unknown").precision == "float32"


def test_machines_that_would_choose_otherwise_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [model_of(create("minilm", "bfloat16"))]
    monkeypatch.setattr("mm_resources.compute.environment.has_fast_bfloat16", lambda: True)
    here = environment(models)
    monkeypatch.setattr("mm_resources.compute.environment.has_fast_bfloat16", lambda: False)
    assert differences(here, environment(models)) == [
        "the best precision of minilm is float32 there and bfloat16 here"
    ]
    assert environment([model_of(create("minilm"))]).keys() == here.keys() - {"the best precision of minilm"}


def _worst(one: Any, other: Any) -> float:
    return float(1 - (one * other).sum(axis=1).min())
