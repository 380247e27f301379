"""A cause that only a signal of the probe separates: silent recordings of the length and size of sound ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.curation.rule_suggestions import propose_rules
from mm_assets.operations.redrive import Outcome, select_redrives
from mm_embed_kernels.error_classes import lookup
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.base import results
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.resources import default_embedder
from mm_resources.tables.failure_events import FailureFilter
from tests.kernels.sounds import encode_audio, noise

COUNT = 4
SPEC = """
name: sounds
version: v1
gates: {max_failed_share: 1}
transcribe: {audio: whisper}
sources:
  - {name: calls, modality: audio, uri: "calls/*"}
"""


@pytest.fixture
def sounds(tmp_path: Path, platform: Any) -> Any:
    """Sound and silence in turn; kernels have died on the silent ones and on the last transcript."""
    calls = tmp_path / "calls"
    calls.mkdir()
    blobs = platform.catalog.blobs
    transcribe = default_embedder(get("audio")).transcribe_kernel("whisper", blobs, Limits())
    died = SampleError("decoder_crash", "the decoder died with SIGSEGV")
    for i in range(COUNT):
        (calls / f"loud{i}.wav").write_bytes(encode_audio(noise(1.0, seed=i)))
        # Not all zeros, so that each has its own hash.
        (calls / f"mute{i}.wav").write_bytes(encode_audio(noise(1.0, seed=i) * 0.0004))
        digest = hashlib.sha256((calls / f"mute{i}.wav").read_bytes()).hexdigest()
        segment = SegmentKernel(get("audio"), blobs)
        platform.catalog.cache.space(segment).append(results([digest], [died], 0.1, segment.result), {})
    (span,) = get("audio").segment((calls / "loud0.wav").read_bytes())
    key = f"{hashlib.sha256((calls / 'loud0.wav').read_bytes()).hexdigest()}#{span.span}"
    crashed = results([key], [SampleError("transcription_error", "the model died")], 0.1, transcribe.result)
    platform.catalog.cache.space(transcribe).append(crashed, {})
    (tmp_path / "spec.yaml").write_text(SPEC)
    platform.register(tmp_path / "spec.yaml")
    assert platform.backfill("sounds@v1", dagster=True)["audio"].status == "published"
    return platform


def classes(platform: Any) -> dict[str, int]:
    return platform.catalog.failures.by_class(platform.cell("sounds@v1", "audio"))


def test_a_signal_of_the_probe_tells_them_apart_and_a_transcript_is_tried_again(sounds: Any) -> None:
    assert classes(sounds) == {"decoder_crash": COUNT, "transcription_error": 1}
    found = propose_rules(sounds.catalog, sounds.cell("sounds@v1", "audio"))
    (cause,) = found.proposals
    assert (cause.stage, cause.error_class, cause.samples) == ("segments", "decoder_crash", COUNT)
    assert cause.rule is not None
    assert cause.rule.column not in ("size", "duration", "extension"), "which are the same for all"
    assert (cause.rule.caught, cause.rule.wrong) == (COUNT, 0)
    assert (found.caught, found.wrong, found.failed, found.sound) == (COUNT, 0, COUNT + 1, COUNT - 1)
    assert list(found.validation) == [cause.rule.column]

    page = sounds.instance.get_latest_materialization_event(
        dg.AssetKey("segments")
    ).asset_materialization.metadata
    chosen = "sounds@v1 --modality audio --stage segments --class CAUSE"
    shown = page["failures"].value
    assert f"| decoder_crash | {COUNT} | {lookup('decoder_crash').action} |" in shown
    assert f"list: `mm failures {chosen}`\n\ntry again: `mm redrive {chosen}`" in shown

    chosen_class = FailureFilter(error_class="transcription_error")
    (redrive,) = select_redrives(
        sounds.catalog, "sounds@v1", sounds.registry.cells("sounds@v1"), chosen_class
    )
    result = sounds.backfill("sounds@v1", redrive=chosen_class)["audio"]
    assert redrive.outcome(sounds.catalog) == Outcome(1, 1, 0)
    assert (result.computed["transcribe:whisper"], result.computed["segment"]) == (1, 0)
    assert classes(sounds) == {"decoder_crash": COUNT}

    rule = json.dumps({"audio": found.validation})
    sounds.register(_next_version(sounds, rule))
    again = sounds.backfill("sounds@v2")["audio"]
    assert again.status == "published"
    events = sounds.catalog.failures.read(sounds.cell("sounds@v2", "audio")).read_all().to_pylist()
    assert {(event["stage"], event["error_class"]) for event in events} == {
        ("validated_samples", "rejected_by_rule")
    }
    assert len(events) == COUNT


def _next_version(platform: Any, validation: str) -> Path:
    folder = Path(platform.registry.spec("sounds", "v1").sources[0].uri).parents[1]
    path = folder / "spec2.yaml"
    path.write_text(SPEC.replace("version: v1", "version: v2") + f"validation: {validation}\n")
    return path
