"""Talk to a running orchestrator: its services, its jobs, and one job from start to end."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx

from runner.errors import JobUnknown, RunnerError, Unavailable

PATIENCE = 30.0
"""Seconds for which a job's story is taken up again while the orchestrator does not answer."""

PAUSE = 0.5
"""Seconds before a story that broke off is taken up again."""

Hear = Callable[[str, dict[str, Any]], None]
"""Hears of (event name, data) while a job runs."""


class Refused(RunnerError):
    """The orchestrator's own problem document, said again here."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        errors = problem.get("errors", ())
        lines = [str(problem.get("detail") or problem.get("title") or f"It answers {status}.")]
        lines += [f"  {e.get('pointer') or '/'} {e.get('message')}" for e in errors[1:]]
        if status == 401:
            lines[0] += " For this command, put it into API_KEY or name its file in API_KEY_FILE."
        super().__init__("\n".join(lines))
        self.code = str(problem.get("code", "http_error"))
        self.status = status


class Client:
    """An orchestrator at a URL; every call raises `Unavailable` or `Refused` when it fails."""

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 30.0, patience: float = PATIENCE
    ) -> None:
        self.url = url.rstrip("/")
        self._patience = patience
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False
        )

    def get(self, path: str, **query: Any) -> Any:
        """Return what a GET answers."""
        params = {key: value for key, value in query.items() if value is not None}
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        """Return what a POST answers."""
        return self._send("POST", path, json=body) if body is not None else self._send("POST", path)

    def run(self, service: str, inputs: dict[str, Any], hear: Hear) -> dict[str, Any]:
        """Run one job to its end and return it as it finished; `hear` follows its story.

        An interrupt from the keyboard cancels the job.
        """
        job = self.post(f"/v1/services/{_part(service)}/jobs", inputs)
        try:
            for name, data in self.events(job["id"]):
                if name != "completed":
                    hear(name, data)
                elif data:
                    return data
            raise JobUnknown(f"The job {job['id']} was erased before it had finished.")
        except KeyboardInterrupt:
            with contextlib.suppress(RunnerError):  # it may just have finished
                self.cancel(job["id"])
            raise

    def service(self, name: str) -> dict[str, Any]:
        """Return what is known of a service, its manifest included."""
        known: dict[str, Any] = self.get(f"/v1/services/{_part(name)}")
        return known

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it stands."""
        job: dict[str, Any] = self.get(f"/v1/jobs/{_part(job_id)}")
        return job

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job to end, and return it as it stands."""
        job: dict[str, Any] = self.post(f"/v1/jobs/{_part(job_id)}/cancel")
        return job

    def result(self, job_id: str) -> Any:
        """Return the output of a job that succeeded."""
        return self.get(f"/v1/jobs/{_part(job_id)}/result")

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (event name, data) of a job until it has completed.

        A stream that breaks off, as when the orchestrator is started anew, is taken up where it
        was; after `patience` seconds in which nobody answers, the failure is raised.
        """
        last, broken = "0", None
        while True:
            headers = {"accept": "text/event-stream", "last-event-id": last}
            path = f"/v1/jobs/{_part(job_id)}/events"
            try:
                with self._http.stream("GET", path, headers=headers) as response:
                    if response.status_code != 200:
                        response.read()
                        raise _refused(response)
                    broken = None
                    for number, name, data in _parse(response.iter_lines()):
                        last = number or last
                        yield name, data
                        if name == "completed":
                            return
            except (httpx.TransportError, RunnerError) as error:
                passing = isinstance(error, httpx.TransportError) or error.status == 503
                broken = broken or time.monotonic()
                if not passing or time.monotonic() - broken > self._patience:
                    raise self._unreachable(error) from None
            threading.Event().wait(PAUSE)

    def _send(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise _refused(response)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise Unavailable(f"What answers at {self.url} is not an orchestrator.") from None

    def _unreachable(self, error: Exception) -> RunnerError:
        if isinstance(error, RunnerError):
            return error
        return Unavailable(
            f"No orchestrator answers at {self.url} ({type(error).__name__}). Start one with "
            f"`nlp-runner up`, or say where it is with --url or ORCHESTRATOR_URL."
        )


def _part(name: str) -> str:
    """Return a name as one part of a path, whatever a person typed."""
    return quote(name, safe="")


def _refused(response: httpx.Response) -> RunnerError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    # An orchestrator has every address that is asked for here; a service alone has not.
    if not isinstance(problem, dict) or problem.get("code", "not_found") == "not_found":
        return Unavailable(
            f"What answers at {response.url} is not an orchestrator (status "
            f"{response.status_code}). Start one with `nlp-runner up`, or say where it is with "
            f"--url or ORCHESTRATOR_URL."
        )
    return Refused(problem, response.status_code)


def _parse(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Read Server-Sent Events: (id, event name, data), with one JSON line of data each."""
    number = name = data = ""
    for line in lines:
        field, _, value = line.partition(": ")
        match field:
            case "id":
                number = value
            case "event":
                name = value
            case "data":
                data = value
            case "" if name:
                yield number, name, json.loads(data)
                number = name = data = ""
