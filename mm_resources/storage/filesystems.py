"""Object stores as fsspec and Lance see them: the same endpoint, region and credentials, from the usual places.

Credentials are looked up by each library in the same chain (environment, profile files, web identity, instance roles) and
never pass through here. What the two read differently (endpoint, region, plain HTTP) is read once, as botocore reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from mm_embed_kernels.contracts.fields import in_utc
from mm_embed_kernels.errors import UserError

# Libraries whose errors are no OSError, though the network or the server is at fault.
_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google")
# How often the client itself sends a request; s3fs tries again above it, with pauses of its own.
_ATTEMPTS = 3
# Where Lance finds the path of a service account's file, which says itself where its server is.
_GS_ACCOUNTS = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
READ_SECONDS, CONNECT_SECONDS = 30, 5


def lance_options(uri: str) -> dict[str, str] | None:
    """What Lance must be told to open `uri`; None for what it finds out by itself."""
    if _is_gs(uri):
        return _gs_options()
    if not _is_s3(uri):
        return None
    endpoint, region = _s3()
    found = {"aws_region": region} if region else {}
    if endpoint:
        found |= {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return found


def fsspec_options(uri: str) -> dict[str, Any]:
    """Arguments of the fsspec file system for `uri`; another process may write at any time, so listings are not kept."""
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


@contextmanager
def client_errors(name: str) -> Iterator[None]:
    """Errors of a client library come out as OSErrors that name the object, as a local file's do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise ConnectionError(f"{name}: {type(error).__name__}: {error}") from error


def is_out_of_range(error: OSError) -> bool:
    """Whether a range begins behind the object's end, where a local file gives nothing."""
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code") or getattr(error.__cause__, "code", None)
    return str(code) in ("InvalidRange", "416")


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _is_gs(uri: str) -> bool:
    return uri.startswith(("gs://", "gcs://"))


def _emulator() -> str | None:
    """The server that stands for Google's, by the variable that Google's own libraries and gcsfs read."""
    said = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if said in ("", "default"):
        return None
    return said if "://" in said else f"http://{said}"


def _gs_options() -> dict[str, str] | None:
    emulator = _emulator()
    if emulator is None:
        return None
    found = {"allow_http": str(emulator.startswith("http://")).lower()}
    if not any(os.environ.get(name) for name in _GS_ACCOUNTS):
        # The one way to tell it that leaves writes unsigned, too: `google_skip_signature` is heard for reads alone.
        account = {
            "gcs_base_url": emulator,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        found["google_service_account_key"] = json.dumps(account)
    return found


def _s3() -> tuple[str | None, str | None]:
    """Endpoint and region for S3 as the process's environment says now."""
    names = (
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_CONFIG_FILE",
    )
    return _resolved(*(os.environ.get(name) for name in names))


@cache
def _resolved(
    endpoint_s3: str | None,
    endpoint: str | None,
    region: str | None,
    default_region: str | None,
    *profile: str | None,
) -> tuple[str | None, str | None]:
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    session = Session()
    try:
        said = session.get_scoped_config()
    except BotoCoreError as error:
        raise UserError(f"the AWS profile cannot be read: {error}") from None
    services = session.full_config.get("services", {}).get(said.get("services", ""), {})
    found = endpoint_s3 or endpoint or services.get("s3", {}).get("endpoint_url") or said.get("endpoint_url")
    # A server of one's own mostly asks for no region, but a signature needs one.
    return found, region or default_region or said.get("region") or ("us-east-1" if found else None)


def modified_at(info: dict[str, Any]) -> datetime | None:
    """When an object was last written (UTC), under any of the names that fsspec file systems give it; None where none does."""
    names = ("LastModified", "mtime", "created", "last_modified", "updated")
    modified = next((info[name] for name in names if info.get(name)), None)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    elif isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    return in_utc(modified) if isinstance(modified, datetime) else None
