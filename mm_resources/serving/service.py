"""The core of a service: a store that is only read, its models, bounds and figures."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Event, Lock, Thread
from typing import Any, TypeVar, cast

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_texts
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.metrics import ServiceMetrics
from mm_resources.serving.models import ServiceEncoder
from mm_resources.serving.problems import Problem, one_line
from mm_resources.serving.work_queue import WorkQueue
from mm_resources.storage.layout import check_layout

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)
# Answers that are remembered: counts and figures of versions, which never change.
_REMEMBERED = 1_024


class Service:
    """The core that every face of a service reads from. Pins are resolved anew for each request.

    Args:
        catalog: of the store that is served.
        allow_marks: whether people may mark samples, the one thing that is written.
    """

    def __init__(
        self, catalog: Catalog, limits: ServiceLimits = ServiceLimits(), allow_marks: bool = False
    ) -> None:
        self.catalog, self.limits, self.allow_marks = catalog, limits, allow_marks
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock, self._warming = Lock(), Event()
        self.metrics = ServiceMetrics()
        self.encoder = ServiceEncoder(self.metrics)
        self.features = FeatureStore(catalog, self.encoder)
        self.work = WorkQueue(limits)
        self.metrics.watch_queue(lambda: self.work.pending)
        self.metrics.watch_pins(catalog)

    def pins(self, dataset_version: str | list[str] | None, modality: str | list[str]) -> list[Pin]:
        """Return the pins that a request reads.

        Raises:
            Problem: ``not_found`` for a version that is unknown or of which nothing is published.
        """
        names = require_texts("modality", modality, "image")
        versions = None
        if dataset_version is not None:
            versions = require_texts("dataset_version", dataset_version, "birds@v1")
        return self._found(lambda: self.features.pins(versions, names))

    def published(self, dataset_version: str, modality: str | None = None) -> list[Pin]:
        """Return the pins of a version, of one modality or all that it has published.

        Raises:
            Problem: as `pins`.
        """
        if modality is not None:
            return self.pins(dataset_version, modality)
        pins = self._found(lambda: list(self.catalog.registry.published_pins(dataset_version)))
        if not pins:
            raise Problem("not_found", f"nothing is published of {dataset_version}")
        return pins

    def read(self, resolve: Callable[[], list[Pin]], answer: Callable[[list[Pin]], Answer]) -> Answer:
        """Return an answer that is read from pins, see `FeatureStore.read_pins`."""
        return self.features.read_pins(resolve, answer)

    @staticmethod
    def _found(find: Callable[[], list[Pin]]) -> list[Pin]:
        try:
            return find()
        except UserError as error:
            raise Problem("not_found", str(error)) from error

    def remember(self, key: Hashable, compute: Callable[[], Answer]) -> Answer:
        """Return what was computed of a version before, or compute it; without rows of samples in it."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                self.metrics.cache.labels("counts", "hit").inc()
                return cast(Answer, self._known[key])
        self.metrics.cache.labels("counts", "miss").inc()
        found = compute()
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def find_obstacle(self) -> str:
        """Return what requests have to wait for, as a line; "" where they can be answered."""
        try:
            check_layout(self.catalog.store)
            if not self.catalog.registry.datasets():
                return "the store has no dataset yet; run `mm register SPEC` and `mm backfill`"
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"the store cannot be read: {error.strerror or type(error).__name__}"
        return "the models are being loaded" if self._warming.is_set() else ""

    def warm(self, *others: Callable[[], None]) -> None:
        """Load the models of the latest pins in the background, so that no query waits for one.

        Args:
            others: called before, in the background too.
        """
        self._warming.set()
        Thread(target=self._warm, args=others, name="mm-warm", daemon=True).start()

    def _warm(self, *others: Callable[[], None]) -> None:
        try:
            for other in others:
                other()
            problems: list[str] = []
            for pin in self.catalog.registry.latest_pins(problems=problems):
                self.encoder.load(pin.primary)
        except (OSError, UserError, RuntimeError) as error:
            # The queries that need it tell why it cannot be loaded.
            _log.warning("a model cannot be loaded: %s", one_line(error))
        finally:
            self._warming.clear()

    def close(self) -> None:
        """Wait for the answers in work, and end the processes of models."""
        self.work.close()
        self.encoder.close()
