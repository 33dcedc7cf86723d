"""Connections to SQLite and PostgreSQL, and one way to speak to both."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import peewee
import psycopg2
from playhouse.pool import PooledPostgresqlDatabase, PooledSqliteDatabase
from psycopg2.extensions import parse_dsn
from psycopg2.extras import execute_values

from runner.errors import SettingInvalid

SQLITE_PRAGMAS = (
    ("busy_timeout", 5000),
    ("journal_mode", "wal"),
    ("synchronous", "full"),
    ("foreign_keys", 1),
)
POSTGRESQL_OPTIONS = (
    "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
)
POSTGRESQL_PARAMETERS = {
    "application_name": "nlp-runner",
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class _Sqlite(PooledSqliteDatabase):
    """SQLite that also waits while a neighbour turns a new file to WAL, and would give up."""

    def _set_pragmas(self, conn: Any) -> None:
        deadline = time.monotonic() + 5
        while True:
            try:
                return super()._set_pragmas(conn)
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


class Session:
    """What a unit of work speaks to: SQL with `?` marks, whichever the engine."""

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self.postgresql = isinstance(database, peewee.PostgresqlDatabase)
        self.engine = "postgresql" if self.postgresql else "sqlite"

    def run(self, sql: str, *values: Any) -> int:
        """Execute a statement and return how many rows it touched."""
        return int(self._execute(sql, values).rowcount)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        return list(self._execute(sql, values).fetchall())

    def select(self, query: peewee.Query) -> list[tuple[Any, ...]]:
        """Execute a query that peewee builds and return its rows."""
        sql, values = self._database.get_sql_context().sql(query).query()
        return list(self._database.execute_sql(sql, _storable(values)).fetchall())

    def together(self, *statements: tuple[str, Sequence[Any]]) -> None:
        """Execute statements one after the other, on PostgreSQL in one round trip."""
        if self.postgresql:
            values = [value for _, part in statements for value in part]
            self._execute("; ".join(sql for sql, _ in statements), values)
        else:
            for sql, part in statements:
                self._execute(sql, part)

    def many(self, sql: str, rows: Iterable[Sequence[Any]], template: str | None = None) -> None:
        """Execute a statement once for every row.

        On SQLite `sql` has a `?` for every value; on PostgreSQL it has one `%s` where all the
        rows go, each written as `template` says.
        """
        stored = [_storable(row) for row in rows]
        if not stored:
            return
        # What peewee wraps around its own calls, so that the errors here are of the same kinds.
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            cursor = self._database.cursor()
            if self.postgresql:
                execute_values(cursor, sql, stored, template, page_size=500)
            else:
                cursor.executemany(sql, stored)

    def _execute(self, sql: str, values: Sequence[Any]) -> Any:
        if values and self.postgresql:
            sql = sql.replace("?", "%s")
        return self._database.execute_sql(sql, _storable(values))


def connections(url: str) -> Any:
    """Return a pool of connections to what the URL names; raises `SettingInvalid`."""
    if url.startswith("sqlite:///"):
        path = unquote(url.removeprefix("sqlite:///"))
        if path in ("", ":memory:"):
            raise SettingInvalid(
                "The database URL names no file; expected `sqlite:///jobs.db` or, for an absolute "
                "path, `sqlite:////var/lib/nlp-runner/jobs.db`."
            )
        # The pool hands a connection to one thread at a time, which is all that SQLite asks for.
        return _Sqlite(path, pragmas=SQLITE_PRAGMAS, check_same_thread=False)
    if url.startswith(("postgresql://", "postgres://")):
        try:
            parameters: dict[str, Any] = parse_dsn(url)
        except psycopg2.Error:
            # Its words would repeat the password.
            raise SettingInvalid("The database URL is not one that PostgreSQL reads.") from None
        name = parameters.pop("dbname", None)
        if not name:
            raise SettingInvalid(
                "The database URL names no database; expected `postgresql://user@host/database`."
            )
        options = f"{POSTGRESQL_OPTIONS} {parameters.pop('options', '')}".strip()
        given = {**POSTGRESQL_PARAMETERS, **parameters, "options": options}
        return PooledPostgresqlDatabase(name, **given)
    scheme = url.partition(":")[0][:20]
    raise SettingInvalid(
        f"The database URL starts with `{scheme}:`; expected `sqlite:///…` or `postgresql://…`."
    )


def _storable(values: Sequence[Any]) -> list[Any]:
    """Return the values with every text as both engines can keep it: without NUL, in UTF-8."""
    return [
        _clean(value)
        if isinstance(value, str) and (not value.isascii() or "\0" in value)
        else _storable(value)
        if isinstance(value, list)
        else value
        for value in values
    ]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
