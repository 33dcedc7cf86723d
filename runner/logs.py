"""Logging set up once: lines for people, or JSON for machines, that say what they are about."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any

QUIET = {
    "celery": logging.WARNING,
    "celery.worker.request": logging.CRITICAL,  # says at length what we say in one line
    "kombu": logging.WARNING,
    "multiprocessing": logging.WARNING,
    "uvicorn": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "peewee": logging.INFO,  # else every statement, with its values
    "summa": logging.WARNING,  # else it says that it misses what nobody here uses
}


ABOUT: ContextVar[Mapping[str, Any]] = ContextVar(
    "what log lines are about", default=MappingProxyType({})
)
"""What a line says beside its message: `job`, `service`, `attempt`, `trace_id`, `request_id`."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters with which a text could rewrite what a terminal shows; line feed and tab may stay."""


def printable(text: str) -> str:
    """Return a text with its control characters written out, so that a terminal obeys none."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextlib.contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Let every line within say these too, on top of what the lines around it say."""
    token = ABOUT.set({**ABOUT.get(), **fields})
    try:
        yield
    finally:
        ABOUT.reset(token)


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what a line is about: what it says itself (`extra={"about": ...}`), or its context."""
    own: Mapping[str, Any] | None = getattr(record, "about", None)
    return ABOUT.get() if own is None else own


def configure(level: str, form: str) -> None:
    """Send log lines to standard error, as `console` text or `json`, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    if form == "json":
        sys.excepthook = _uncaught
        threading.excepthook = lambda ended: _uncaught(*ended[:3])
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Log what would else be printed as many lines that no machine reads."""
    if issubclass(kind, SystemExit):  # a thread may end so
        return
    cause = (kind, error or kind(), trace)
    logging.getLogger("runner").critical("%s was not caught", kind.__name__, exc_info=cause)


def _missing(message: str, fields: Mapping[str, Any]) -> str:
    """Return the job or the request that a line is about, where its words do not name it."""
    for key, word in (("job", "job"), ("request_id", "request")):
        if key in fields:
            space = "\n" if "\n" in message else " "
            return "" if fields[key] in message else f"{space}({word} {fields[key]})"
    return ""


class _Console(logging.Formatter):
    """A line for a person: time, level when it matters, words, and the job that they miss."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        message = record.getMessage()
        text = f"{moment} {level}{message}{_missing(message, fields_of(record))}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return printable(text)


class _Json(logging.Formatter):
    """A line for a machine; line breaks and control characters are escaped by JSON itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)
