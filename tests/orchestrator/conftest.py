"""What tests of several rooms of the orchestrator need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import invariants
import pytest
from deployment import Deployment


@pytest.fixture
def sql(database_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Give a way around the store: SQL on a connection of one's own; it returns the rows."""
    return partial(invariants.rows, database_url)


@pytest.fixture
async def deployment(
    redis_url: str, namespace: str, database_url: str
) -> AsyncIterator[Deployment]:
    """Give a dispatcher at work, on SQLite and on PostgreSQL."""
    deployment = Deployment(redis_url, namespace, database_url)
    await deployment.open()
    yield deployment
    await deployment.close()
