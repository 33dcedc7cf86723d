"""Which living service answers for a type: LinTO's policies ANY, DEFAULT and STRICT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runner import language
from runner.errors import BadRequest, NoWorker
from runner.orchestrator.catalog import Entry


@dataclass(frozen=True, slots=True)
class Policy:
    """How a service is chosen: the rule, the default of each type, and the languages wanted.

    `any` takes the service that is named, or else any; `default` takes the one that is named, or
    else the type's default; `strict` takes the one that is named and no other.
    """

    rule: str = "any"
    defaults: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = (language.ANY,)

    @property
    def language(self) -> str:
        """What is asked of a service: the one language that is wanted, or to detect it."""
        return self.languages[0] if len(self.languages) == 1 else language.ANY


def choose(
    entries: Iterable[Entry], kind: str, asked: str | None, policy: Policy
) -> tuple[Entry, str | None]:
    """Return a living service of this type, and a sentence when it is not the one asked for.

    Raises `BadRequest` where the policy wants a name, and `NoWorker`.
    """
    alive = [e for e in entries if e.manifest.type == kind and e.available and _speaks(e, policy)]
    named = {name: entry for entry in reversed(alive) for name in _names(entry)}
    if asked is not None and asked in named:
        return named[asked], None
    living = ", ".join(sorted(named)) or "none"
    what = f"No living service of type {kind} is called `{(asked or '')[:60]}`"
    match policy.rule:
        case "strict" if asked is None:
            raise BadRequest(f"`serviceName` is needed for {kind}; living are: {living}.")
        case "strict":
            raise NoWorker(f"{what}; living are: {living}.", retry_after=5)
        case "default":
            default = policy.defaults.get(kind)
            if default is None:
                raise BadRequest(f"{kind} has no default service: {kind.upper()}_DEFAULT is empty.")
            if default not in named:
                raise NoWorker(
                    f"The default service of {kind}, `{default}`, is not alive; living are: "
                    f"{living}.", retry_after=5,
                )  # fmt: skip
            return named[default], asked and f"{what}; the default `{default}` answered instead."
    if not alive:
        wanted = (
            f" for {' or '.join(policy.languages)}" if language.ANY not in policy.languages else ""
        )
        raise NoWorker(f"No service of type {kind}{wanted} is alive.", retry_after=5)
    other = alive[0]
    return other, asked and f"{what}; `{other.manifest.name}` answered instead."


def _names(entry: Entry) -> Sequence[str]:
    """Return what a service is called: its name, also in LinTO's spelling, and its aliases."""
    name = entry.manifest.name
    aliases = [m.instance.alias for m in entry.members if m.usable and m.instance.alias]
    return [*aliases, name.replace("-", "_"), name]


def _speaks(entry: Entry, policy: Policy) -> bool:
    offered = entry.manifest.languages
    return not offered or any(language.lookup(tag, offered) for tag in policy.languages)
