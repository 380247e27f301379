"""Readers that live as long as the soak: searches, and epochs of a loader with the media of its rows."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.features.removed_rows import RemovedRows

_DIMENSION = 256
_WARM = 20


def poll_searches(root: str, remote: bool, warm: Any, ended: Any, answers: Any) -> None:
    """Search all versions, and one of them, with one store that stays open."""
    from mm_resources.retrieval.feature_store import FeatureStore

    features, dice, seen = FeatureStore.open(root), random.Random(0), _Seen(remote, warm)
    while not ended.is_set():
        with seen:
            every = features.search([1.0] * _DIMENSION, modality="text", k=20)
            if not every.num_rows:
                seen.note("empty answer")
            version = dice.choice(every["dataset_version"].to_pylist())
            one = features.search(
                [1.0] * _DIMENSION, dataset_version=version, modality="text", k=5, mode="vector"
            )
            features.decisions(version, "text")
            features.explain(one["feature_id"][0].as_py(), version)
        time.sleep(0.2)
    answers.send(dict(seen.counts))


def poll_epochs(root: str, remote: bool, warm: Any, ended: Any, answers: Any) -> None:
    """Load whole epochs with media of one version after the other, and compare media and texts."""
    from mm_resources.retrieval.feature_store import FeatureStore

    dice, seen = random.Random(0), _Seen(remote, warm)
    while not ended.is_set():
        with seen:
            features = FeatureStore.open(root)
            pins = list(features.catalog.registry.latest_pins(modalities=["text"]))
            if not pins:
                raise UserError("nothing is published")
            chosen = features.training_set(
                dice.choice(pins).dataset_version, modality="text", columns=["text"]
            )
            rows = 0
            for batch in chosen.to_torch(batch_size=4, shuffle=True, media=True):
                rows += len(batch["text"])
                for data, text in zip(batch["media"], batch["text"], strict=True):
                    if data.decode() != text:
                        seen.note("media of another row")
            if rows != chosen.manifest["rows"]:
                seen.note("an epoch of another length")
        time.sleep(0.2)
    answers.send(dict(seen.counts))


class _Seen:
    """Counts of rounds and of the errors that ended some of them; what a reader may meet is told apart.

    Args:
        warm: event that is set once all libraries are loaded.
    """

    def __init__(self, remote: bool, warm: Any) -> None:
        self.counts: Counter[str] = Counter()
        self.remote, self.warm = remote, warm

    def note(self, wrong: str) -> None:
        self.counts[f"WRONG {wrong}"] += 1

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        if error is None:
            self.counts["rounds"] += 1
            if self.counts["rounds"] == _WARM:
                self.warm.set()
            return True
        line = f"{type(error).__name__}: {error}"
        gone = isinstance(error, RemovedRows) or "no published feature, segment or sample" in line
        if gone and "\n" not in line:
            self.counts["forgotten meanwhile"] += 1
        elif isinstance(error, UserError) and "nothing is published" in line:
            self.counts["nothing published yet"] += 1
        elif self.remote and _is_outage(error):
            self.counts["store away"] += 1
        else:
            self.counts[f"WRONG {line[:300]}"] += 1
        time.sleep(0.5)
        return isinstance(error, Exception)


def _is_outage(error: BaseException) -> bool:
    """Return whether an error is that of a store that does not answer."""
    words = ("connect", "request", "timed out", "timeout", "reset", "refused", "disconnected")
    store = isinstance(error, SampleError) and error.error_class == "store_error"
    return store or isinstance(error, OSError) or any(word in str(error).lower() for word in words)
