"""Connections to Redis that notice a silent server, and a sentence for what is wrong with it."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, name: str, *, timeout: float = 10) -> redis.Redis:
    """Return a blocking client that gives up on a silent server after `timeout` seconds."""
    return redis.Redis.from_url(url, **_options(name, timeout))


def connect_briefly(url: str, name: str, *, timeout: float = 5) -> redis.Redis:
    """Return a blocking client that tries twice only, for those who come again by themselves."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **_options(name, timeout))


def connect_async(url: str, name: str, *, timeout: float = 10) -> redis.asyncio.Redis:
    """Return a client for the event loop; blocking reads must ask for less than `timeout`."""
    return redis.asyncio.Redis.from_url(url, **_options(name, timeout))


def trouble(
    client: redis.Redis | redis.asyncio.Redis, error: BaseException, *, chosen: bool = True
) -> str:
    """Say in a sentence what keeps a client from its Redis, and which setting to look at.

    `error` may wrap what Redis's client raised. `chosen` is False where nobody has said which
    Redis it is.
    """
    options = client.connection_pool.connection_kwargs
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    user = options.get("username") or "default"
    setting = "SERVICES_BROKER" if chosen else "SERVICES_BROKER is not set"
    met: BaseException | None = error
    while met is not None and not isinstance(met, redis.RedisError):
        met = met.__cause__
    match met:
        case redis.AuthenticationError():
            refusal = f"refuses user `{user}` or its password"
            refusal = refusal if options.get("password") else "asks for a password"
            return f"Redis at {where} {refusal} ({setting}, BROKER_PASS)."
        case redis.BusyLoadingError():
            return f"Redis at {where} is still loading its data."
        case redis.ResponseError():
            # Of several commands at once the error quotes one with all that it holds.
            reason = str(met).rpartition("caused error: ")[2].rstrip(".")
            return f"Redis at {where} refuses a command of user `{user}`: {reason}."
    return f"Redis at {where} does not answer ({setting})."


def _options(name: str, timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": name,
        "protocol": 2,
    }
