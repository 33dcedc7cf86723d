"""The one execution: a manifest, a handler and an input become one outcome and its events."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from runner import events, handler, logs
from runner.context import Context, Emit, Stop
from runner.errors import (
    Canceled,
    HandlerFailed,
    HandlerInvalid,
    InputInvalid,
    InputRejected,
    OutOfMemory,
    OutputInvalid,
    Problem,
    RunnerError,
    Stopped,
    TransientFailure,
    summary,
)
from runner.manifest import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: an output, or the error that stands in its place."""

    status: str
    output: Any = None
    error: RunnerError | None = None


class Engine:
    """Runs requests for one service in this process; the handler is set up once, here.

    Raises `HandlerInvalid` or `SettingInvalid` when the handler cannot be used.
    """

    def __init__(self, manifest: Manifest, config: Mapping[str, Any] | None = None) -> None:
        self.manifest = manifest
        self._root = handler.root_of(manifest)
        self._handler = handler.load(manifest, config)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the handler said about itself when it was set up."""
        return self._handler.warnings

    def run(
        self,
        job_id: str,
        inputs: Any,
        *,
        emit: Emit,
        attempt: int = 1,
        stop: Stop | None = None,
        timeout: float | None = None,
        worker: str = "",
        traceparent: str | None = None,
    ) -> Outcome:
        """Execute one request and return how it ended; it never raises.

        `traceparent` (a valid one) places it in a trace; log lines within say what they are about.
        `timeout` (seconds) defaults to the manifest's. `emit` hears `Started`, what the handler
        reports, and exactly one of `Succeeded`, `Failed` or `Canceled`, last.
        """
        ctx = Context(
            job_id=job_id,
            service=self.manifest.name,
            attempt=attempt,
            steps=self.manifest.steps,
            config=self._handler.config,
            emit=emit,
            stop=stop,
            timeout=self.manifest.limits.timeout if timeout is None else timeout,
            traceparent=traceparent,
        )
        with logs.about(**ctx.about):
            return self._run(ctx, inputs, stop, worker)

    def _run(self, ctx: Context, inputs: Any, stop: Stop | None, worker: str) -> Outcome:
        try:
            accepted = self.manifest.accept(inputs)
            ctx.emit(events.Started, worker=worker)
            ctx.check()
            output = self._handler(ctx, accepted)
            self._check_output(output)
        except BaseException as error:
            failure = self._failure(error, stop)
            if isinstance(failure, Canceled):
                progress = ctx.close("canceled")
                ctx.emit(events.Canceled, error=failure.to_problem(), progress=progress)
                return Outcome("canceled", error=failure)
            progress = ctx.close("failed")
            ctx.emit(events.Failed, error=failure.to_problem(), progress=progress)
            return Outcome("failed", error=failure)
        ctx.emit(events.Succeeded, output=output, progress=ctx.close("succeeded"))
        return Outcome("succeeded", output=output)

    def smoke(self) -> None:
        """Run the manifest's first example; raises `HandlerInvalid` when it does not succeed."""
        for example in self.manifest.examples[:1]:
            outcome = self.run("smoke", example.input, emit=_ignore)
            if outcome.error is not None:
                raise HandlerInvalid(
                    f"the example `{example.title}` of {self.manifest.name} failed: "
                    f"{outcome.error.code}: {outcome.error.detail}"
                )

    def close(self) -> None:
        """Let the handler give back what it took."""
        try:
            self._handler.close()
        except Exception:
            log.exception("%s failed to close", self.manifest.handler)

    def _check_output(self, output: Any) -> None:
        problems = self.manifest.output_schema.problems(output)
        if not problems:
            try:
                orjson.dumps(output)
            except orjson.JSONEncodeError as error:  # where its schema says nothing
                problems = [Problem("", "not_json", f"is not plain JSON: {error}")]
        if problems:
            raise OutputInvalid(summary(problems, "the output"), problems=problems)

    def _failure(self, error: BaseException, stop: Stop | None) -> RunnerError:
        """Give whatever ended the handler its one code; nothing of it may end the process."""
        match error:
            case Stopped():
                return error.error
            case InputInvalid() | InputRejected() | TransientFailure() | OutputInvalid():
                return error
            case MemoryError():
                return OutOfMemory("The handler ran out of memory.")
            case SystemExit() if stop is not None and stop.error is not None:
                return stop.error  # a door ended the process's work, not the handler itself
            case KeyboardInterrupt():
                return Canceled("Interrupted from the keyboard.")
            case BaseExceptionGroup():  # of a handler's `asyncio.TaskGroup`; a stop comes first
                return self._failure((error.subgroup(Stopped) or error).exceptions[0], stop)
        log.error("%s raised\n%s", self.manifest.handler, _trace(error))
        return HandlerFailed(_words(error), at=self._author_frame(error))

    def _author_frame(self, error: BaseException) -> str:
        """Return where the error left the author's code as `file:line`, below the root."""
        place = handler.place_of(error, self._root)
        if place is None:
            return "unknown"
        file, line = place
        return f"{file.relative_to(self._root) if file.is_relative_to(self._root) else file}:{line}"


def _words(error: BaseException) -> str:
    """Return the error's type and words, even of one that cannot say itself."""
    try:
        words = str(error)
    except Exception:
        words = "(it has no words)"
    return f"{type(error).__name__}: {words[:500]}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-8)).rstrip()


def _ignore(event: events.Event) -> None:
    return None
