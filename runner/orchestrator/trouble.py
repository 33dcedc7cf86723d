"""What a database cannot do now, told from what it was wrongly asked to do, in sentences."""

from __future__ import annotations

import peewee

from runner.errors import StoreUnavailable

RETRY_AFTER = 5
"""Seconds after which a caller may try again."""

IN_DOUBT = " Whether the change was saved is not known."
"""What is added where a change may have been committed although nobody heard of it."""

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
    (
        "28",
        "The database refuses the user or the password (DATABASE_URL; in Compose "
        "POSTGRES_PASSWORD, which PostgreSQL takes in only when its volume is new).",
    ),
    ("3D000", "The database server has no database of that name (DATABASE_URL)."),
    ("", "The database cannot be reached, or it broke the connection (DATABASE_URL)."),
)
"""Beginnings of SQLite's error names and PostgreSQL's SQLSTATEs, each with its sentence, which
names what to change where a setting can be wrong."""

REFUSALS = (
    ("authentication failed", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("no password supplied", "28P01"),
    ("does not exist", "3D000"),
)
"""Words of a refused connection, which has no SQLSTATE in psycopg2, and the one they stand for."""

HOPELESS = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_READONLY", "53100", "55P03", "57014")
"""Troubles that a second try at once would only meet, or wait for, again."""


def is_trouble(error: BaseException) -> bool:
    """Tell whether the database is at fault, and not what it was asked."""
    # A connection that breaks while an answer arrives is a bare DatabaseError of psycopg2.
    return (
        isinstance(error, peewee.OperationalError | peewee.InterfaceError)
        or type(error) is peewee.DatabaseError
    )


def is_hopeless(error: BaseException) -> bool:
    """Tell whether a second try at once would be in vain."""
    return _code(error).startswith(HOPELESS)


def unavailable(error: BaseException, *, committing: bool = False) -> StoreUnavailable:
    """Say what the matter is, without the driver's words, which may name hosts and users.

    `committing` says that it came up in COMMIT, whose outcome nobody knows then.
    """
    code = _code(error)
    sentence = next(sentence for start, sentence in TROUBLES if code.startswith(start))
    if committing:
        sentence += IN_DOUBT
    told = StoreUnavailable(sentence, retry_after=RETRY_AFTER)
    told.__cause__ = error
    return told


def _code(error: BaseException) -> str:
    """Return SQLite's name of the error or PostgreSQL's SQLSTATE; a lost connection has none."""
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "pgcode", None)
    return code or next((code for words, code in REFUSALS if words in str(cause)), "")
