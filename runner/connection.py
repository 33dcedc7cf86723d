"""Connections to Redis that notice a silent server, and what is wrong in a sentence."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio


def connect(url: str, name: str, *, timeout: float = 10) -> redis.Redis:
    """Return a blocking client that gives up on a silent server after `timeout` seconds."""
    return redis.Redis.from_url(url, **_options(name, timeout))


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
