"""Models of queries, each in a confined process that may die, and text queries embedded together."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from concurrent.futures import Future
from functools import lru_cache, partial
from typing import Any

import numpy as np

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import ProcessFailure, SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.sandbox.answers import BadAnswer
from mm_embed_kernels.sandbox.channel import loads
from mm_embed_kernels.sandbox.child_process import Child, ChildDied, ChildTimeout
from mm_embed_kernels.sandbox.model_process import enter_model, model_environment
from mm_embed_kernels.sandbox.scratch import Scratch
from mm_resources.registry.pins import PinnedTable
from mm_resources.retrieval.query_vectors import QueryEncoder, vectors_of_inputs
from mm_resources.serving.metrics import ServiceMetrics

# Pause for further texts, and most of them in one batch.
_PAUSE_SECONDS, _BATCH = 0.003, 64
# Ends of the model's process.
_ENDS = (ChildDied, ChildTimeout, BadAnswer)
# Own time of a batch, and time of it on the clock.
_SECONDS, _WALL_SECONDS = 60.0, 120.0
# Vectors of the last texts.
_CACHED = 4_096
_Work = tuple[str, Any, "Future[Any]"]


class ModelProcess:
    """One embedder in a child process; one thread asks it.

    Texts that arrive while it works, or within some milliseconds, are embedded together.
    """

    def __init__(self, embedder: Embedder, scratch: Scratch, metrics: ServiceMetrics) -> None:
        self._pickled = pickle.dumps(embedder)
        folders = {str(path.parent) for file in embedder.weights for path in (file, file.resolve())}
        self._child = Child(
            enter_model,
            pickle.dumps(None),
            sorted(folders),
            scratch.path,
            environment=partial(model_environment, scratch.path),
        )
        self._metrics, self._work = metrics, queue.SimpleQueue[_Work | None]()
        self._thread = threading.Thread(target=self._answer_all, name="mm-model", daemon=True)
        self._thread.start()

    def embed(self, kind: str, given: Any) -> Any:
        """Return the vector of a text (``text``), or of each of some inputs (``inputs``).

        Raises:
            UserError, SampleError: of the embedder.
            ProcessFailure: when the process ends; the next request starts another one.
        """
        future: Future[Any] = Future()
        self._work.put((kind, given, future))
        return future.result()

    def close(self) -> None:
        """End the thread and the process."""
        self._work.put(None)
        self._thread.join(_SECONDS)
        self._child.close()

    def _answer_all(self) -> None:
        left: _Work | None = None
        while True:
            first = left or self._work.get()
            left = None
            if first is None:
                return
            batch = [first]
            until = time.monotonic() + _PAUSE_SECONDS
            while first[0] == "text" and len(batch) < _BATCH:
                try:
                    found = self._work.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if found is None:
                    self._work.put(None)
                    break
                if found[0] != "text":
                    left = found
                    break
                batch.append(found)
            self._answer(batch)

    def _answer(self, batch: list[_Work]) -> None:
        kind, given = batch[0][0], batch[0][1]
        if kind == "text":
            self._metrics.batches.observe(len(batch))
            given = [text for _, text, _ in batch]
        try:
            answer = self._ask(kind, given)
            if kind == "text" and len(answer) != len(batch):
                raise ProcessFailure(f"the model answered {len(answer)} vectors for {len(batch)} texts")
        except Exception as error:  # noqa: BLE001 - raised again where the future is awaited
            if len(batch) > 1 and not isinstance(error.__cause__, _ENDS):
                # One text that the model refuses costs itself.
                for work in batch:
                    self._answer([work])
                return
            for _, _, future in batch:
                future.set_exception(error)
            return
        for i, (_, _, future) in enumerate(batch):
            future.set_result(answer[i] if kind == "text" else answer)

    def _ask(self, kind: str, given: Any) -> Any:
        name = content_hash(self._pickled)
        try:
            (answer,) = self._child.ask(_embed, [(name, self._pickled, kind, given)], _SECONDS, _WALL_SECONDS)
        except _ENDS as end:
            self._metrics.model_deaths.inc()
            raise ProcessFailure(f"{type(end).__name__}: {end}") from end
        if isinstance(answer, dict):
            raise (UserError if answer["user"] else ProcessFailure)(str(answer["message"])[:2000])
        return answer


# Embedders of this child, by the hash of their pickle.
_loaded: dict[str, Embedder] = {}


def _embed(name: str, pickled: bytes, kind: str, given: Any) -> Any:
    """Embed texts or inputs; runs in the child. Errors of the embedder are returned."""
    try:
        if name not in _loaded:
            embedder: Embedder = loads(pickled)
            embedder.load()
            _loaded[name] = embedder
        if kind == "text":
            return np.ascontiguousarray(_loaded[name].embed_text(list(given)), np.float32)
        vectors, refused = vectors_of_inputs(_loaded[name], list(given))
        return [*vectors], [SampleError(each.error_class, each.message) for each in refused]
    except Exception as error:  # noqa: BLE001 - the parent raises it again
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return {"message": f"{kind}{error}", "user": not kind}


class ServiceEncoder(QueryEncoder):
    """Encodes queries by models in processes of their own; remembers the vectors of the last texts."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        super().__init__()
        self._metrics, self._scratch = metrics, Scratch()
        self._processes: dict[str, ModelProcess] = {}
        self._lock = threading.Lock()
        self._text = lru_cache(_CACHED)(self._compute_text)

    def _embed_text(self, embedder: Embedder, text: str) -> np.ndarray[Any, Any]:
        before = self._text.cache_info().misses
        vector = self._text(self._process(embedder), text)
        outcome = "miss" if self._text.cache_info().misses > before else "hit"
        self._metrics.cache.labels("text_vectors", outcome).inc()
        return np.array(vector)

    @staticmethod
    def _compute_text(process: ModelProcess, text: str) -> Any:
        return process.embed("text", text)

    def _embed_inputs(
        self, embedder: Embedder, inputs: list[Any]
    ) -> tuple[list[np.ndarray[Any, Any]], list[SampleError]]:
        if not inputs:
            return [], []
        vectors, refused = self._process(embedder).embed("inputs", inputs)
        return [np.asarray(vector) for vector in vectors], list(refused)

    def _process(self, embedder: Embedder) -> ModelProcess:
        key = f"{embedder.name} {embedder.model} {embedder.fingerprint}"
        with self._lock:
            if key not in self._processes:
                self._processes[key] = ModelProcess(embedder, self._scratch, self._metrics)
            return self._processes[key]

    def load(self, pinned: PinnedTable) -> None:
        """Load the embedder of a table in its process, unless it is loaded.

        Raises:
            UserError: where it cannot be.
        """
        self._process(self.embedder(pinned)).embed("inputs", [])

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            while self._processes:
                self._processes.popitem()[1].close()
        self._scratch.remove()
