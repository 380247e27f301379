"""Sensors that send alerts, one for each kind: `alert_gates`, `alert_checks` and so on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mm_assets.alerts.alert import KINDS, STALE, Alert
from mm_assets.alerts.channels import Send, channels
from mm_assets.alerts.findings import find_failed_checks, find_stale_datasets
from mm_assets.alerts.settings import AlertSettings, reveal
from mm_embed_kernels.errors import sentence_of
from mm_embed_kernels.extras import explain_missing
from mm_embed_kernels.urls import redact_text
from mm_resources.resources import CatalogResource

# Alerts of a channel that does not answer which are kept, and subjects whose state is remembered.
KEPT, SUBJECTS = 100, 10_000
_FIELDS = [item.name for item in fields(Alert)]


def alert_sensors(settings: AlertSettings | None, jobs: Sequence[Any] = ()) -> list[dg.SensorDefinition]:
    """Return the sensors of the configured channels; none without a channel.

    Args:
        jobs: those of which Dagster's own sensors of failed runs tell, by mail and in Slack.
    """
    if settings is None or not channels(settings):
        return []
    return [*(_sensor(kind, settings) for kind in KINDS), *_failed_run_sensors(settings, jobs)]


def _failed_run_sensors(settings: AlertSettings, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return Dagster's own sensors of runs that failed."""
    found = []
    if (email := settings.email) and email.user and email.security != "none":
        found.append(
            dg.make_email_on_run_failure_sensor(
                email_from=email.sender,
                email_password=reveal(email.password),
                email_to=email.to,
                smtp_host=email.host,
                smtp_port=email.port,
                smtp_type="SSL" if email.security == "ssl" else "STARTTLS",
                smtp_user=email.user,
                name="alert_failed_runs_by_mail",
                monitored_jobs=list(jobs),
                webserver_base_url=settings.ui or None,
                default_status=dg.DefaultSensorStatus.RUNNING,
            )
        )
    if (slack := settings.slack) and not slack.url:
        with explain_missing("an alert in Slack"):
            from dagster_slack import make_slack_on_run_failure_sensor
        found.append(
            make_slack_on_run_failure_sensor(
                channel=slack.channel,
                slack_token=reveal(slack.token),
                name="alert_failed_runs_in_slack",
                monitored_jobs=list(jobs),
                webserver_base_url=settings.ui or None,
                default_status=dg.DefaultSensorStatus.RUNNING,
            )
        )
    return found


def _sensor(kind: str, settings: AlertSettings) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"alert_{kind}",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells of {KINDS[kind]}; each state once.",
    )
    def sensor(context: dg.SensorEvaluationContext, mm_catalog: CatalogResource) -> dg.SensorResult:
        state = _State.load(context.cursor)
        if kind == STALE:
            alerts, problems = find_stale_datasets(mm_catalog.open(), datetime.now(UTC))
            for problem in problems:
                context.log.error(problem)
            state.keep(alert.subject for alert in alerts)
        else:
            found = find_failed_checks(context.instance, kind, state.since, state.runs)
            state.since, state.runs, alerts = found.until, found.runs, found.alerts
            state.forget(found.sound)
        new = [alert for alert in alerts if state.is_new(alert)]
        told = [alert for alert in new if not alert.names & set(settings.silence)]
        for alert in new:
            if alert not in told:
                context.log.info(f"silenced: {alert.title}: {alert.text}")
        sent, problems = state.send(channels(settings), told)
        for problem in problems:
            context.log.error(problem)
        return dg.SensorResult(
            cursor=state.dump(),
            skip_reason="; ".join(problems)
            or (f"{sent} messages sent" if sent else "nothing new to tell of"),
        )

    return sensor


class _State:
    """The cursor of a sensor.

    Attributes:
        since, runs: see `mm_assets.alerts.findings.Findings`.
        states: subject -> the state that was told.
        unsent: channel -> alerts that it could not send.
        dropped: channel -> how many alerts it lost beyond `KEPT`.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        # A first tick begins now: what failed before alerts were switched on is not told.
        self.since: float = raw.get("since", datetime.now(UTC).timestamp())
        self.runs: list[str] = raw.get("runs", [])
        self.states: dict[str, str] = raw.get("states", {})
        self.unsent: dict[str, list[dict[str, Any]]] = raw.get("unsent", {})
        self.dropped: dict[str, int] = raw.get("dropped", {})

    @classmethod
    def load(cls, cursor: str | None) -> _State:
        return cls(json.loads(cursor) if cursor else {})

    def dump(self) -> str:
        return json.dumps(vars(self))

    def is_new(self, alert: Alert) -> bool:
        """Return whether a subject has a state that was not told, and remember it."""
        if self.states.get(alert.subject) == alert.state:
            return False
        self.states.pop(alert.subject, None)
        self.states[alert.subject] = alert.state
        for oldest in list(self.states)[: max(0, len(self.states) - SUBJECTS)]:
            del self.states[oldest]
        return True

    def forget(self, subjects: set[str]) -> None:
        """Forget subjects that are sound again, so that their next failure is told."""
        for subject in subjects:
            self.states.pop(subject, None)

    def keep(self, subjects: Any) -> None:
        """Forget all other subjects."""
        wanted = set(subjects)
        self.states = {name: state for name, state in self.states.items() if name in wanted}

    def send(self, senders: Mapping[str, Send], alerts: Sequence[Alert]) -> tuple[int, list[str]]:
        """Send alerts by each channel, those first that it could not send before; keep what it cannot send.

        Returns:
            How many messages were sent, and the problem of each channel that has one.
        """
        sent, problems = 0, []
        for name, send in senders.items():
            waiting = [Alert(**{key: each[key] for key in _FIELDS}) for each in self.unsent.pop(name, [])]
            waiting += alerts
            while waiting:
                try:
                    send(waiting[0])
                except Exception as error:  # noqa: BLE001 - a channel costs itself, not the others
                    self.dropped[name] = self.dropped.get(name, 0) + max(0, len(waiting) - KEPT)
                    self.unsent[name] = [alert.as_dict() for alert in waiting[-KEPT:]]
                    problems.append(self._problem(name, error, len(waiting)))
                    break
                sent += 1
                waiting.pop(0)
        return sent, problems

    def _problem(self, channel: str, error: Exception, waiting: int) -> str:
        cause = redact_text(sentence_of(type(error).__name__, str(error)))[:300]
        lost = f", {self.dropped[channel]:,} were dropped" if self.dropped.get(channel) else ""
        line = f"{channel}: {cause}; {waiting:,} alerts wait for the next tick{lost}"
        logging.getLogger(__name__).warning(line)
        return line
