"""Channels of alerts: the file that ``MM_ALERTS`` names, or the attribute `alerts` of `FeaturePlatform`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.mistakes import describe_mistakes
from mm_embed_kernels.spec.model import SpecModel
from mm_embed_kernels.spec.yaml_text import parse_yaml, read_text
from mm_embed_kernels.urls import REFERENCE

_SECRET = "; `${env:NAME}` takes it from the environment"


class Email(SpecModel):
    """Mails by an SMTP server."""

    host: str = Field(description="name of the server")
    port: int = Field(default=587, ge=1, le=65_535, description="its port")
    security: Literal["starttls", "ssl", "none"] = Field(
        default="starttls", description="encryption; none is for a server of the same machine or network"
    )
    user: str = Field(default="", description="name to log in by; empty: without a log-in")
    password: str = Field(default="", description=f"password of the user{_SECRET}")
    sender: str = Field(description="address that mails come from")
    to: list[str] = Field(min_length=1, description="addresses that mails go to")


class Slack(SpecModel):
    """Messages in a channel of Slack, by `dagster-slack`."""

    token: str = Field(description=f"token of a bot that may write there{_SECRET}")
    channel: str = Field(description="name or id of the channel")
    url: str = Field(default="", description="address of the API, where it is not that of slack.com")


class Webhook(SpecModel):
    """JSON by POST to an address of your own."""

    url: str = Field(description=f"the address{_SECRET}")
    headers: dict[str, str] = Field(default_factory=dict, description=f"headers to send{_SECRET}")


class AlertSettings(SpecModel):
    """Channels of alerts, and what is silenced."""

    email: Email | None = Field(default=None, description="mails")
    slack: Slack | None = Field(default=None, description="messages in Slack")
    webhook: Webhook | None = Field(default=None, description="JSON by POST")
    silence: list[str] = Field(
        default_factory=list,
        description="names that send nothing: a kind (gates, checks, sources, stale), a check, DATASET, "
        "DATASET/MODALITY, or DATASET/MODALITY/CHECK",
    )
    ui: str = Field(default="", description="address of Dagster's UI, for links to runs")


def load_alerts(path: Path) -> AlertSettings:
    """Read a file of settings.

    Raises:
        UserError: in one line, for a file that cannot be read, or that is wrong.
    """
    text = read_text(path)
    return parse_alerts(parse_yaml(text, str(path)) or {}, str(path), text)


def parse_alerts(raw: object, origin: str, text: str = "") -> AlertSettings:
    """Return settings from the value of a YAML text.

    Args:
        origin: file or attribute, for error messages.
        text: the YAML, whose lines a mistake names.

    Raises:
        UserError: in one line.
    """
    try:
        return AlertSettings.model_validate(raw)
    except ValidationError as error:
        told = describe_mistakes(error, AlertSettings.model_json_schema(), text)
        raise UserError(f"{origin}: {told}") from None


def reveal(text: str) -> str:
    """Return a setting with the variables that it names.

    Raises:
        UserError: for a variable that is not set.
    """
    for kind, name in REFERENCE.findall(text):
        value = os.environ.get(name, "") if kind == "env" else ""
        if not value:
            raise UserError(f"alerts: ${{{kind}:{name}}}: set the variable {name} where Dagster's code runs")
        text = text.replace(f"${{{kind}:{name}}}", value)
    return text
