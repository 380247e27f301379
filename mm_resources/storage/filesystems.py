"""Options for fsspec and Lance, so that both reach an object store by the same endpoint and credentials.

Each library looks up credentials itself, in the same chain (environment, profile files, web identity,
instance roles); they never pass through here. Settings that the two read differently (endpoint, region, plain
HTTP) are read once, as botocore reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.times import in_utc

# Libraries whose errors of the network or the server are not OSErrors.
_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google")
# Tries of a request inside the S3 client; s3fs retries above it, with pauses of its own.
_ATTEMPTS = 3
# Variables from which Lance reads a Google service account, whose file names its server.
_GS_ACCOUNTS = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
READ_SECONDS, CONNECT_SECONDS = 30, 5


def is_local(uri: str) -> bool:
    """Return whether a path or URL lies on this machine."""
    return "://" not in uri or uri.startswith("file://")


def lance_options(uri: str) -> dict[str, str] | None:
    """Return Lance's storage options for `uri`; None where its own defaults suffice."""
    if _is_gs(uri):
        return _gs_options()
    if not _is_s3(uri):
        return None
    endpoint, region = _s3()
    options = {"aws_region": region} if region else {}
    if endpoint:
        options |= {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return options


def fsspec_options(uri: str) -> dict[str, Any]:
    """Return the arguments of the fsspec file system for `uri`.

    Listings are not cached, since another process may write at any time.
    """
    if _is_gs(uri):
        return {"endpoint_url": _emulator(), "use_listings_cache": False}
    if not _is_s3(uri):
        return {} if "://" not in uri else {"use_listings_cache": False}
    endpoint, region = _s3()
    config = {
        "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
        "read_timeout": READ_SECONDS,
        "connect_timeout": CONNECT_SECONDS,
    }
    return {
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": region},
        "config_kwargs": config,
        "use_listings_cache": False,
    }


def read_options(uri: str) -> dict[str, Any]:
    """Return the arguments with which an fsspec file system reads a whole object in one request."""
    # Several streams at once need the object's size, for which s3fs asks before each read.
    return {"max_concurrency": 1} if _is_s3(uri) else {}


@contextmanager
def client_errors(name: str) -> Iterator[None]:
    """Raise errors of a client library as OSErrors that name the object, as a local file's do."""
    try:
        yield
    except Exception as error:  # the types of all clients have no common base
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise ConnectionError(f"{name}: {type(error).__name__}: {error}") from error


def is_out_of_range(error: OSError) -> bool:
    """Return whether a range begins behind the object's end, where a local file would read as empty."""
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code") or getattr(error.__cause__, "code", None)
    return str(code) in ("InvalidRange", "416")


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _is_gs(uri: str) -> bool:
    return uri.startswith(("gs://", "gcs://"))


def _emulator() -> str | None:
    """Return the URL of Google's emulator, from the variable that Google's own libraries and gcsfs read."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if host in ("", "default"):
        return None
    return host if "://" in host else f"http://{host}"


def _gs_options() -> dict[str, str] | None:
    emulator = _emulator()
    if emulator is None:
        return None
    options = {"allow_http": str(emulator.startswith("http://")).lower()}
    if not any(os.environ.get(name) for name in _GS_ACCOUNTS):
        # The one setting that leaves writes unsigned too: `google_skip_signature` applies to reads alone.
        account = {
            "gcs_base_url": emulator,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        options["google_service_account_key"] = json.dumps(account)
    return options


def _s3() -> tuple[str | None, str | None]:
    """Return (endpoint, region) for S3 from the process's present environment."""
    names = (
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_CONFIG_FILE",
    )
    return _resolve(*(os.environ.get(name) for name in names))


@cache
def _resolve(
    endpoint_s3: str | None,
    endpoint: str | None,
    region: str | None,
    default_region: str | None,
    *_profile: str | None,
) -> tuple[str | None, str | None]:
    """Complete `_s3` from the AWS profile; cached by the variables, the profile's (`_profile`) among them."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    session = Session()
    try:
        profile_settings = session.get_scoped_config()
    except BotoCoreError as error:
        raise UserError(f"the AWS profile cannot be read: {error}") from None
    services = session.full_config.get("services", {}).get(profile_settings.get("services", ""), {})
    url = (
        endpoint_s3
        or endpoint
        or services.get("s3", {}).get("endpoint_url")
        or profile_settings.get("endpoint_url")
    )
    # Self-hosted servers mostly ignore the region, but a signature needs one.
    own_region = region or default_region or profile_settings.get("region")
    return url, own_region or ("us-east-1" if url else None)


def local_tags(folder: str, below: str = "") -> Iterator[tuple[str, str]]:
    """Yield the files below a folder, with a tag that changes with their content.

    Those that vanish meanwhile are left out.

    Raises:
        OSError: for a folder that cannot be read.
    """
    try:
        entries = list(os.scandir(os.path.join(folder, below)))
    except FileNotFoundError:
        return
    for entry in entries:
        name = os.path.join(below, entry.name)
        if entry.is_dir():
            yield from local_tags(folder, name)
            continue
        with suppress(FileNotFoundError):
            info = entry.stat()
            yield name, f"{info.st_size}-{info.st_mtime_ns}-{info.st_ino}"


def content_tag(info: dict[str, Any]) -> str:
    """Return a text that changes with an object's content, from fsspec's info; "" where that has no tag.

    The time is a part of it, so that a content that returns after another one has another tag.
    """
    tag = info.get("ETag") or info.get("etag") or info.get("generation")
    return f"{tag}-{info.get('size')}-{modified_at(info)}" if tag else ""


def modified_at(info: dict[str, Any]) -> datetime | None:
    """Return when an object was last written (UTC); None where its fsspec file system does not state it."""
    names = ("LastModified", "mtime", "created", "last_modified", "updated")
    modified = next((info[name] for name in names if info.get(name)), None)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    elif isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    return in_utc(modified) if isinstance(modified, datetime) else None
