"""What a person at a terminal types, and what is shown there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.errors import BadRequest
from runner.events import Event
from runner.logs import printable

# --- what is typed -------------------------------------------------------------------------------


def read_all(texts: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the texts and those of the files; with neither, that of standard input."""
    return [*texts, *map(read_text, paths)] or [read_text(Path("-"))]


def read_text(path: Path) -> str:
    """Return the text of a file; `-` is standard input. Raises `BadRequest`."""
    try:
        if str(path) != "-":
            return path.read_text("utf-8-sig")
        if sys.stdin.isatty():
            say("Reading from the keyboard; end with Ctrl-D.")
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadRequest(f"{path} cannot be read: it is not UTF-8 text.") from None


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Read `KEY=VALUE` texts; raises `BadRequest`."""
    split = [text.partition("=") for text in texts]
    for key, equals, _ in split:
        if not equals or not key:
            raise BadRequest(f"{key!r} is not KEY=VALUE.")
    return {key: value for key, _, value in split}


def inputs(
    schema: Mapping[str, Any], texts: Sequence[str], parameters: Iterable[str]
) -> dict[str, Any]:
    """Put texts where a service's input takes them: `documents`, else its one required string.

    One text that begins with a brace is the whole input as JSON. `parameters` are further
    properties, `KEY=VALUE`, as JSON or as plain text. Raises `BadRequest`.
    """
    further = {key: _value(text) for key, text in pairs(parameters).items()}
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        try:
            return {**_json(texts[0]), **further}
        except ValueError as error:
            raise BadRequest(f"The input begins with a brace but is not JSON: {error}.") from None
    properties = schema.get("properties", {})
    if properties.get("documents", {}).get("type") == "array":
        return {"documents": list(texts), **further}
    strings = [name for name in schema.get("required", ())
               if properties.get(name, {}).get("type") == "string"]  # fmt: skip
    if len(strings) == 1 and len(texts) == 1:
        return {strings[0]: texts[0], **further}
    raise BadRequest(
        "This service does not take plain texts, or not so many; give its input as one JSON "
        f"object with {', '.join(properties)}."
    )


def _value(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    """Read JSON as RFC 8259 has it, without NaN; raises `ValueError`."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


# --- what is shown -------------------------------------------------------------------------------


def say(text: str) -> None:
    """Say something on standard error, whosever words it may hold."""
    sys.stderr.write(printable(text) + "\n")


def say_problem(status: str, problem: Mapping[str, Any]) -> None:
    """Say how a job ended that did not succeed; its detail tells the first of several errors."""
    say(f"{status}: {problem.get('code')}: {problem.get('detail')}")
    for one in problem.get("errors", ())[1:]:
        say(f"  {one['pointer'] or '/'} {one['message']}")


def console() -> Console:
    """Return a console for texts that may hold anything; what is piped on is not cut to fit."""
    wide = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, emoji=False, width=wide)


def show(titles: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Show a table on standard output."""
    table = Table(*titles, box=None)
    for row in rows:
        table.add_row(*(printable(cell or "") for cell in row))
    console().print(table)


def show_services(services: Sequence[Mapping[str, Any]]) -> None:
    """Show services as the orchestrator lists them."""
    titles = ("service", "version", "languages", "status", "slots", "summary")
    rows = [
        (
            one["name"], one["version"], ", ".join(one["languages"]) or "-", one["status"],
            str(one["slots"]), one["summary"] if one["status"] == "available" else one["reason"],
        )
        for one in services
    ]  # fmt: skip
    show(titles, rows) if rows else console().print("No service is known yet.")


def show_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Show jobs as the orchestrator lists them."""
    rows = []
    for job in jobs:
        percent = (job["progress"] or {}).get("percent")
        done = "" if percent is None else f"{percent:.0f} %"
        words = f"{job['status']} ({job['reason']})" if job["reason"] else job["status"]
        rows.append((job["id"], job["service"], words, done, job["created_at"]))
    titles = ("job", "service", "status", "progress", "created")
    show(titles, rows) if rows else console().print("No jobs yet.")


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, in colours where a person watches."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        Console().print_json(text)
    else:
        sys.stdout.write(text + "\n")


class Display:
    """The live progress of one job, on standard error where a person watches."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("queued", total=100)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, name: str, data: Mapping[str, Any]) -> None:
        """Show one event of the job's story."""
        if name == "status" and data.get("status") == "queued" and data.get("position"):
            self._progress.update(self._task, description=f"queued behind {data['position']}")
        if name == "log":
            line = printable(f"{data['level']}: {data['message']}")
            self._progress.console.print(line, soft_wrap=True)
        picture = data.get("progress")
        if picture:
            titles = {step["name"]: step["title"] for step in picture["steps"]}
            title = printable(titles.get(picture["step"], "working"))
            self._progress.update(self._task, description=title, completed=picture["percent"])

    def hear_event(self, event: Event) -> None:
        """Show one event of an execution in this process."""
        self.hear(event.kind, event.to_json())
