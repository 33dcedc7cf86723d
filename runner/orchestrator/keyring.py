"""The keys in the database: made, listed, looked up and revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runner.orchestrator.database import Database
from runner.orchestrator.keys import Key
from runner.orchestrator.session import Session
from runner.orchestrator.tables import ApiKeyRow

COLUMNS = tuple(ApiKeyRow._meta.sorted_field_names)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM api_key"
INSERT = f"INSERT INTO api_key ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


class Keyring:
    """The keys of one database; every method raises `StoreUnavailable` when that cannot do it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key) -> None:
        """Keep a new key."""
        row = [getattr(key, name) for name in COLUMNS]
        row[COLUMNS.index("scopes")] = " ".join(key.scopes)
        await self._database.write(lambda session: session.run(INSERT, *row))

    async def get(self, key_id: str) -> Key | None:
        """Return the key of that id, or None where there is none."""
        found = await self._database.read(
            lambda session: session.rows(f"{SELECT} WHERE id = ?", key_id)
        )
        return _key_of(found[0]) if found else None

    async def all(self) -> list[Key]:
        """Return every key, those too that no longer open anything, the oldest first."""
        rows = await self._database.read(
            lambda session: session.rows(f"{SELECT} ORDER BY created_at, id")
        )
        return [_key_of(row) for row in rows]

    async def revoke(self, key_id: str, now: float) -> Key | None:
        """End a key for good and return it, or None where there is none; again changes nothing."""

        def unit(session: Session) -> None:
            session.run(
                "UPDATE api_key SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", now, key_id
            )

        await self._database.write(unit)
        return await self.get(key_id)


def _key_of(row: Sequence[Any]) -> Key:
    key = Key(**dict(zip(COLUMNS, row, strict=True)))
    return replace(key, scopes=tuple(str(key.scopes).split()))
