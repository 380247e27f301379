"""Network access of a source: request rate, limits, and the addresses that it may reach."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator

from mm_embed_kernels.urls import redact_url

_SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Global by number, or in some versions of Python, but reachable inside one cloud alone (Oracle, Azure).
_CLOUD = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))


class FetchPolicy(BaseModel, extra="forbid", frozen=True):
    """Network access of one source; `max_bytes` applies to members of archives as well."""

    concurrency: int = Field(default=8, ge=1, le=256, description="samples that are read concurrently")
    retries: int = Field(
        default=3,
        ge=0,
        le=20,
        description="retries of a request after a transient error; pauses grow, with full jitter",
    )
    timeout_s: float = Field(
        default=30,
        gt=0,
        description="seconds to connect, seconds without a byte, and seconds below 1 KiB/s",
    )
    max_bytes: int = Field(
        default=2 << 30, ge=1, description="largest sample that is read over HTTP or out of an archive"
    )
    requests_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=50, description="requests to one host; null for no limit"
    )
    allow_private: bool | tuple[str, ...] = Field(
        default=False,
        description="permitted addresses that are not public: none, all, or those in the listed networks; "
        "with true, a list may name any local path",
    )
    allow: tuple[str, ...] = Field(
        default=(),
        description="buckets and folders of other file systems that a list may name, as s3://mine/photos/",
    )
    tags: bool = Field(
        default=True,
        description="check by HEAD whether each URL has changed; without it, a URL is never read again",
    )

    @field_validator("allow_private")
    @classmethod
    def _networks(cls, allowed: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        for network in () if isinstance(allowed, bool) else allowed:
            ipaddress.ip_network(network)
        return allowed

    @field_validator("allow")
    @classmethod
    def _prefixes(cls, allowed: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in allowed:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+(/.*)?", prefix) or ".." in prefix.split(
                "/"
            ):
                raise ValueError(
                    f"{redact_url(prefix)} is no bucket or folder; write it as s3://bucket/folder/"
                )
        return allowed

    @property
    def stored_fields(self) -> dict[str, Any]:
        """The policy as digests hold it: a field that was added later is left out by default."""
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name != "allow" or value}

    def allows(self, uri: str) -> bool:
        """Return whether a list may name an object outside its own folder: one below an allowed prefix."""
        parts = _bucket_path(uri)
        return ".." not in parts and any(
            parts[: len(prefix)] == prefix for prefix in map(_bucket_path, self.allow)
        )

    def permits(self, address: str) -> bool:
        """Return whether an IP address may be connected to: a public one, or one that the spec permits."""
        parsed = ipaddress.ip_address(address)
        if self.allow_private is True or all(_is_public(each) for each in (parsed, *_ipv4_targets(parsed))):
            return True
        networks = [ipaddress.ip_network(network) for network in self.allow_private or ()]
        return any(parsed in network for network in networks if network.version == parsed.version)


def _bucket_path(uri: str) -> list[str]:
    """Return scheme, bucket and folders; other names of one scheme are the same."""
    scheme, _, path = uri.partition("://")
    scheme = scheme.lower()
    return [_SCHEMES.get(scheme, scheme), *path.rstrip("/").split("/")]


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (
        address.is_global and not address.is_multicast and not any(address in network for network in _CLOUD)
    )


def _ipv4_targets(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address translates to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    targets = [address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None]
    if address in _NAT64:
        targets.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in targets if each is not None]
