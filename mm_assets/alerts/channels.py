"""Channels that carry alerts: mail, Slack, and a webhook."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage

from mm_assets.alerts.alert import Alert
from mm_assets.alerts.settings import AlertSettings, Email, Slack, Webhook, reveal
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.extras import explain_missing

# Seconds that a server may take: a sensor's tick ends after a minute.
TIMEOUT = 10.0

Send = Callable[[Alert], None]


def channels(settings: AlertSettings) -> dict[str, Send]:
    """Return the configured channels by name; each sends one alert, or raises."""
    found: dict[str, Send] = {}
    if email := settings.email:
        found["email"] = lambda alert: _send_mail(email, alert, settings.ui)
    if slack := settings.slack:
        found["slack"] = lambda alert: _post_to_slack(slack, alert, settings.ui)
    if webhook := settings.webhook:
        found["webhook"] = lambda alert: _post(webhook, alert, settings.ui)
    return found


def run_url(alert: Alert, ui: str) -> str:
    """Return the address of the alert's run in Dagster's UI; "" without one."""
    return f"{ui.rstrip('/')}/runs/{alert.run_id}" if ui and alert.run_id else ""


def _body(alert: Alert, ui: str) -> str:
    return "\n".join(filter(None, [escape_terminal(alert.text), run_url(alert, ui)]))


def _send_mail(email: Email, alert: Alert, ui: str) -> None:
    """Send a mail in plain text.

    Not by the functions behind Dagster's own mails of failed runs, which wait for a server without end and
    ask for a log-in that servers of a company's own do without.
    """
    message = EmailMessage()
    message["From"], message["To"] = email.sender, ", ".join(email.to)
    message["Subject"] = escape_terminal(alert.title)
    message.set_content(_body(alert, ui))
    context = ssl.create_default_context()
    server: smtplib.SMTP
    if email.security == "ssl":
        server = smtplib.SMTP_SSL(email.host, email.port, timeout=TIMEOUT, context=context)
    else:
        server = smtplib.SMTP(email.host, email.port, timeout=TIMEOUT)
    with server:
        if email.security == "starttls":
            server.starttls(context=context)
        if email.user:
            server.login(email.user, reveal(email.password))
        server.send_message(message)


def _post_to_slack(slack: Slack, alert: Alert, ui: str) -> None:
    with explain_missing("an alert in Slack"):
        from dagster_slack import SlackResource
    client = SlackResource(token=reveal(slack.token)).get_client()
    client.timeout = int(TIMEOUT)
    if slack.url:
        client.base_url = f"{slack.url.rstrip('/')}/"
    # As plain text: a sample's name cannot mention people or disguise a link.
    client.chat_postMessage(
        channel=slack.channel,
        text=f"{escape_terminal(alert.title)}\n{_body(alert, ui)}",
        mrkdwn=False,
        parse="none",
    )


def _post(webhook: Webhook, alert: Alert, ui: str) -> None:
    # Takes a third of a second, and most ticks send nothing.
    import httpx

    headers = {name: reveal(value) for name, value in webhook.headers.items()}
    body = {**alert.as_dict(), "url": run_url(alert, ui)}
    answer = httpx.post(reveal(webhook.url), json=body, headers=headers, timeout=TIMEOUT, trust_env=True)
    if not answer.is_success:
        # Without the address, which may be the secret.
        raise OSError(f"the webhook answered {answer.status_code} {answer.reason_phrase}")
