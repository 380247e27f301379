"""Secrets in URLs: users, passwords, signatures and tokens. Strip them, or put references in their place.

A parameter is recognised as a secret by its name, and is left out. Of a web address, a value that may be one
under any other name is replaced by its digest: values of ids and of tokens look alike, and an object's
address stays one of its own. `url_guesses` finds these values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote

from mm_embed_kernels.url_guesses import blind, is_suspect

# A secret that a spec names instead of holding it: `${env:NAME}`, `${file:NAME}`; `${secret:ID}` lies in the
# store's table.
REFERENCE = re.compile(r"\$\{(env|file|secret):([^{}$]*)\}")
# URLs inside a message; a quotation mark or a space ends one. The scheme has a bound, without which a long
# word would be read again from each of its letters.
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:/{2}[^\s\"'<>`]+")
# A scheme may stand behind others (`jdbc:postgresql://`).
_SHAPE = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)+/{2})([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
# A password with `/`, `?` or `#` ends the authority early: what looks like a port is no number.
_BROKEN_USER = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,31}:/{2})([^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@)", re.DOTALL
)
_MATRIX = re.compile(r";([^/;=]+)=([^/;]*)")
# A user and a password behind slashes without a scheme, or with backslashes: a list's row may be any text.
_LOOSE_USER = re.compile(
    r"((?<![A-Za-z0-9+.-]:)//|\\{2}|\\/|/\\)[^\s\\/@:]*:[^\s\\/@]*@",
)
# The same in a message, in front of what may be a host.
_USER_IN_TEXT = re.compile(r"(?<![\w.%+~!$&*-])[\w.%+~!$&*-]+:[^\s/@:\"'<>`]{1,256}@(?=[\w\[])")
# Schemes whose part before the `@` is a container, not a user.
_CONTAINERS = ("abfs://", "abfss://", "wasb://", "wasbs://")
# Addresses of which any parameter may be a secret; in those of buckets, a question mark is part of a name.
_WEB = ("http://", "https://", "ftp://", "ftps://")
# Without one of these a URL has neither user nor parameter.
_MARKS = re.compile(r"[?#@;]")
_ENCODED = re.compile(r"(.+?)%3D(.*)", re.IGNORECASE | re.DOTALL)
_MASKED = re.compile(r"\0(\d+)\0")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = {
    *("apikey", "authkey", "authorization", "bearer", "credential", "credentials", "hdnea", "hdnts", "hmac"),
    *(
        "jsessionid",
        "jwt",
        "oauth",
        "otp",
        "passphrase",
        "passwd",
        "password",
        "phpsessid",
        "pw",
        "pwd",
        "sas",
    ),
    *("secret", "sessionid", "sig", "signature", "tok", "token"),
}
_SECRET_ENDS = (
    *(
        "accesskey",
        "apikey",
        "passcode",
        "passwd",
        "password",
        "secret",
        "sessionid",
        "sharedkey",
        "signature",
    ),
    "token",
)
_SIGNED = ("x-amz-", "x-cos-", "x-goog-", "x-obs-", "x-oss-", "x-tos-")
# Secrets, unless the value is a name or a small number: an object store's `key` is a path.
# Base64 has `/`, too.
_OFTEN_SECRET = {"auth", "code", "key", "pass", "session", "sid", "sign", "ticket"}
_NAME_LIKE = re.compile(r"[^=+A-Z]*/[^=+A-Z]*|.*\.\w{1,5}|\d{0,6}", re.DOTALL)
# Ends of names, with a number behind or without, of which a value is a secret that is no word or number.
_HINTS = ("auth", "credential", "key", "pass", "passwd", "password", "secret", "sig", "signature", "token")
# Parameters that belong to a signature: without it they say nothing, and they differ each time.
_SIGNATURES = {"hdnea", "hdnts", "hm", "hmac", "md5", "oh", "sig", "signature"}
_COMPANIONS = {
    *("awsaccesskeyid", "googleaccessid", "keypairid", "ossaccesskeyid", "policy"),
    *("e", "ex", "exp", "expire", "expires", "hm", "is", "md5", "oe", "oh", "ttl"),
    *(
        "se",
        "si",
        "sip",
        "ske",
        "skoid",
        "sks",
        "skt",
        "sktid",
        "skv",
        "sp",
        "spr",
        "sr",
        "srt",
        "ss",
        "st",
        "sv",
    ),
}


def redact_url(url: str) -> str:
    """Return a URL without its user, query and fragment, for messages: any parameter may be a secret."""
    if _has_broken_user(url):
        url = _BROKEN_USER.sub(r"\1", url)
    bare = re.split(r"[?#]", _MATRIX.sub("", strip_secrets(url)), maxsplit=1)[0]
    return re.sub(r"((?:^|::)[\w+.-]+://)[^/?#]*@", r"\1", bare)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a message with its URLs redacted, and without the given values, as they are or decoded."""
    if "://" in text:
        text = _IN_TEXT.sub(lambda found: _redact_found(found[0]), text)
    if "@" in text:
        text = _USER_IN_TEXT.sub("", _LOOSE_USER.sub(r"\1", text))
    for secret in secrets:
        for form in {secret, unquote(secret)}:
            # A shorter value would be found in words that are none.
            text = text.replace(form, "...") if len(form) > 5 else text
    return text


