"""OpenLineage events of a stage: its start, its end, and the publish, with inputs, outputs and facets.

They are sent where the environment configures OpenLineage's client (``OPENLINEAGE_URL``,
``OPENLINEAGE_CONFIG``, ``OPENLINEAGE__...``): to HTTP, a file or Kafka. Whatever goes wrong is a warning.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.lineage_datasets import (
    PRODUCER,
    checked_table,
    feature_tables,
    source_datasets,
    stage_inputs,
    stage_output,
)
from mm_assets.event_queue import EventQueue, is_wanted, open_queue
from mm_embed_kernels import __version__
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.urls import redact_text

# Seconds that the end of a stage waits for its events to be sent, once they are: see `EventQueue.flush`.
FLUSH_SECONDS = 2.0
Result = dg.MaterializeResult[Any]


@contextmanager
def send_lineage(run: CellRun, about: str) -> Iterator[Callable[[Result], None]]:
    """Send the events of a stage around its work; yield what takes its result.

    Args:
        about: description of the stage.
    """
    queue = open_queue() if is_wanted() else None
    if queue is None:
        yield lambda _: None
        return
    stage = _StageEvents(run, about, queue)
    stage.send("START")
    results: list[Result] = []
    try:
        yield results.append
    except BaseException as error:
        stage.send("FAIL", error=error)
        raise
    stage.send("COMPLETE", results[0] if results else None)


def _closed_gates(result: Result | None) -> list[str]:
    """Return what the gates that a stage has closed say."""
    checks = (result.check_results if result is not None else None) or []
    return [
        f"{check.check_name}: {check.description}"
        for check in checks
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]


class _StageEvents:
    """The events of one stage in one run."""

    def __init__(self, run: CellRun, about: str, queue: EventQueue) -> None:
        self.run, self.about, self.queue = run, about, queue
        self.namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or "mm"
        cell = run.cell
        self.job = f"{cell.dataset}.{cell.modality}"

    def _id(self, name: str) -> str:
        """Return the id of a part of the run: the same for all of its events."""
        return str(uuid.uuid5(uuid.UUID(self.run.run_id), name))

    def send(self, state: str, result: Result | None = None, error: BaseException | None = None) -> None:
        """Send an event, and that of the whole run at its first stage, its last one, and a failure."""
        try:
            first, last = self.run.asset == STAGES[0], self.run.asset == STAGES[-1]
            if (state == "START" and first) or (state == "COMPLETE" and last) or state == "FAIL":
                self.queue.put(self._run_event(state, error))
            elif closed := _closed_gates(result):
                # The stage is complete, and Dagster ends the run behind it.
                self.queue.put(self._run_event("FAIL", UserError("; ".join(closed))))
            self.queue.put(self._stage_event(state, result, error))
            if result is not None and result.check_results:
                self.queue.put(self._checks_event("START", result))
                self.queue.put(self._checks_event("COMPLETE", result))
            if state != "START":
                self.queue.flush(FLUSH_SECONDS)
        except Exception as problem:  # noqa: BLE001 - lineage is never in the way of a run
            told = redact_text(str(problem))[:200]
            self.run.context.log.warning(
                f"no OpenLineage event of {self.run.asset}: {type(problem).__name__}: {told}"
            )

    def _stage_event(self, state: str, result: Result | None, error: BaseException | None) -> Any:
        from openlineage.client.event_v2 import Job
        from openlineage.client.facet_v2 import documentation_job

        told = documentation_job.DocumentationJobFacet(description=self.about, producer=PRODUCER)
        job = Job(
            self.namespace, f"{self.job}.{self.run.asset}", {**self._job_type("STAGE"), "documentation": told}
        )
        inputs = [*source_datasets(self.run), *stage_inputs(self.run)]
        outputs = [stage_output(self.run, result), *(feature_tables(self.run, result) if result else [])]
        return self._event(state, self._id(self.run.asset), job, self._parent(), error, inputs, outputs)

    def _checks_event(self, state: str, result: Result) -> Any:
        from openlineage.client.event_v2 import Job

        name = f"{self.run.asset}.checks"
        job = Job(self.namespace, f"{self.job}.{name}", self._job_type("TEST"))
        inputs = [checked_table(self.run, result)] if state == "COMPLETE" else []
        return self._event(state, self._id(name), job, self._parent(), None, inputs, [])

    def _parent(self) -> dict[str, Any]:
        from openlineage.client.facet_v2 import parent_run

        facet = parent_run.ParentRunFacet(
            run=parent_run.Run(self.run.run_id),
            job=parent_run.Job(self.namespace, self.job),
            producer=PRODUCER,
        )
        return {"parent": facet}

    def _run_event(self, state: str, error: BaseException | None) -> Any:
        from openlineage.client.event_v2 import Job

        job = Job(self.namespace, self.job, self._job_type("CELL"))
        return self._event(state, self.run.run_id, job, {}, error, [], [])

    @staticmethod
    def _job_type(kind: str) -> dict[str, Any]:
        from openlineage.client.facet_v2 import job_type_job

        facet = job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="DAGSTER", jobType=kind, producer=PRODUCER
        )
        return {"jobType": facet}

    def _event(
        self,
        state: str,
        run_id: str,
        job: Any,
        facets: dict[str, Any],
        error: BaseException | None,
        inputs: list[Any],
        outputs: list[Any],
    ) -> Any:
        from openlineage.client.event_v2 import Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run, processing_engine_run, tags_run

        cell = self.run.cell
        tags = {"dataset": cell.dataset, "version": cell.version, "modality": cell.modality}
        facets = {
            **facets,
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=dg.__version__,
                name="dagster",
                openlineageAdapterVersion=__version__,
                producer=PRODUCER,
            ),
            "tags": tags_run.TagsRunFacet(
                tags=[tags_run.TagsRunFacetFields(key, value, "MM") for key, value in tags.items()],
                producer=PRODUCER,
            ),
        }
        if error is not None:
            told = redact_text(str(error))[:2_000] or type(error).__name__
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=told, programmingLanguage="python", producer=PRODUCER
            )
        return RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            producer=PRODUCER,
            run=Run(run_id, facets),
            job=job,
            eventType=RunState[state],
            inputs=inputs,
            outputs=outputs,
        )
