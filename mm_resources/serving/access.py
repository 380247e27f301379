"""Access to a service: tokens, sessions of browsers, hosts, and requests that other sites send."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from mm_embed_kernels.errors import UserError
from mm_resources.serving.problems import Problem

COOKIE = "mm_session"
# Answered without a token: they show nothing of the store.
OPEN_PATHS = ("/healthz", "/readyz", "/login")
OPEN_FOLDERS = ("/static/",)
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Names under which clients put a token into a URL, where logs, histories and referrers show it.
_TOKEN_NAMES = frozenset(
    {"token", "access_token", "auth_token", "api_key", "apikey", "key", "mm_token", "bearer"}
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a header or a command line takes as one word; a shorter token is guessed.
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Access:
    """The people and programs that may ask, and the hosts by which.

    Args:
        tokens: name of a person or program -> its token; none: everybody on this machine may ask.
        hosts: names by which the service may be addressed, where it has no token: a page of another site
            that resolves its own name to this machine has another one.
    """

    def __init__(self, tokens: Mapping[str, str], hosts: frozenset[str] = LOOPBACK_HOSTS) -> None:
        self._digests = {name: _digest(token) for name, token in tokens.items()}
        self._hosts = hosts
        # Of this process: its sessions end with it.
        self._secret = secrets.token_bytes(32)

    @property
    def asks_tokens(self) -> bool:
        return bool(self._digests)

    def holder(self, token: str) -> str | None:
        """Return the name behind a token, compared with all in constant time; None for another one."""
        given, found = _digest(token), None
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found

    def session(self, name: str) -> str:
        """Return the cookie of a browser that has shown the token of that name."""
        mark = hmac.new(self._secret, name.encode() + self._digests[name], hashlib.sha256).hexdigest()
        return f"{name}:{mark}"

    def require(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
        """Return who asks; "" where nobody has to tell.

        Raises:
            Problem: ``unauthorized`` or ``forbidden``.
        """
        self._require_host(headers)
        self._require_own_site(method, headers)
        if any(name.lower() in _TOKEN_NAMES for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise Problem(
                "unauthorized", "a token in a URL is never read; send it as `Authorization: Bearer TOKEN`"
            )
        if not self._digests or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        name = self.holder(token.strip()) if scheme.lower() == "bearer" else self._session_holder(headers)
        if name is None:
            raise Problem("unauthorized", "no known token; send `Authorization: Bearer TOKEN`")
        return name

    def _session_holder(self, headers: Mapping[str, str]) -> str | None:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return None
        if cookie is None or (name := cookie.value.partition(":")[0]) not in self._digests:
            return None
        return name if hmac.compare_digest(self.session(name).encode(), cookie.value.encode()) else None

    def _require_host(self, headers: Mapping[str, str]) -> None:
        host = re.sub(r":\d+$", "", headers.get("host", "")).lower()
        if not self._digests and host not in self._hosts:
            raise Problem(
                "forbidden", f"the host {host[:100]!r} is not this service's; address it as 127.0.0.1"
            )

    @staticmethod
    def _require_own_site(method: str, headers: Mapping[str, str]) -> None:
        if method in _SAFE_METHODS:
            return
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem(
                "forbidden", f"another site sends this {method}; send it from the service's own pages"
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_tokens(variable: str | None, file: Path | None) -> dict[str, str]:
    """Return the tokens of a service, by name.

    Args:
        variable: value of ``MM_TOKEN``: one token.
        file: lines ``TOKEN`` or ``NAME:TOKEN``; it takes the place of the variable.

    Raises:
        UserError: for a file that cannot be read, no token in it, or one that is no token; shows none.
    """
    if file is None:
        return {"token": _require_token(variable, "MM_TOKEN")} if variable else {}
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--token-file {file} cannot be read: {type(error).__name__}; give a readable file"
        ) from None
    tokens = dict(
        _token_of_line(f"{file} line {i}", line) for i, line in enumerate(lines, 1) if _has_token(line)
    )
    if not tokens:
        raise UserError(f"--token-file {file} has no token; write one in a line, or NAME:TOKEN")
    return tokens


def _has_token(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _token_of_line(where: str, line: str) -> tuple[str, str]:
    name, colon, token = line.partition(":")
    if not colon or not _NAME.fullmatch(name):
        name, token = "token", line
    return name, _require_token(token, where)


def _require_token(token: str, where: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise UserError(f"{where} has no token: give 16 to 512 printable characters without spaces")
    return token


def check_address(host: str, tokens: Mapping[str, str]) -> None:
    """Check that a service that other machines reach asks for a token.

    Raises:
        UserError: where it does not.
    """
    if not is_loopback(host) and not tokens:
        raise UserError(
            f"--host {host} is reached by other machines, and there is no token; set MM_TOKEN or give "
            "--token-file, or leave the host at 127.0.0.1"
        )


def hosts_of(names: Sequence[str]) -> frozenset[str]:
    """Return the host names by which a service without token may be addressed."""
    return LOOPBACK_HOSTS | {name.lower() for name in names}
