"""How a source is read over a network: politeness, limits, and which addresses it may reach."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import BaseModel, Field, field_validator

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Global by their numbers, or to some versions of Python, but answering inside one cloud alone (Oracle, Azure).
_CLOUD = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))


class FetchPolicy(BaseModel, extra="forbid", frozen=True):
    """Network behaviour of one source; the limits of size hold for members of archives too."""

    concurrency: int = Field(default=8, ge=1, le=256, description="samples that are read side by side")
    retries: int = Field(
        default=3,
        ge=0,
        le=20,
        description="further tries of a request that may pass; pauses grow, with full jitter",
    )
    timeout_s: float = Field(
        default=30,
        gt=0,
        description="seconds to connect, and without a byte; also those of less than 1 KiB/s",
    )
    max_bytes: int = Field(
        default=2 << 30, ge=1, description="largest sample that is read over HTTP or out of an archive"
    )
    requests_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=50, description="to one host; null for no limit"
    )
    allow_private: bool | tuple[str, ...] = Field(
        default=False,
        description="addresses that are not public: none, all, or those in these networks; with true, a list may name local paths anywhere",
    )
    tags: bool = Field(
        default=True,
        description="ask each URL by HEAD whether it changed; without, what was read once is never read again",
    )

    @field_validator("allow_private")
    @classmethod
    def _networks(cls, allowed: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        for network in () if isinstance(allowed, bool) else allowed:
            ipaddress.ip_network(network)
        return allowed

    def permits(self, address: str) -> bool:
        """Whether a connection to an IP address is allowed: to a public one, or to one that the spec names."""
        found = ipaddress.ip_address(address)
        if self.allow_private is True or all(_public(each) for each in (found, *_embedded(found))):
            return True
        networks = [ipaddress.ip_network(network) for network in self.allow_private or ()]
        return any(found in network for network in networks if network.version == found.version)


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (
        address.is_global and not address.is_multicast and not any(address in network for network in _CLOUD)
    )


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
