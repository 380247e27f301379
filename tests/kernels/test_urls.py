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
        ("http://h/a?apikey2=S&id=3", "http://h/a?id=3", ["S"]),
        ("http://h/a?X-Foo-Token=S", "http://h/a", ["S"]),
        ("http://h/a?tempauth=v1.eyJ0eXAi.Zm9v&id=3", "http://h/a?id=3", ["v1.eyJ0eXAi.Zm9v"]),
        (
            "https://a.blob.core.windows.net/c/b?sv=2022-11-02&sr=b&sp=r&se=2026-12-01T00%3A00%3A00Z&sig=S%2B1%3D",
            "https://a.blob.core.windows.net/c/b",
            ["2022-11-02", "b", "r", "2026-12-01T00%3A00%3A00Z", "S%2B1%3D"],
        ),
        (
            "https://d1.cloudfront.net/a.jpg?Policy=eyJTdGF0&Signature=S~1_&Key-Pair-Id=K2JCJMDEHXQW5F",
            "https://d1.cloudfront.net/a.jpg",
            ["eyJTdGF0", "S~1_", "K2JCJMDEHXQW5F"],
        ),
        (
            "https://storage.googleapis.com/b/o?X-Goog-Credential=c%40p%2F1&X-Goog-Expires=60&X-Goog-Signature=ab12",
            "https://storage.googleapis.com/b/o",
            ["c%40p%2F1", "60", "ab12"],
        ),
        ("http://al%69ce%3Ap%40w@h/a", "http://h/a", ["al%69ce%3Ap%40w"]),
        ("http://alice:p@w@h/a", "http://h/a", ["alice", "p@w"]),
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
        "http://h/a?w=1920&h=1080&fit=crop&size=1920x1080&fm=webp&dpr=2.5&crop=faces,top&lang=en-US",
        "http://h/a?from=2026-11-30T12:00:00Z&rev=3f9a8b7c6d5e4f3a&photo_id=a1B2c3D4e5F6g7",
        "http://h/a?uuid=123e4567-e89b-12d3-a456-426614174000&bbox=4.1,52.0,4.9,52.9&v2",
        "http://[::1]:80/a?b",
        "no url at all: a;token=b",
    ],
)
def test_a_url_without_secrets_is_unchanged(url: str) -> None:
    assert strip_secrets(url) == url
    assert find_secrets(url) == []
    assert strip_text(f"see {url} there") == f"see {url} there"


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://h/a?zz=PLANTED1Secret", "PLANTED1Secret"),
        ("http://h/a?X-Foo=3f9a8b7c6d5e4f3a2b1c", "3f9a8b7c6d5e4f3a2b1c"),
        ("http://h/a?page=2&k=SIGSECRET5", "SIGSECRET5"),
        ("http://h/a?PLANTED1Secret", "PLANTED1Secret"),
        ("http://h/a?k=PLANTED1Secret?b=1", "PLANTED1Secret"),
        ("http://h/a?next=http%3A%2F%2Fg%2F%3Fzz%3DPLANTED1Secret", "PLANTED1Secret"),
        ("http://h/a#PLANTED1Secret", "PLANTED1Secret"),
        ("http://h/a?zz=hunter2", "hunter2"),
    ],
)
def test_a_value_that_may_be_a_secret_is_replaced_by_its_digest(url: str, secret: str) -> None:
    """Under a name that nobody knows, an id looks like a token: addresses stay different, and the same."""
    stripped = strip_secrets(url)
    assert secret not in stripped
    assert "~" in stripped
    assert strip_secrets(stripped) == stripped == strip_secrets(url)
    assert strip_secrets(url.replace(secret, secret + "X1")) != stripped
    assert any(secret in found for found in find_secrets(url))
    assert secret not in replace_secrets(url, lambda _: "${secret:1}")
    assert secret not in strip_text(f"see {url} there")


@pytest.mark.parametrize(
    "text", ["//alice:pw@h/a", "http:\\\\alice:pw@h\\a", "\\\\alice:pw@h\\a", "see //alice:pw@h/a there"]
)
def test_a_user_without_a_scheme_is_stripped(text: str) -> None:
    assert "alice" not in strip_text(text) + redact_text(text)
    assert " " in text or "pw" not in strip_secrets(text)


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
