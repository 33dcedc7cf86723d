"""One database, SQLite or PostgreSQL: a writer thread with group commit, and a few readers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import peewee
import psycopg2
from playhouse.pool import PooledPostgresqlDatabase, PooledSqliteDatabase
from psycopg2.extensions import parse_dsn
from psycopg2.extras import execute_values

from runner.errors import SettingInvalid, StoreUnavailable

T = TypeVar("T")

READERS = 4
BATCH = 60
"""Most units in one commit; past 64 subtransactions PostgreSQL makes every reader pay."""

ANSWER_WITHIN = 45.0
"""Seconds a unit may take in all: longer than the timeouts that the engines keep themselves."""

RETRY_AFTER = 5
"""Seconds after which a caller may try again."""

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
TROUBLES = (
    ("SQLITE_FULL", "The disk of the database is full."),
    ("SQLITE_BUSY", "Another process keeps the database file locked."),
    ("SQLITE_READONLY", "The database file may not be written."),
    ("SQLITE_CANTOPEN", "The database file cannot be opened; does its folder exist?"),
    ("SQLITE_IOERR", "The disk of the database fails."),
    ("SQLITE_CORRUPT", "The database file is damaged."),
    ("SQLITE_NOTADB", "The database file is not one of SQLite."),
    ("SQLITE", "SQLite cannot do what it was asked."),
    ("40P01", "The database is too contended: two writers waited for each other."),
    ("53100", "The disk of the database is full."),
    ("53300", "The database has no connection left."),
    ("55P03", "A row of the database stayed locked for longer than a writer waits."),
    ("57014", "The database took longer over a statement than it may."),
    ("57P", "The database is stopping or starting."),
    ("", "The database cannot be reached, or it broke the connection."),
)
"""Beginnings of SQLite's error names and PostgreSQL's SQLSTATEs, each with its sentence."""

HOPELESS = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_READONLY", "53100", "55P03", "57014")
"""Troubles that a second try at once would only meet, or wait for, again."""


class Session:
    """What a unit of work speaks to: SQL with `?` marks, the same words for both engines."""

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


Work = Callable[[Session], T]


@dataclass(slots=True, eq=False)
class _Unit:
    """One piece of work that waits for its turn, and the future that waits for its answer."""

    work: Work[Any]
    future: Future[Any] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


Line = queue.SimpleQueue[_Unit | None]
"""Units that wait; None closes the line."""


class _Trouble(NamedTuple):
    """What the database could not do, at which unit if one can be told, and in COMMIT or before."""

    error: Exception
    unit: _Unit | None
    committing: bool = False


class Database:
    """Runs units of work on threads of its own and brings their answers to asyncio.

    A unit is a function of a `Session`. It may run twice, so all its effects must lie in the
    database. `commits` counts the transactions written.
    """

    def __init__(self, url: str) -> None:
        self._pool = _pool(url)
        self.commits = 0
        self._writes: Line = queue.SimpleQueue()
        self._reads: Line = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; nothing is connected before the first unit."""
        # Daemons: a frozen PostgreSQL must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._write_all, name="store-writer", daemon=True),
            *(
                threading.Thread(target=self._read_all, name=f"store-reader-{n}", daemon=True)
                for n in range(READERS)
            ),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 10.0) -> None:
        """Finish what was asked for, then close all; waits for a thread at most `patience` s."""
        threads, self._threads = self._threads, []
        self._writes.put(None)
        for _ in range(READERS):
            self._reads.put(None)
        for thread in threads:
            thread.join(patience)
        self._pool.close_idle()

    async def write(self, work: Work[T], within: float | None = ANSWER_WITHIN) -> T:
        """Run the unit in a transaction and return its answer once that is committed.

        Units that wait at the same time share a commit; one that raises undoes only itself.
        Raises what the unit raises, or `StoreUnavailable` after `within` seconds at the latest.
        """
        return await self._answer(self._writes, work, within)

    async def read(self, work: Work[T], within: float | None = ANSWER_WITHIN) -> T:
        """Run the unit on one of the readers and return its answer; raises as `write` does."""
        return await self._answer(self._reads, work, within)

    async def _answer(self, line: Line, work: Work[T], within: float | None) -> T:
        if not self._threads:
            raise StoreUnavailable("The store is not open.", retry_after=RETRY_AFTER)
        unit = _Unit(work)
        line.put(unit)
        try:
            # A caller that goes away takes its unit out of the line, if that has not begun.
            return await asyncio.wait_for(asyncio.wrap_future(unit.future), within)
        except TimeoutError:
            raise StoreUnavailable(
                f"The database did not answer within {within:g} s.", retry_after=RETRY_AFTER
            ) from None

    # --- on the writer's thread ------------------------------------------------------------------

    def _write_all(self) -> None:
        """Take all that waits, bring it to an answer, and again, until the line is closed."""
        going = True
        while going:
            waiting = [self._writes.get()]
            with suppress(queue.Empty):
                while len(waiting) < BATCH:
                    waiting.append(self._writes.get_nowait())
            going = None not in waiting
            units = [
                unit for unit in waiting if unit and unit.future.set_running_or_notify_cancel()
            ]
            try:
                self._settle(units)
            except BaseException as error:
                for unit in units:
                    unit.fail(error)

    def _settle(self, units: list[_Unit]) -> None:
        """Answer every unit; one may meet trouble before COMMIT once, but not twice."""
        while units:
            units, trouble = self._transact(units)
            if trouble is not None and not trouble.committing:
                units, trouble = self._transact(units)
            if trouble is None:
                return
            blamed = units if trouble.unit is None else [trouble.unit]
            for unit in blamed:
                unit.fail(_unavailable(trouble))
            units = [unit for unit in units if unit not in blamed]

    def _transact(self, units: list[_Unit]) -> tuple[list[_Unit], _Trouble | None]:
        """Run the units in one transaction; return those still without an answer, and why."""
        answers: list[tuple[_Unit, Any]] = []
        failures: list[tuple[_Unit, Exception]] = []
        current: _Unit | None = None
        committing = committed = False
        try:
            with self._pool.connection_context():
                session = Session(self._pool)
                self._begin()
                try:
                    for current in units:
                        try:
                            answers.append((current, _guarded(session, current, len(units) > 1)))
                        except _Undone as undone:
                            failures.append((current, undone.error))
                    current = None
                    if answers:
                        committing = True
                        self._pool.commit()
                        committed = True
                        self.commits += 1
                finally:
                    if not committed:
                        with suppress(peewee.PeeweeException):
                            self._pool.rollback()
        except peewee.PeeweeException as error:
            if not committed:
                self._pool.close_idle()
                return units, _Trouble(error, current, committing)
        for unit, answer in answers:
            unit.future.set_result(answer)
        trouble: _Trouble | None = None
        for unit, failure in failures:
            if not _is_trouble(failure):
                unit.fail(failure)
            elif _code(failure).startswith(HOPELESS):
                unit.fail(_unavailable(_Trouble(failure, unit)))
            else:
                trouble = _Trouble(failure, unit)
                self._pool.close_idle()
        left = [unit for unit, _ in failures if not unit.future.done()]
        return left, trouble

    def _begin(self) -> None:
        """Open a transaction, on SQLite with the right to write that BUSY could refuse later."""
        if isinstance(self._pool, peewee.SqliteDatabase):
            self._pool.begin("IMMEDIATE")
        else:
            self._pool.begin()

    # --- on a reader's thread --------------------------------------------------------------------

    def _read_all(self) -> None:
        while (unit := self._reads.get()) is not None:
            if unit.future.set_running_or_notify_cancel():
                try:
                    unit.future.set_result(self._look(unit))
                except BaseException as error:
                    unit.fail(error)

    def _look(self, unit: _Unit) -> Any:
        """Run a reading unit, once more on a fresh connection when the first one broke."""
        for again in (True, False):
            try:
                with self._pool.connection_context():
                    return unit.work(Session(self._pool))
            except peewee.PeeweeException as error:
                if not _is_trouble(error):
                    raise
                self._pool.close_idle()
                if not again or _code(error).startswith(HOPELESS):
                    raise _unavailable(_Trouble(error, unit)) from error
        raise AssertionError("unreachable")