def strip_secrets(url: str) -> str:
    """Return a URL without user, password, signature and token; one without any unchanged, byte by byte."""
    if not _MARKS.search(url):
        return url
    if "@" in url:
        url = _LOOSE_USER.sub(r"\1", url)
    return _replace(url, lambda _: None, blind) if "://" in url else url


def strip_text(text: str) -> str:
    """Return a text (a label, a column) whose URLs are stripped of secrets; others are unchanged."""
    if "://" in text:
        text = _IN_TEXT.sub(lambda found: strip_secrets(found[0]), text)
    return _LOOSE_USER.sub(r"\1", text) if "@" in text else text


def replace_secrets(url: str, replacement: Callable[[str], str]) -> str:
    """Return a URL with another text in place of each secret; references stay."""
    return _replace(url, replacement)


def find_secrets(url: str) -> list[str]:
    """Return the secrets of a URL, references left out."""
    found: list[str] = []
    _replace(url, lambda secret: found.append(secret) or secret)  # type: ignore[func-returns-value]
    return found


def _redact_found(url: str) -> str:
    """Return a URL of a message, with the punctuation behind it."""
    bare = url.rstrip(").,;:]}")
    return redact_url(bare) + url[len(bare) :]


def _replace(
    url: str, replacement: Callable[[str], str | None], guess: Callable[[str], str | None] | None = None
) -> str:
    """Replace each secret; with None, drop it together with its name, be it a reference or not.

    Args:
        guess: replacement of a value that may be a secret; by default as of one that is.
    """
    references: list[str] = []

    def mask(found: re.Match[str]) -> str:
        references.append(found[0])
        return f"\0{len(references) - 1}\0"

    def unmask(text: str) -> str:
        return _MASKED.sub(lambda found: references[int(found[1])], text)

    def renewal(by: Callable[[str], str | None]) -> Callable[[str], str | None]:
        def renew(secret: str) -> str | None:
            new = by(unmask(secret))
            return new if new is None or _MASKED.sub("", secret) else secret

        return renew

    renewals = renewal(replacement), renewal(guess or replacement)
    text = REFERENCE.sub(mask, url.replace("\0", ""))
    return unmask("::".join(_replace_in_one(each, *renewals) for each in text.split("::")))


def _replace_in_one(
    url: str, renew: Callable[[str], str | None], renew_guess: Callable[[str], str | None]
) -> str:
    shape = _SHAPE.fullmatch(url)
    if shape is None:
        return url
    if _has_broken_user(url) and (broken := _BROKEN_USER.match(url)):
        new = renew(broken[2][:-1])
        rest = _replace_in_one(broken[1] + url[broken.end() :], renew, renew_guess)
        return rest if new is None else f"{broken[1]}{new}@{rest.removeprefix(broken[1])}"
    scheme, authority, path, query, fragment = (part or "" for part in shape.groups())
    user, at, host = authority.rpartition("@")
    if at and not scheme.lower().startswith(_CONTAINERS):
        parts = [renew(part) for part in user.split(":", 1)]
        authority = host if None in parts else f"{':'.join(filter(None, parts))}@{host}"
    if ";" in path:
        path = _replace_matrix(path, renew)
    is_web = scheme.lower() in _WEB
    if query:
        query = _replace_parameters(query, "?", renew, renew_guess if is_web else None)
    if "=" in fragment:
        # No server reads it: all of its values may go.
        fragment = _replace_parameters(fragment, "#", renew, None, all_of_them=True)
    elif is_web and is_suspect("", fragment[1:]):
        fragment = f"#{renew_guess(fragment[1:]) or ''}"
    return scheme + authority + path + query + fragment


