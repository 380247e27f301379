"""Secrets in URLs: what is stripped, what stays byte by byte. The parts are those of RFC 3986 and of S3, Azure, GCS."""

from __future__ import annotations

import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.urls import (
    find_secrets,
    redact_text,
    redact_url,
    replace_secrets,
    strip_secrets,
    strip_text,
)


@pytest.mark.parametrize(
    ("url", "stripped", "secrets"),
    [
        ("http://alice:pw@h:80/a", "http://h:80/a", ["alice", "pw"]),
        ("sftp://alice@h/a", "sftp://h/a", ["alice"]),
        ("http://alice:p/w?x#y@h/a", "http://h/a", ["alice:p/w?x#y"]),
        ("http://h/a?sig=S&id=3", "http://h/a?id=3", ["S"]),
        ("http://h/a?X-Amz-Signature=S&X-Amz-Date=D&id=3", "http://h/a?id=3", ["S", "D"]),
        ("http://h/a?sv=2020&sp=r&sig=S%3D", "http://h/a", ["2020", "r", "S%3D"]),
        ("http://h/a?AWSAccessKeyId=K&Expires=9&Signature=S", "http://h/a", ["K", "9", "S"]),
        ("http://h/a?apiKey=S", "http://h/a", ["S"]),
        ("http://h/a?key=Ab12Cd34Ef", "http://h/a", ["Ab12Cd34Ef"]),
        ("http://h/a;jsessionid=S/b", "http://h/a/b", ["S"]),
        ("http://h/a#access_token=S", "http://h/a", ["S"]),
        ("http://h/a?next=http%3A%2F%2Fu%3Ap%40h", "http://h/a", ["http%3A%2F%2Fu%3Ap%40h"]),
        ("http://h/a?http://g/b?tok=S", "http://h/a", ["S"]),
        ("http://h/a?a=b?token=S", "http://h/a?a=b", ["S"]),
        ("http://h/a?token=S?a=b", "http://h/a?a=b", ["S"]),
        ("http://h/a?token%3DS&id=3", "http://h/a?id=3", ["S"]),
        ("http://h/a?key=a/b%2Bc==", "http://h/a", ["a/b%2Bc=="]),
        ("http://h/a?sharedKey=QUJD/REVG", "http://h/a", ["QUJD/REVG"]),
        ("http://h/a?passcode=S&ticket=ST-1-x", "http://h/a", ["S", "ST-1-x"]),
        ("jdbc:postgresql://u:p@h/db?password=S", "jdbc:postgresql://h/db", ["u", "p", "S"]),
        ("zip://m::https://u:p@h/a.zip", "zip://m::https://h/a.zip", ["u", "p"]),
    ],
)
def test_secrets_are_stripped(url: str, stripped: str, secrets: list[str]) -> None:
    assert strip_secrets(url) == stripped
    assert find_secrets(url) == secrets
    assert strip_secrets(stripped) == stripped
    assert [secret for secret in secrets if len(secret) > 5 and secret in redact_url(url)] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a?id=1&page=2#part-3",
        "http://h/a?key=photos/b.jpg",
        "http://h/a?key=photos/2024/b&c=d?e&f=g?",
        "http://h/a?a%3Db?&?c",
        "http://h/?author=me&keyword=x&design=2&e=4",
        "http://h/a?v=dQw4w9WgXcQ",
        "https://drive.google.com/uc?id=1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms",
        "http://h/@user/a:b@c",
        "abfs://container@account.dfs.core.windows.net/a",
        "s3://bucket/a=b;c=d/e?f",
        "hf://datasets/a/b@main/c",
        "http://h/a?&&x=&y",
        "http://[::1]:80/a?b",
        "no url at all: a;token=b",
    ],
)
def test_a_url_without_secrets_is_unchanged(url: str) -> None:
    assert strip_secrets(url) == url
    assert find_secrets(url) == []
    assert strip_text(f"see {url} there") == f"see {url} there"


def test_references_stay_and_literals_are_replaced() -> None:
    url = "https://u:${env:MM_SECRET_P}@h/a?token=${file:t}&sig=S"
    assert find_secrets(url) == ["u", "${env:MM_SECRET_P}", "${file:t}", "S"]
    assert replace_secrets(url, lambda secret: f"<{secret}>") == (
        "https://<u>:${env:MM_SECRET_P}@h/a?token=${file:t}&sig=<S>"
    )
    assert strip_secrets(url) == "https://h/a"


def test_messages_show_urls_without_users_and_queries() -> None:
    text = "Cannot read http://u:pw@h/a?b=Hidden1, since 'https://g/c?d=Hidden2' (and s3://x/y#Hidden3) fails"
    shown = "Cannot read http://h/a, since 'https://g/c' (and s3://x/y) fails"
    assert redact_text(text) == shown
    assert SampleError("fetch_error", text).message == shown
    assert str(UserError(text)) == shown
    assert redact_text("the value Hidden%3D4 or Hidden=4", ["Hidden%3D4"]) == "the value ... or ..."


def test_messages_are_bounded() -> None:
    assert len(SampleError("fetch_error", "x" * 10**7).message) == 500
    assert len(str(UserError("x" * 10**7))) < 10_100


@pytest.mark.parametrize("text", ["a" * 200_000 + "://", "a:" * 50_000 + "x", "http://" + "a:" * 50_000])
def test_a_long_text_costs_no_more_than_its_length(text: str) -> None:
    """Were each letter the start of another search, these would take minutes."""
    assert redact_text(text) == strip_text(text) == text
    assert len(str(UserError(text))) < 10_100


def test_a_long_message_shows_no_secret() -> None:
    text = "a " * 4_000 + "http://alice:pw@h/a?sig=SECRET " + "b " * 40_000
    shown = str(UserError(text))
    assert "http://h/a " in shown
    assert "SECRET" not in shown
    assert shown.endswith(f"... ({len(text):,} characters)")
