"""Where an orchestrator lives: what its parts need to know of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.orchestrator import gate
from runner.orchestrator.callback import Outgoing
from runner.orchestrator.resolution import Policy
from runner.settings import Settings
from runner.targets import Allowed
from runner.words import kept_seconds


@dataclass(frozen=True, slots=True)
class Home:
    """Where an orchestrator lives, how long a caller may wait (s), whom LinTO's calls reach, and
    who is asked for a key. A finished job is kept for `retention` seconds, or for ever.
    """

    database_url: str
    broker_url: str
    namespace: str
    max_wait: float
    policy: Policy = field(default_factory=Policy)
    wire_secret: str | None = field(default=None, repr=False)
    stance: str = gate.ON
    outgoing: Outgoing = field(default_factory=Outgoing)
    retention: float | None = None

    @classmethod
    def of(cls, settings: Settings, defaults: Mapping[str, str]) -> Home:
        """Return what the settings say; `defaults` names the default service of each type."""
        policy = Policy(settings.resolve_policy, defaults, settings.language)
        stance = gate.stance(settings.auth, settings.host)
        gate.warn(stance, settings.host)
        return cls(
            settings.database_url, settings.broker_url, settings.namespace, settings.max_wait,
            policy, settings.wire_secret, stance,
            retention=kept_seconds(settings.retention),
            outgoing=Outgoing(settings.webhook_secret or (), settings.webhook_allow or Allowed()),
        )  # fmt: skip
