"""Alerts: what is told, by which channel, once, and what is silenced; against real servers of this machine."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from mm_assets.alerts.alert import KINDS, Alert
from mm_assets.alerts.channels import channels
from mm_assets.alerts.findings import find_stale_datasets
from mm_assets.alerts.sensors import alert_sensors
from mm_assets.alerts.settings import AlertSettings, load_alerts
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.resources import CatalogResource, StoreResource
from tests.inbox import Inbox, Mailbox, inbox
from tests.processes import free_port

CELL = "birds@v1|text"
_CELLS = dg.StaticPartitionsDefinition([CELL, "fish@v1|image"])
ALERT = Alert("gates", "failed_share", "birds", "v1", "text", "error", "3 of 4 samples failed", "the-run")


@pytest.fixture
def server() -> Iterator[Inbox]:
    with inbox() as running:
        yield running


class Ticks:
    """The alert sensors of a configuration, ticking on an instance in memory."""

    def __init__(self, store: Path, settings: AlertSettings) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self.resources = {"mm_catalog": CatalogResource(store=StoreResource(root=str(store)))}
        self.sensors = {sensor.name: sensor for sensor in alert_sensors(settings)}
        self.cursors: dict[str, str | None] = {}
        self.reasons: dict[str, str] = {}
        self.tick()

    def tick(self) -> None:
        for name, sensor in self.sensors.items():
            with dg.build_sensor_context(
                instance=self.instance, cursor=self.cursors.get(name), resources=self.resources
            ) as context:
                found = sensor(context)
            assert isinstance(found, dg.SensorResult)
            self.cursors[name], self.reasons[name] = found.cursor, str(found.skip_reason)

    def run(
        self,
        name: str,
        passed: bool,
        *,
        blocking: bool = True,
        warn: bool = False,
        cell: str = CELL,
        why: str = "why",
    ) -> None:
        """Run a stage of a cell that reports one check, and tick."""
        severity = dg.AssetCheckSeverity.WARN if warn or not blocking else dg.AssetCheckSeverity.ERROR

        @dg.asset(
            partitions_def=_CELLS,
            check_specs=[
                dg.AssetCheckSpec(name, asset="curated_samples", blocking=blocking, partitions_def=_CELLS)
            ],
        )
        def curated_samples() -> dg.MaterializeResult:
            check = dg.AssetCheckResult(check_name=name, passed=passed, severity=severity, description=why)
            return dg.MaterializeResult(check_results=[check])

        dg.materialize([curated_samples], instance=self.instance, partition_key=cell, raise_on_error=False)
        self.tick()


def settings(server: Inbox, **more: Any) -> AlertSettings:
    return AlertSettings.model_validate({"webhook": {"url": f"{server.url}/hook"}, "ui": "http://ui", **more})


def told(server: Inbox) -> list[tuple[str, str, str]]:
    """Kind, check and cell of what was posted, and forget it."""
    found = [json.loads(body) for _, _, body in server.received]
    server.received.clear()
    return [
        (each["kind"], each["check"], f"{each['dataset']}@{each['version']}|{each['modality']}")
        for each in found
    ]


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_each_kind_is_told_once_for_each_state(server: Inbox, tmp_path: Path) -> None:
    ticks = Ticks(tmp_path / "store", settings(server))
    assert set(ticks.sensors) == {f"alert_{kind}" for kind in KINDS}
    ticks.run("failed_share", False, why="3 of 4 failed")
    (body,) = [json.loads(body) for _, _, body in server.received]
    assert (body["title"], body["text"]) == (
        "error: birds@v1 text: failed_share",
        "curated_samples: 3 of 4 failed",
    )
    assert body["url"] == f"http://ui/runs/{body['run_id']}"
    assert ticks.instance.get_run_by_id(body["run_id"]) is not None
    assert told(server) == [("gates", "failed_share", CELL)]
    ticks.tick()
    ticks.run("failed_share", False, why="3 of 4 failed")
    assert told(server) == [], "the same state"
    ticks.run("failed_share", False, why="4 of 4 failed")
    assert told(server) == [("gates", "failed_share", CELL)], "another state"
    ticks.run("failed_share", True, why="0 of 4 failed")
    ticks.run("failed_share", False, why="4 of 4 failed")
    assert told(server) == [("gates", "failed_share", CELL)], "it had passed in between"
    # An overridden gate is a warning.
    ticks.run("failed_share", False, warn=True, why="overridden: 4 of 4 failed")
    assert told(server) == [("checks", "failed_share", CELL)]
    ticks.run("drift", False, blocking=False, cell="fish@v1|image")
    assert told(server) == [("checks", "drift", "fish@v1|image")]
    ticks.run("sources_unchanged", False, blocking=False)
    assert told(server) == [("sources", "sources_unchanged", CELL)]


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
@pytest.mark.parametrize("name", ["checks", "drift", "birds", "birds/text", "birds/text/drift"])
def test_what_is_silenced_by_any_of_its_names_is_not_told(server: Inbox, tmp_path: Path, name: str) -> None:
    ticks = Ticks(tmp_path / "store", settings(server, silence=[name]))
    ticks.run("drift", False, blocking=False)
    assert told(server) == []
    ticks.run("failed_share", False, cell="fish@v1|image")
    assert told(server) == [("gates", "failed_share", "fish@v1|image")]


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_a_channel_that_does_not_answer_costs_itself_and_gets_all_later(
    server: Inbox, tmp_path: Path
) -> None:
    with inbox() as slack:
        slack.status = 500
        both = settings(server, slack={"token": "xoxb-1", "channel": "#data", "url": f"{slack.url}/api/"})
        ticks = Ticks(tmp_path / "store", both)
        ticks.run("failed_share", False, why="first")
        ticks.run("failed_share", False, why="second")
        assert len(told(server)) == 2
        assert slack.received == []
        assert "slack: " in ticks.reasons["alert_gates"]
        assert "2 alerts wait for the next tick" in ticks.reasons["alert_gates"]
        assert "xoxb-1" not in ticks.reasons["alert_gates"] + str(ticks.cursors)
        slack.status = 200
        ticks.tick()
        texts = [
            json.loads(body)["text"] if body[:1] == b"{" else body.decode() for _, _, body in slack.received
        ]
        assert ["first" in texts[0], "second" in texts[1], len(texts)] == [True, True, 2]
        assert told(server) == []


def test_slack_gets_plain_text_in_its_channel(server: Inbox) -> None:
    wanted = AlertSettings.model_validate(
        {"slack": {"token": "xoxb-1", "channel": "#data", "url": f"{server.url}/api"}, "ui": "http://ui"}
    )
    channels(wanted)["slack"](ALERT)
    ((path, headers, body),) = server.received
    sent = json.loads(body)
    assert (path, headers["Authorization"]) == ("/api/chat.postMessage", "Bearer xoxb-1")
    assert sent["channel"] == "#data"
    assert sent["text"] == "error: birds@v1 text: failed_share\n3 of 4 samples failed\nhttp://ui/runs/the-run"


def test_a_webhook_gets_its_headers_and_its_address_stays_secret(
    server: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", f"{server.url}/s3cret")
    monkeypatch.setenv("KEY", "t0ken")
    wanted = AlertSettings.model_validate(
        {"webhook": {"url": "${env:HOOK}", "headers": {"X-Key": "${env:KEY}"}}}
    )
    channels(wanted)["webhook"](ALERT)
    ((path, headers, body),) = server.received
    assert (path, headers["X-Key"], json.loads(body)["check"]) == ("/s3cret", "t0ken", "failed_share")
    server.status = 403
    with pytest.raises(OSError, match="answered 403") as failed:
        channels(wanted)["webhook"](ALERT)
    assert "s3cret" not in str(failed.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(UserError, match="set the variable HOOK"):
        channels(wanted)["webhook"](ALERT)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_mail_by_an_encrypted_connection_with_a_login(
    security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    box = Mailbox()

    def log_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        box.users.append(data.login.decode())
        return AuthResult(success=data.password == b"passw0rd")

    more: dict[str, Any] = {"tls_context": context} if security == "starttls" else {"ssl_context": context}
    controller = Controller(
        box,
        hostname="localhost",
        port=free_port(),
        authenticator=log_in,
        auth_require_tls=security == "starttls",
        **more,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SMTP_PASSWORD", "passw0rd")
    controller.start()
    try:
        port = controller.server.sockets[0].getsockname()[1]
        email = {
            "host": "localhost",
            "port": port,
            "security": security,
            "user": "mm",
            "password": "${env:SMTP_PASSWORD}",
            "sender": "mm@example.org",
            "to": ["a@example.org", "b@example.org"],
        }
        channels(AlertSettings.model_validate({"email": email, "ui": "http://ui"}))["email"](ALERT)
    finally:
        controller.stop()
    (envelope,) = box.envelopes
    message = message_from_bytes(envelope.content, policy=policy.default)
    assert (box.users, envelope.rcpt_tos) == (["mm"], ["a@example.org", "b@example.org"])
    assert message["Subject"] == "error: birds@v1 text: failed_share"
    assert message.get_content().split() == ["3", "of", "4", "samples", "failed", "http://ui/runs/the-run"]


def test_a_stale_dataset_is_told_by_its_card(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "store")
    text = "{name: birds, version: v1, card: {fresh_within: 2d}, sources: [{name: notes, modality: text, uri: /nowhere/*.txt}]}"
    catalog.registry.register(parse_spec(text, "birds.yaml"))
    now = datetime.now(UTC)
    assert find_stale_datasets(catalog, now + timedelta(days=1)) == ([], [])
    ((alert,), problems) = find_stale_datasets(catalog, now + timedelta(days=3))
    assert problems == []
    assert (alert.kind, alert.dataset, alert.modality) == ("stale", "birds", "text")
    assert (
        alert.text
        == "not published since it was registered, and is to be fresh within 2d (card.fresh_within)"
    )
    # The card is no part of the frozen spec.
    catalog.registry.register(parse_spec(text.replace("2d", "9d"), "birds.yaml"))
    assert find_stale_datasets(catalog, now + timedelta(days=3)) == ([], [])


def test_mistakes_of_the_file_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text("email: {host: mail, sender: a@b.c}\nsilent: [drift]\n")
    with pytest.raises(UserError, match=r"alerts.yaml: .*silent") as failed:
        load_alerts(file)
    assert "email.to" in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    file.write_text("")
    assert alert_sensors(load_alerts(file)) == []
