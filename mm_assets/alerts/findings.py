"""Things to tell: failed checks of the runs that have ended, and stale datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from mm_assets.alerts.alert import CHECKS, GATES, SOURCES, STALE, Alert
from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_assets.cells.dataset_verdicts import newest_pin
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.spec.model import seconds
from mm_resources.catalog import Catalog
from mm_resources.registry.registry import declared_cells

# Runs that a tick reads.
RUNS = 200
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass
class Findings:
    """The findings of a tick.

    Attributes:
        alerts: what is wrong now.
        sound: subjects of which a check has passed since, see `Alert.subject`.
        until: time of the last run that was read.
        runs: runs of exactly that time.
    """

    until: float
    runs: list[str]
    alerts: list[Alert] = field(default_factory=list)
    sound: set[str] = field(default_factory=set)


def find_failed_checks(
    instance: dg.DagsterInstance, kind: str, since: float, seen: Iterable[str]
) -> Findings:
    """Read the checks of the runs that have ended since a time, oldest first, at most `RUNS`.

    Args:
        kind: ``gates``, ``checks`` or ``sources``.
        since: seconds since the epoch.
        seen: runs that ended at that time and were read before.
    """
    known = set(seen)
    # One second earlier: a storage may keep its times with less precision than it returns.
    filters = dg.RunsFilter(statuses=_ENDED, updated_after=datetime.fromtimestamp(since - 1, UTC))
    records = instance.get_run_records(
        filters, limit=RUNS + len(known), order_by="update_timestamp", ascending=True
    )
    found = Findings(since, list(known))
    stages = {asset_key(name) for name in STAGES}
    for record in records:
        run, ended = record.dagster_run, record.update_timestamp.replace(tzinfo=UTC).timestamp()
        if run.run_id in known or ended < since:
            continue
        found.runs = [*(found.runs if ended == found.until else []), run.run_id]
        found.until = ended
        events = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        for each in events:
            event = each.event_log_entry.dagster_event
            evaluation = event.asset_check_evaluation_data if event is not None else None
            if evaluation is None or evaluation.asset_key not in stages:
                continue
            alert = _alert(evaluation, run.run_id)
            if _kind(evaluation) == kind and not evaluation.passed:
                found.alerts.append(alert)
            elif evaluation.passed or kind != _kind(evaluation):
                found.sound.add(_subject(alert, kind))
                found.alerts = [other for other in found.alerts if other.subject != _subject(alert, kind)]
    return found


def _kind(evaluation: dg.AssetCheckEvaluation) -> str:
    if evaluation.check_name == "sources_unchanged":
        return SOURCES
    closed = evaluation.blocking and evaluation.severity == dg.AssetCheckSeverity.ERROR
    return GATES if closed else CHECKS


def _alert(evaluation: dg.AssetCheckEvaluation, run_id: str) -> Alert:
    version, _, modality = (evaluation.partition or "").partition("|")
    dataset, _, version = version.partition("@")
    text = evaluation.description or DESCRIPTIONS.get(evaluation.check_name, "failed")
    severity = "error" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning"
    # A check of several stages is one for each of them.
    stage = evaluation.asset_key.path[-1]
    name = evaluation.check_name
    return Alert(_kind(evaluation), name, dataset, version, modality, severity, f"{stage}: {text}", run_id)


def _subject(alert: Alert, kind: str) -> str:
    return "|".join((kind, alert.check, alert.dataset, alert.version, alert.modality))


def find_stale_datasets(catalog: Catalog, now: datetime) -> tuple[list[Alert], list[str]]:
    """Return an alert for each modality whose newest publish is older than the card permits.

    Returns:
        The alerts, and problems of versions that cannot be read.
    """
    problems: list[str] = []
    return list(_stale(catalog, now, problems)), problems


def _stale(catalog: Catalog, now: datetime, problems: list[str]) -> Iterator[Alert]:
    for newest in catalog.registry.newest_versions(problems):
        window = newest.spec.card.fresh_within
        if window is None:
            continue
        for cell in declared_cells(newest.spec):
            pin = newest_pin(catalog, cell.dataset, cell.modality)
            if pin is None and newest.spec.modalities == ["auto"]:
                continue  # No sample may be of this modality.
            at = datetime.fromisoformat(pin.published_at if pin else newest.at)
            if now - at <= timedelta(seconds=seconds(window)):
                continue
            version = pin.version if pin else split_dataset_version(newest.spec.dataset_version)[1]
            said = f"published at {at:%Y-%m-%d %H:%M} UTC" if pin else "not published since it was registered"
            text = f"{said}, and is to be fresh within {window} (card.fresh_within)"
            yield Alert(STALE, STALE, cell.dataset, version, cell.modality, "warning", text)
