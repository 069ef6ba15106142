"""Who may ask what: holds every request to the table of routes, by the token it brings and the place it comes from.

Tokens are kept as their sha256 and compared in constant time with every known one; they stand in no log, no metric and
no answer. A file of tokens may hold the hashes themselves, so that reading it gives nobody access.

A request that came through a proxy has the proxy's address, so "from this machine" also means: without the headers that
proxies add. Rate limits count requests of named tokens; in front of anonymous clients stands the queue's bound.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Response

from include.kernel.errors import KeyInvalid
from include.serving.exchange import Problem
from include.serving.routes import ADMIN, get_access
from include.serving.spec import RateLimit
from include.serving.transport.token_bucket import take

if TYPE_CHECKING:
    from starlette.types import Scope

    from include.serving.protocols.dialects import Dialect
    from include.serving.settings import Settings

OWNER = "admin"  # the name of the serving token's holder; no API token may have it
ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?:sha256:(?P<hash>[0-9a-f]{64})|(?P<token>[^\s,:]{16,}))")
TOKEN_HELP = "write name:token, or name:sha256:hash, with at least 16 characters a token"
PROXIED = re.compile(rb"x-forwarded-.+|x-envoy-.+|x-real-ip|forwarded|via")
TokenHashes = tuple[tuple[str, bytes], ...]


class Guard:
    """`choose_dialect` tells in what shape the clients of a path read a refusal."""

    def __init__(self, settings: Settings, limit: RateLimit | None, choose_dialect: Callable[[str], Dialect]) -> None:
        owner = settings.serving_token.get_secret_value() if settings.serving_token else None
        self._clients = read_api_tokens(settings)
        self._owner: TokenHashes = ((OWNER, _hash(owner.encode())),) if owner else ()
        self._admin_from = settings.admin_from
        self._limit = limit
        self._full_at: dict[str, float] = {}
        self._choose_dialect = choose_dialect

    @property
    def asks_clients(self) -> bool:
        return bool(self._clients)

    def check_request(self, scope: Scope) -> Response | None:
        """The answer to a request that may not be made; None, and the caller's name in its state, where it may."""
        path = scope["path"]
        if not self._clients and not path.startswith(ADMIN):
            return None
        access = get_access(path)
        if access == "open":
            return None
        problem, headers = self._check_admin(scope) if access == "admin" else self._check_client(scope)
        return self._render_refusal(path, problem, headers) if problem else None

    def _check_admin(self, scope: Scope) -> tuple[Problem | None, dict[str, str]]:
        if not self._owner:
            return Problem(403, "The admin routes are off; set EVERGREEN_SERVING_TOKEN to use them."), {}
        if self._admin_from == "loopback" and not _is_local(scope):
            return Problem(403, "The admin routes answer this machine alone; ask from there, past the proxy."), {}
        name = self._identify(scope, (*self._owner, *self._clients))
        if name is None:
            return _refuse_unknown()
        return (None, {}) if name == OWNER else (Problem(403, "This token may not use the admin routes."), {})

    def _check_client(self, scope: Scope) -> tuple[Problem | None, dict[str, str]]:
        name = self._identify(scope, (*self._owner, *self._clients))
        if name is None:
            return _refuse_unknown()
        wait = self._wait(name)
        if wait:
            return Problem(429, "This token has asked too often; wait as Retry-After says."), {
                "retry-after": str(math.ceil(wait))
            }
        return None, {}

    def _identify(self, scope: Scope, tokens: TokenHashes) -> str | None:
        """The name of the token's holder. Every known hash is looked at, so that the time taken tells nothing."""
        digest, caller = _hash(_read_bearer(scope["headers"])), None
        for name, hashed in tokens:
            if hmac.compare_digest(digest, hashed):
                caller = name
        if caller:
            scope.setdefault("state", {})["caller"] = caller
        return caller

    def _wait(self, name: str) -> float:
        if self._limit is None or name == OWNER:
            return 0.0
        limit, now = self._limit, time.monotonic()
        self._full_at[name], wait = take(self._full_at.get(name, 0.0), now, limit.per_second, limit.burst)
        return wait

    def _render_refusal(self, path: str, problem: Problem, headers: dict[str, str]) -> Response:
        rendered = self._choose_dialect(path).refuse(problem)
        return Response(rendered.body, problem.status, headers, rendered.content_type)


def read_api_tokens(settings: Settings) -> TokenHashes:
    """Name and sha256 of every API token. Raises `KeyInvalid`, which never repeats a token."""
    text = settings.api_tokens.get_secret_value() if settings.api_tokens else ""
    entries = re.split(r"[\s,]+", f"{text} {_read(settings.api_tokens_file)}".strip())
    tokens = tuple(_parse_entry(number, entry) for number, entry in enumerate(entries, 1) if entry)
    names = [name for name, _ in tokens]
    if OWNER in names or len(set(names)) < len(names):
        raise KeyInvalid(f"Each API token needs a name of its own, other than {OWNER!r}; {TOKEN_HELP}.")
    if not tokens and (settings.api_tokens or settings.api_tokens_file):
        raise KeyInvalid(f"There is no API token where the settings name some; {TOKEN_HELP}.")
    return tokens


def _read(path: Path | None) -> str:
    try:
        return path.read_text() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise KeyInvalid(f"The API tokens in {path} cannot be read; correct EVERGREEN_API_TOKENS_FILE.") from error


def _parse_entry(number: int, entry: str) -> tuple[str, bytes]:
    match = ENTRY.fullmatch(entry)
    if match is None:
        raise KeyInvalid(f"The API token number {number} is not valid; {TOKEN_HELP}.")
    return match["name"], bytes.fromhex(match["hash"]) if match["hash"] else _hash(match["token"].encode())


def _refuse_unknown() -> tuple[Problem, dict[str, str]]:
    return Problem(401, "This needs a known token; send it as Authorization: Bearer."), {"www-authenticate": "Bearer"}


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _read_bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The token of the one Authorization header; nothing where there are two: a proxy may have seen the other."""
    values = [value for name, value in headers if name == b"authorization"]
    scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _is_local(scope: Scope) -> bool:
    host = (scope.get("client") or ("",))[0]
    try:
        near = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return near and not any(PROXIED.fullmatch(name) for name, _ in scope["headers"])
