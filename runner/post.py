"""Where a worker works, and what it says of itself: its settings, as its rooms need them."""

from __future__ import annotations

from dataclasses import dataclass

from runner.language import ANY
from runner.seal import OPEN, Seal
from runner.settings import Settings


@dataclass(frozen=True)
class Post:
    """Where a worker works: its Redis, its namespace, how many jobs at a time, how it stops.

    The rest is what it tells LinTO's clients besides its manifest.
    """

    url: str
    namespace: str
    concurrency: int
    shutdown_grace: float
    alias: str = ""
    info: str = ""
    languages: tuple[str, ...] = ()
    queue_name: str = ""
    seal: Seal = OPEN
    chosen: bool = True
    """Whether somebody has said which Redis it is."""


def post_of(settings: Settings) -> Post:
    """Return where the settings put a worker."""
    return Post(
        settings.broker_url, settings.namespace, settings.concurrency, settings.shutdown_grace,
        alias=settings.service_name or "", info=settings.model_info or "",
        languages=() if ANY in settings.language else settings.language,
        queue_name=settings.queue_name or "", seal=Seal(settings.wire_secret),
        chosen=settings.origin("SERVICES_BROKER") != "built-in",
    )  # fmt: skip