class _Undone(Exception):
    """A unit failed, and the transaction stands as it was before it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _guarded(session: Session, unit: _Unit, among_others: bool) -> Any:
    """Run a unit, inside a savepoint where others share the transaction; raises `_Undone`.

    Anything else it raises says that the transaction is lost.
    """
    if not among_others:
        try:
            return unit.work(session)
        except Exception as error:
            raise _Undone(error) from error
    session.run("SAVEPOINT unit")
    try:
        answer = unit.work(session)
    except Exception as error:
        try:
            session.run("ROLLBACK TO SAVEPOINT unit")
        except peewee.PeeweeException as worse:
            raise error if _is_trouble(error) else worse from error
        raise _Undone(error) from error
    session.run("RELEASE SAVEPOINT unit")
    return answer


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


def _is_trouble(error: BaseException) -> bool:
    """Tell what the database cannot do now from what it was wrongly asked to do."""
    # A connection that breaks while an answer arrives is a bare DatabaseError of psycopg2.
    return (
        isinstance(error, peewee.OperationalError | peewee.InterfaceError)
        or type(error) is peewee.DatabaseError
    )


def _code(error: BaseException) -> str:
    """Return SQLite's name of the error or PostgreSQL's SQLSTATE, or nothing for a lost one."""
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlite_errorname", None) or getattr(cause, "pgcode", None) or ""


def _unavailable(trouble: _Trouble) -> StoreUnavailable:
    """Say what the matter is without the words of the driver, which may name hosts and users."""
    code = _code(trouble.error)
    sentence = next(sentence for start, sentence in TROUBLES if code.startswith(start))
    if trouble.committing:
        sentence += " Whether the change was saved is not known."
    error = StoreUnavailable(sentence, retry_after=RETRY_AFTER)
    error.__cause__ = trouble.error
    return error


def _pool(url: str) -> Any:
    """Return a pool of connections to what the URL names; raises `SettingInvalid`."""
    if url.startswith("sqlite:///"):
        path = unquote(url.removeprefix("sqlite:///"))
        if path in ("", ":memory:"):
            raise SettingInvalid(
                "The database URL names no file; expected `sqlite:///jobs.db` or, for an absolute "
                "path, `sqlite:////var/lib/nlp-runner/jobs.db`."
            )
        # The pool hands a connection to one thread at a time, which is all that SQLite asks for.
        return PooledSqliteDatabase(path, pragmas=SQLITE_PRAGMAS, check_same_thread=False)
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