def _has_broken_user(url: str) -> bool:
    """Return whether a password's own `/`, `?` or `#` ends the authority before its `@`."""
    if "@" not in url:
        return False
    shape = _SHAPE.fullmatch(url)
    return shape is not None and "@" not in shape[2] and _BROKEN_USER.match(url) is not None


def _replace_matrix(path: str, renew: Callable[[str], str | None]) -> str:
    def renew_one(found: re.Match[str]) -> str:
        if not _is_secret(found[1], found[2]):
            return found[0]
        new = renew(found[2])
        return "" if new is None else f";{found[1]}={new}"

    return _MATRIX.sub(renew_one, path)


def _replace_parameters(
    query: str,
    mark: str,
    renew: Callable[[str], str | None],
    renew_guess: Callable[[str], str | None] | None,
    all_of_them: bool = False,
) -> str:
    """Return a query or fragment with other values.

    Args:
        renew: of a secret.
        renew_guess: of a value that may be one; None to keep it.
        all_of_them: whether all values are secrets.
    """
    kept: list[str] = []
    pieces = [(lead, piece, *_split_parameter(piece)) for lead, piece in _pieces(query[1:])]
    is_signed = any(value and _collapse(name) in _SIGNATURES for _, _, name, value in pieces)
    for lead, piece, name, value in pieces:
        is_companion = is_signed and _collapse(name) in _COMPANIONS
        if value and (all_of_them or is_companion or _is_secret(name, value)):
            new = renew(value)
            if new is not None:
                kept.append(lead + piece.removesuffix(value) + new)
        elif renew_guess and (is_suspect(*((name, value) if value else ("", name))) or _holds_guess(value)):
            suspect = value or name
            kept.append(lead + piece.removesuffix(suspect) + (renew_guess(suspect) or ""))
        else:
            kept.append(lead + piece)
    return mark + "".join(kept)[1:] if kept else ""


def _pieces(query: str) -> Iterator[tuple[str, str]]:
    """Stream the parameters of a query, each behind its separator: `&`, or another `?`, which some append."""
    for piece in query.split("&"):
        first, *more = [piece] if "://" in piece else piece.split("?")
        yield "&", first
        yield from (("?", each) for each in more)


def _split_parameter(piece: str) -> tuple[str, str]:
    """Return name and value; of a URL that is not encoded, the last of its own parameters."""
    if "=" not in piece and (encoded := _ENCODED.fullmatch(piece)):
        return encoded[1], encoded[2]
    name, _, value = piece.rpartition("=") if "://" in piece else piece.partition("=")
    return (name, value) if name else (piece, "")


def _is_secret(name: str, value: str) -> bool:
    kind = _kind(name)
    if (
        kind == "secret"
        or (kind == "hint" and is_suspect("", value))
        or (kind == "often" and not _NAME_LIKE.fullmatch(unquote(value)))
    ):
        return True
    # A URL as a parameter, such as that of a proxy.
    inner = unquote(value) if "%" in value else value
    return "://" in inner and inner != value and strip_secrets(inner) != _replace(inner, _same, blind)


def _holds_guess(value: str) -> bool:
    """Return whether a value is an encoded URL that has what may be secrets."""
    return "%" in value and "://" in (inner := unquote(value)) and strip_secrets(inner) != inner


def _same(secret: str) -> str:
    return secret


@lru_cache(maxsize=4_096)  # the same few names in millions of URLs
def _kind(name: str) -> str:
    """Return how a name marks a secret: ``secret``, ``often``, ``hint`` (for a likely value), "" for none."""
    name = unquote(name)
    words = [word.lower() for word in _WORD.findall(name)]
    collapsed = _collapse(name)
    if not _SECRET_WORDS.isdisjoint(words) or collapsed.endswith(_SECRET_ENDS):
        return "secret"
    if name.lower().startswith(_SIGNED) or collapsed in _SIGNATURES - {"hm", "md5", "oh"}:
        return "secret"
    if words and words[-1] in _OFTEN_SECRET:
        return "often"
    return "hint" if collapsed.rstrip("0123456789").endswith(_HINTS) else ""


@lru_cache(maxsize=4_096)
def _collapse(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unquote(name).lower())
