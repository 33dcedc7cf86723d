"""What the orchestrator connects and keeps going, from its start to its stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

import redis

from runner import connection, openapi, security
from runner.broker import Producer
from runner.egress import Egress
from runner.errors import ManifestInvalid, RunnerError, StoreUnavailable
from runner.http import Lifetime
from runner.manifest import Manifest, from_document
from runner.metrics import Metrics
from runner.orchestrator import gate, traces
from runner.orchestrator.arrivals import Arrivals
from runner.orchestrator.catalog import Catalog
from runner.orchestrator.deadlines import Deadlines
from runner.orchestrator.dispatch import Dispatcher, wanted
from runner.orchestrator.figures import Figures
from runner.orchestrator.home import Home
from runner.orchestrator.jobs import Job
from runner.orchestrator.repair import Repair
from runner.orchestrator.retention import Retention
from runner.orchestrator.store import Store
from runner.orchestrator.webhooks import Deliverer
from runner.orchestrator.wire import OrchestratorWire
from runner.registry import Registry
from runner.seal import Seal
from runner.voice import Voice

log = logging.getLogger(__name__)

REFRESH = 2.0
"""Seconds between two looks at the registry when it has told of no change."""

LEAVING = 2.0
"""Seconds that Redis gets to answer when the orchestrator stops."""

STORE_PATIENCE = 300.0
"""Seconds that the database gets to answer when the orchestrator starts. Whoever starts it anew
then, as containers are, has it read passwords that have changed meanwhile."""

PROMPT = 3.0
"""Seconds for which the start waits for a database that has not refused yet, so that callers of a
sound one never meet the 503 of a start."""

STORE_PAUSE = 1.0
"""Seconds between two tries to open the store."""


class Orchestrator:
    """What the routes share; `live` is its life from start to stop."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.metrics = Metrics()
        self.version = metadata.version("nlp-runner")
        self.scopes: dict[tuple[str, str], str] = {}
        self._openapi: tuple[int, dict[str, Any]] = (-1, {})
        self.waits_for: str | None = "The database has not answered yet."
        """Why every door but that of `/livez` is closed still; None once all is connected."""

    @contextlib.asynccontextmanager
    async def live(
        self, lifetime: Lifetime, patience: float = STORE_PATIENCE
    ) -> AsyncIterator[None]:
        """Connect, keep jobs moving, and leave everything in order.

        The server answers nothing before this yields, so it does not wait for a database that
        refuses: the doors say so meanwhile.
        """
        self.lifetime = lifetime
        self.store = Store(self.home.database_url)
        self.gate = gate.Gate(self.store.keys, self.home.stance)
        self._settled = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            opening = asyncio.create_task(self._open(stack, patience))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), PROMPT)
            yield
            await _end([opening])

    async def _open(self, stack: contextlib.AsyncExitStack, patience: float) -> None:
        """Wait for the database, then connect all; what is to be left in order goes on the stack.

        Where that can never be, the server is told to stop.
        """
        try:
            await self._patiently(patience)
            stack.push_async_callback(self.store.close)
            await stack.enter_async_context(self._working())
            self.waits_for = None
        except RunnerError as error:
            self.lifetime.fail(error)
        except Exception:
            log.exception("the orchestrator cannot start")
            self.lifetime.fail(RunnerError("The orchestrator cannot start; see the log."))
        finally:
            self._settled.set()

    async def _patiently(self, patience: float) -> None:
        """Open the store, and wait for a database that is still starting or refuses."""
        deadline, voice, waited = time.monotonic() + patience, Voice(log), False
        while True:
            try:
                await self.store.open()
            except StoreUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                self.waits_for, waited = error.detail, True
                self._settled.set()
                voice.say(f"{error.detail} Trying again.")
                await asyncio.sleep(STORE_PAUSE)
            else:
                break
        if waited:
            log.info("the database answers now")

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Keep jobs moving on a store that is open."""
        home = self.home
        blocking = connection.connect(home.broker_url, "orchestrator-producer", timeout=2)
        self.redis = connection.connect_async(home.broker_url, "orchestrator")
        registry = Registry(self.redis, home.namespace)
        seal = Seal(home.wire_secret)
        self.catalog = Catalog(registry, seal.fingerprint)
        self.registry_channel = registry.channel
        producer = Producer(home.broker_url, home.namespace, blocking, seal.fingerprint)
        self.wire = OrchestratorWire(self.redis, home.namespace, seal, self.metrics.dropped)
        self.dispatcher = Dispatcher(
            self.store, self.wire, producer, self.catalog, on_finished=self._count,
            retention=home.retention, on_changed=self._hear,
        )  # fmt: skip
        self.deliverer = Deliverer(
            self.store.deliveries, Egress(home.outgoing.allowed), home.outgoing.keys,
            agent=f"nlp-runner/{self.version}", count=self.metrics.webhook,
        )  # fmt: skip
        self.figures = Figures(self.metrics, self.catalog, self.store)
        self.traces = traces.Traces(self.store.transitions, traces.exporter(os.environ))
        await self._remember_services()
        self.metrics.collect(self.figures.samples)
        work = (self.dispatcher.run(), Repair(self.dispatcher).run(),
                Deadlines(self.dispatcher).run(), Retention(self.dispatcher).run(),
                self._keep_catalog(), self._listen(), self.figures.measure(),
                self.traces.run(), self.deliverer.run())  # fmt: skip
        running = [asyncio.create_task(task) for task in work]
        for task in running:
            task.add_done_callback(self._ended)
        yield
        await _end(running)
        await self._leave()
        await self.traces.close()
        await self.redis.aclose()
        await asyncio.to_thread(producer.close)
        blocking.close()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of what is alive; composed anew when that changes."""
        if self._openapi[0] != self.catalog.version:
            services = [(entry.manifest, entry.available) for entry in self.catalog.entries()]
            document = openapi.of_platform(services, self.version)
            if self.home.stance == gate.ON:
                document = security.secured(document, self.scopes)
            self._openapi = (self.catalog.version, document)
        return self._openapi[1]

    async def manifest(self, digest: str) -> Manifest | None:
        """Return the manifest that a job was validated against, if it is still known."""
        known = self.catalog.manifest(digest)
        if known is not None:
            return known
        document = await self.store.manifest(digest)
        with contextlib.suppress(ManifestInvalid):
            return from_document(document)
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Stop the server when work that should go on for ever has ended: half alive is worse."""
        if not task.cancelled() and not task.cancelling():
            log.error("a part of the orchestrator ended", exc_info=task.exception())
            self.lifetime.fail(RunnerError("A part of the orchestrator ended; see the log."))

    def _count(self, job: Job) -> None:
        self.deliverer.poke()
        self.figures.finished(job)

    def _hear(self, job: Job) -> None:
        """Take in a change that was committed here, and say it in the log."""
        self.figures.changed(job)
        self.traces.changed(job)
        speak(job)

    async def _leave(self) -> None:
        """Take our name off the readers of results, or Redis would keep one for every start.

        It stays where it holds results that were not committed: others take those over.
        """
        try:
            async with asyncio.timeout(LEAVING):
                await self.wire.dismiss(idle=0, consumer=self.dispatcher.consumer)
        except (redis.RedisError, OSError) as error:
            why = connection.trouble(self.redis, error)
            log.warning("could not leave the readers of results; others will see to it: %s", why)

    async def _remember_services(self) -> None:
        """Take in the manifests of earlier days, so that a service that is down is not unknown."""
        for _, document, seen_at in await self.store.manifests():
            with contextlib.suppress(ManifestInvalid):
                self.catalog.remember(from_document(document), seen_at)

    async def _keep_catalog(self) -> None:
        self._changed, arrivals = asyncio.Event(), Arrivals()
        while wanted():
            self._changed.clear()  # before the look: what is told during it leads to another one
            try:
                fresh = await self.catalog.refresh(time.time())
                arrivals.look(self.catalog)
                self.dispatcher.poke()
                for manifest in fresh:
                    await self._save(manifest)
                await self.catalog.tell()
            except (redis.RedisError, OSError) as error:
                why = connection.trouble(self.redis, error)
                self.dispatcher.voice.say(f"{why} Trying again.")
            except Exception:
                log.exception("the registry holds what we cannot read")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REFRESH)

    async def _save(self, manifest: Manifest) -> None:
        try:
            await self.store.save_manifest(
                manifest.digest, manifest.name, manifest.document, time.time()
            )
        except StoreUnavailable as error:
            log.warning("the manifest of %s could not be kept: %s", manifest.name, error)

    async def _listen(self) -> None:
        """Hear of workers that come and go, and of jobs that other orchestrators saw finish."""
        while wanted():
            try:
                async with self.redis.pubsub() as channel:
                    await channel.subscribe(self.registry_channel, self.wire.keys.done)
                    while wanted():
                        message = await channel.get_message(
                            ignore_subscribe_messages=True, timeout=5.0
                        )
                        if message is None:
                            continue
                        if message["channel"].decode() == self.registry_channel:
                            self._changed.set()
                        else:
                            self.dispatcher.following.wake(
                                message["data"].decode("utf-8", "replace")
                            )
            except (redis.RedisError, OSError):
                await asyncio.sleep(1.0)


def speak(job: Job) -> None:
    """Say in the log what became of a job; what went well only to those who want to know."""
    about = {"about": job.about}
    if job.status == "queued" and job.attempt > 1 and job.error:
        log.info("job %s waits for attempt %d of %d: %.64s", job.id, job.attempt, job.attempts,
                 job.error.get("code"), extra=about)  # fmt: skip
    elif job.finished:
        level = logging.DEBUG if job.status == "succeeded" else logging.INFO
        log.log(level, "job %s %s%s", job.id, job.status,
                f": {job.reason}" if job.reason else "", extra=about)  # fmt: skip


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended; on Python 3.11 `wait_for` may lose one cancellation."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=1.0)
