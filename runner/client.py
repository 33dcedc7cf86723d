"""Talk to a running orchestrator: its services, its jobs, and one job from start to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from runner.errors import RunnerError, Unavailable

Hear = Callable[[str, dict[str, Any]], None]
"""Hears of (event name, data) while a job runs."""


class Refused(RunnerError):
    """The orchestrator's own problem document, said again here."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        errors = problem.get("errors", ())
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        lines += [f"  {e.get('pointer') or '/'} {e.get('message')}" for e in errors[1:]]
        super().__init__("\n".join(lines))
        self.code = str(problem.get("code", "http_error"))
        self.status = status


class Client:
    """An orchestrator at a URL; every call raises `Unavailable` or `Refused` when it fails."""

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

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
        job = self.post(f"/v1/services/{service}/jobs", inputs)
        try:
            for name, data in self.events(job["id"]):
                hear(name, data)
                if name == "completed":
                    return data
        except KeyboardInterrupt:
            self.post(f"/v1/jobs/{job['id']}/cancel")
            raise
        finished: dict[str, Any] = self.get(f"/v1/jobs/{job['id']}")
        return finished

    def result(self, job_id: str) -> Any:
        """Return the output of a job that succeeded."""
        return self.get(f"/v1/jobs/{job_id}/result")

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (event name, data) of a job until it has completed; takes up a broken stream."""
        last = "0"
        while True:
            headers = {"accept": "text/event-stream", "last-event-id": last}
            try:
                with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as r:
                    if r.status_code != 200:
                        r.read()
                        raise _refused(r)
                    for number, name, data in _parse(r.iter_lines()):
                        last = number or last
                        yield name, data
                        if name == "completed":
                            return
            except httpx.ReadError:
                continue
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None

    def _send(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise _refused(response)
        return response.json() if response.content else None

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"No orchestrator answers at {self.url} ({type(error).__name__}). Start one with "
            f"`nlp-runner up`, or say where it is with --url or ORCHESTRATOR_URL."
        )


def _refused(response: httpx.Response) -> Refused:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    return Refused(problem if isinstance(problem, dict) else {}, response.status_code)


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
