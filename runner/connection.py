"""Connections to Redis that notice a silent server."""

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


def _options(name: str, timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": name,
        "protocol": 2,
    }
