"""One database behind its threads: a writer with group commit, and a few readers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import peewee

from runner.errors import StoreUnavailable
from runner.orchestrator.session import Session, connections
from runner.orchestrator.trouble import IN_DOUBT, RETRY_AFTER, is_hopeless, is_trouble, unavailable

T = TypeVar("T")

READERS = 4
BATCH = 60
"""Most units in one commit; past 64 subtransactions PostgreSQL makes every reader pay."""

ANSWER_WITHIN = 45.0
"""Seconds a unit may take in all: longer than the timeouts that the engines keep themselves."""

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
    """What broke a transaction, at which unit if one can be told, and in COMMIT or before."""

    error: Exception
    unit: _Unit | None
    committing: bool = False

    @property
    def may_pass(self) -> bool:
        return not self.committing and not is_hopeless(self.error)


class Database:
    """Runs units of work on threads of its own and brings their answers to asyncio.

    A unit is a function of a `Session`. It may run twice, so all its effects must lie in the
    database. `commits` counts the transactions written.
    """

    def __init__(self, url: str) -> None:
        self._pool = connections(url)
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
            sentence = f"The database did not answer within {within:g} s."
            if line is self._writes and not unit.future.cancelled():  # its turn had come
                sentence += IN_DOUBT
            raise StoreUnavailable(sentence, retry_after=RETRY_AFTER) from None

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
            if trouble is not None and trouble.may_pass:
                units, trouble = self._transact(units)
            if trouble is None:
                return
            blamed = units if trouble.unit is None else [trouble.unit]
            for unit in blamed:
                unit.fail(unavailable(trouble.error, committing=trouble.committing))
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
            if not is_trouble(failure):
                unit.fail(failure)
            elif is_hopeless(failure):
                unit.fail(unavailable(failure))
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

    def _look(self, unit: _Unit, again: bool = True) -> Any:
        """Run a reading unit, once more on a fresh connection when the first one breaks."""
        try:
            with self._pool.connection_context():
                return unit.work(Session(self._pool))
        except peewee.PeeweeException as error:
            if not is_trouble(error):
                raise
            self._pool.close_idle()
            if not again or is_hopeless(error):
                raise unavailable(error) from error
        return self._look(unit, again=False)


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
            raise error if is_trouble(error) else worse from error
        raise _Undone(error) from error
    session.run("RELEASE SAVEPOINT unit")
    return answer
