"""Connections to Redis that notice a silent server, and one voice for what is wrong with it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

PACE = 60.0
"""Seconds after which a trouble that lasts is told again."""


def connect(url: str, name: str, *, timeout: float = 10) -> redis.Redis:
    """Return a blocking client that gives up on a silent server after `timeout` seconds."""
    return redis.Redis.from_url(url, **_options(name, timeout))


def connect_briefly(url: str, name: str, *, timeout: float = 5) -> redis.Redis:
    """Return a blocking client that tries twice only, for those who come again by themselves."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **_options(name, timeout))


def connect_async(url: str, name: str, *, timeout: float = 10) -> redis.asyncio.Redis:
    """Return a client for the event loop; blocking reads must ask for less than `timeout`."""
    return redis.asyncio.Redis.from_url(url, **_options(name, timeout))


def trouble(client: redis.Redis | redis.asyncio.Redis, error: BaseException) -> str:
    """Say in a sentence what keeps a client from its Redis, and which setting to look at.

    `error` may wrap what Redis's client raised.
    """
    options = client.connection_pool.connection_kwargs
    where = options.get("path") or f"{options.get('host')}:{options.get('port')}"
    met: BaseException | None = error
    while met is not None and not isinstance(met, redis.RedisError):
        met = met.__cause__
    match met:
        case redis.AuthenticationError():
            user = options.get("username") or "default"
            return f"Redis refuses user `{user}` or its password (SERVICES_BROKER, BROKER_PASS)."
        case redis.BusyLoadingError():
            return f"Redis at {where} is still loading its data."
        case redis.ResponseError():
            return f"Redis at {where} refuses what it is asked: {str(met).rstrip('.')}."
    return f"Redis at {where} does not answer (SERVICES_BROKER)."


def _options(name: str, timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": name,
        "protocol": 2,
    }


class Voice:
    """Says what is wrong with one Redis, whoever meets it: each sentence once a minute at most.

    `chosen` is False where nobody has said which Redis it is.
    """

    def __init__(self, url: str, *, chosen: bool = True) -> None:
        parts = urlsplit(url)
        self._place = f"{parts.hostname}:{parts.port or 6379}"
        self._user, self._password = parts.username or "default", parts.password
        self._setting = "SERVICES_BROKER" if chosen else "SERVICES_BROKER is not set"
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def trouble(self, error: BaseException) -> None:
        """Tell what this failure means, unless that was told just now."""
        sentence, now = self.sentence(error), time.monotonic()
        with self._lock:
            if now - self._told.get(sentence, float("-inf")) < PACE:
                return
            self._told[sentence] = now
        log.warning("%s Trying again.", sentence)

    def well(self) -> None:
        """Tell that it answers again, if it was said to be in trouble."""
        with self._lock:
            told = bool(self._told)
            self._told.clear()
        if told:
            log.info("Redis at %s answers again.", self._place)

    def sentence(self, error: BaseException) -> str:
        """Return what a failure means to whoever runs this."""
        if isinstance(error, redis.AuthenticationError):
            refusal = f"refuses user `{self._user}` or its password"
            refusal = refusal if self._password else "asks for a password"
            return f"Redis at {self._place} {refusal} ({self._setting}, BROKER_PASS)."
        if isinstance(error, redis.ResponseError):
            # Of several commands at once the error quotes one with all that it holds.
            reason = str(error).rpartition("caused error: ")[2].rstrip(".")
            return f"Redis at {self._place} refuses a command of user `{self._user}`: {reason}."
        return f"Redis at {self._place} does not answer ({self._setting})."
