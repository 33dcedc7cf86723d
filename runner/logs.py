"""Logging set up once: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

QUIET = {
    "celery": logging.WARNING,
    "celery.worker.request": logging.CRITICAL,  # says at length what we say in one line
    "kombu": logging.WARNING,
    "uvicorn": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "peewee": logging.INFO,  # else every statement, with its values
}


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters with which a text could rewrite what a terminal shows; line feed and tab may stay."""


def printable(text: str) -> str:
    """Return a text with its control characters written out, so that a terminal obeys none."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def configure(level: str, form: str) -> None:
    """Send log lines to standard error, as `console` text or `json`, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))


class _Console(logging.Formatter):
    """A line for a person: time, level when it matters, words."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{moment} {level}{record.getMessage()}"
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
        }
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)
