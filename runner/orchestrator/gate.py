"""The gate: who sends a request, and whether they may."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from runner.errors import Forbidden, Unauthenticated
from runner.orchestrator.keyring import Keyring
from runner.orchestrator.keys import ANYBODY, OPEN, Caller, Key, parse

log = logging.getLogger(__name__)

ON, OFF, LOCAL = "on", "off", "local"
"""How a gate stands: asks for keys, lets everybody in, or whoever sits at this machine."""

MEMORY = 3.0
"""Seconds for which a key is remembered as it was: one that is revoked ends at most so late."""

KNOWN = 10_000
"""Keys that are remembered; who tries more ids than that only forgets others sooner."""

QUIET = 60.0
"""Seconds after which the same refusal is worth another line in the log."""

EVERYWHERE = ("", "0.0.0.0", "::")
"""The addresses that stand for every interface."""

LOUD = (
    "NOBODY IS ASKED FOR A KEY: AUTH is off, and {} may send, read and erase every job. Set "
    "AUTH=on, or keep the port from others."
)

REMEDY = "Send one as `Authorization: Bearer nlp_…` or as `X-API-Key`."


def stance(auth: str, host: str) -> str:
    """Return how the gate of a server on this address stands; `auth` is `auto`, `on` or `off`."""
    if auth in (ON, OFF):
        return auth
    return LOCAL if _is_loopback(host) else ON


def warn(stance: str, host: str) -> None:
    """Say in the log where everybody is let in, and loudly where that is other machines."""
    if stance != OFF or _is_loopback(host):
        return
    # Every interface is what a container must listen on, and nobody in it can know whether its port
    # is published on loopback alone, as Compose does. A warning that is wrong there teaches people
    # to overlook it, so the loud one waits for a request that shows more (`_notice_strangers`).
    if host in EVERYWHERE:
        log.info("AUTH is off: no key is asked for, and whoever reaches this port may do all.")
    else:
        log.warning("%s", LOUD.format(f"whoever reaches {host}"))


def _is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address; what nobody can resolve does not count."""
    try:
        found = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
        return all(ipaddress.ip_address(str(one[4][0])).is_loopback for one in found)
    except (OSError, ValueError):
        return False


@dataclass(slots=True)
class _Refused:
    """When refusals of one kind were last told, and how many have come since."""

    told_at: float
    since: int = 0


class Gate:
    """Lets callers in by their keys; `clock` returns seconds since the epoch."""

    def __init__(
        self, keyring: Keyring, stance: str = ON, clock: Callable[[], float] = time.time
    ) -> None:
        self._keyring, self.stance, self._clock = keyring, stance, clock
        self._known: OrderedDict[str, tuple[float, Key | None]] = OrderedDict()
        self._refused: dict[str, _Refused] = {}  # by ids of keys that exist, which are bounded
        self._warned = False

    async def admit(self, request: Request, scope: str) -> Caller:
        """Return who sends a request that needs this scope.

        Raises `Unauthenticated`, `Forbidden` and `StoreUnavailable`.
        """
        if scope == OPEN:
            return ANYBODY
        if self.stance == OFF:
            self._notice_strangers(request.headers.get("host", ""))
            return ANYBODY
        if self.stance == LOCAL:
            _refuse_strangers(request.headers)
            return ANYBODY
        caller = await self._caller(request)
        if not caller.may(scope):
            raise Forbidden(f"This needs a key with the scope `{scope}`.", scope=scope)
        return caller

    def _notice_strangers(self, host: str) -> None:
        """Warn once where a request shows that others reach us: it does not name this machine.

        A bare name (`orchestrator:8000`) is one of a container's network, and shows nothing.
        """
        if self._warned or _is_ours(host) or not {".", "["} & set(host):
            return
        self._warned = True
        log.warning("%s", LOUD.format(f"a request came for {host[:60]!r}; whoever sent it"))

    async def _caller(self, request: Request) -> Caller:
        text = _sent(request.headers)
        if not text:
            raise Unauthenticated(f"This needs a key. {REMEDY}")
        parts = parse(text)
        if parts is None:
            self._tell(request, "", "what was sent is no key")
            raise Unauthenticated(f"What was sent is no key. {REMEDY}")
        key_id, secret = parts
        key = await self._key(key_id)
        if key is None or not key.matches(secret):
            told = key_id if key else ""
            self._tell(request, told, "its secret is wrong" if key else "nobody has such a key")
            raise Unauthenticated("The key is not one that is known here.")
        state = key.state(self._clock())
        if state != "valid":
            self._tell(request, key_id, f"it is {state}")
            raise Unauthenticated(f"The key {key_id} is {state}.")
        return Caller(key.owner, frozenset(key.scopes))

    async def _key(self, key_id: str) -> Key | None:
        """Return a key as it is, or was a moment ago; ids that nobody has are remembered too."""
        now = self._clock()
        asked_at, key = self._known.get(key_id, (-math.inf, None))
        if 0 <= now - asked_at < MEMORY:
            return key
        key = await self._keyring.get(key_id)
        # With the time of the question: from then on the answer may be outdated.
        self._known[key_id] = now, key
        self._known.move_to_end(key_id)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return key

    def _tell(self, request: Request, key_id: str, why: str) -> None:
        """Log a refusal, once a minute for each key and once for all that are none of ours.

        An id stands in the log only if it is that of a key here, and a secret never does.
        """
        now = self._clock()
        seen = self._refused.get(key_id)
        if seen is not None and 0 <= now - seen.told_at < QUIET:
            seen.since += 1
            return
        more = f" ({seen.since} more since the last line)" if seen and seen.since else ""
        address = request.client.host if request.client else "an unknown address"
        log.warning("refused key %s from %s: %s%s", key_id or "(unknown)", address, why, more)
        self._refused[key_id] = _Refused(now)


def caller_of(request: Request) -> Caller:
    """Return who sends a request that was admitted."""
    caller: Caller = request.state.caller
    return caller


def _sent(headers: Headers) -> str:
    """Return the key that a request brings, or the empty text."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    return headers.get("x-api-key", "").strip()


def _refuse_strangers(headers: Headers) -> None:
    """Refuse what a page of another site has a browser of this machine send; raises `Forbidden`.

    A name that leads here but is not ours (DNS rebinding, or a proxy that makes this machine
    public) is refused as well.
    """
    host = headers.get("host", "")
    if not _is_ours(host):
        raise Forbidden(
            f"Without keys this server answers this machine only, not as {host[:60]!r}. Set "
            "AUTH=on to ask for keys, or AUTH=off to let everybody in."
        )
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    strange = site and headers.get("sec-fetch-mode") != "navigate"
    if strange or (origin is not None and origin.lower().partition("//")[2] != host.lower()):
        raise Forbidden("Without keys this server answers no page of another site.")


def _is_ours(host: str) -> bool:
    """Tell whether a Host header names this machine, which a public name never does."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
