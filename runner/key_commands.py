"""The commands that make, list and revoke keys, on the orchestrator's database itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from runner import terminal, words
from runner.command import flags, make_room, settings_of
from runner.errors import NotFound
from runner.orchestrator.keys import ADMIN, SCOPES, USUAL, make, parse
from runner.settings import Settings, masked

if TYPE_CHECKING:
    from runner.orchestrator.keyring import Keyring

T = TypeVar("T")

VISIT = 86_400.0
"""Seconds after which the key of `nlp-runner up` ends, even if nobody could revoke it."""


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that the orchestrator asks for.

    They are kept in its database: DATABASE_URL must be the one that it uses.
    """


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _lifetime(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return words.lifetime(text) if text else None
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@keys.command()
@click.option("--owner", required=True, metavar="NAME", help="Whose jobs it makes and sees.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES),
              help="What it allows; may be said again.  [default: submit read cancel]")  # fmt: skip
@click.option("--expires", callback=_lifetime, metavar="TIME",
              help="When it ends: 12h, 90d, 4w.  [default: never]")  # fmt: skip
@click.option("--note", default="", help="What it is for, as `keys list` will say.")
@flags("DATABASE_URL")
def create(
    owner: str, scopes: tuple[str, ...], expires: float | None, note: str,
    **flags_given: str | None,
) -> None:  # fmt: skip
    """Make a key and print it; it cannot be shown again."""
    settings = settings_of(flags_given)
    key, token = make(owner, scopes or USUAL, time.time(), lifetime=expires, note=note)
    _do(settings.database_url, lambda keyring: keyring.add(key))
    click.echo(token)
    ends = f", until {_day(key.expires_at)}" if key.expires_at else ""
    terminal.say(
        f"Key {key.id} of {owner} for {', '.join(key.scopes)}{ends}; kept in "
        f"{masked(settings.database_url)}. It is shown this once."
    )


@keys.command(name="list")
@flags("DATABASE_URL")
def list_(**flags_given: str | None) -> None:
    """List all keys, without their secrets."""
    found = _do(settings_of(flags_given).database_url, lambda keyring: keyring.all())
    if not found:
        click.echo("No keys yet.")
        return
    now = time.time()
    terminal.show(
        ("key", "owner", "scopes", "state", "created", "expires", "note"),
        [
            (k.id, k.owner, " ".join(k.scopes), k.state(now), _day(k.created_at),
             _day(k.expires_at), k.note)
            for k in found
        ],
    )  # fmt: skip


@keys.command()
@click.argument("key_id")
@flags("DATABASE_URL")
def revoke(key_id: str, **flags_given: str | None) -> None:
    """End the key KEY_ID for good; running orchestrators heed it within 5 seconds."""
    whole = parse(key_id)
    wanted = whole[0] if whole else key_id.removeprefix("nlp_")
    database_url = settings_of(flags_given).database_url
    key = _do(database_url, lambda keyring: keyring.revoke(wanted, time.time()))
    if key is None:
        raise NotFound(f"There is no key {wanted!r}; `nlp-runner keys list` shows them all.")
    click.echo(f"Key {key.id} of {key.owner} is revoked.")


@contextlib.contextmanager
def visiting(settings: Settings) -> Iterator[str | None]:
    """Yield the key with which `nlp-runner up` asks its own orchestrator, None if it needs none.

    Unless API_KEY says one, it is made for this run and revoked at its end.
    """
    from runner import up
    from runner.orchestrator import gate

    if settings.api_key or gate.stance(settings.auth, settings.host) != gate.ON:
        yield settings.api_key
        return
    database_url = up.database_of(settings)
    key, token = make("nlp-runner-up", (ADMIN,), time.time(), lifetime=VISIT, note="one run of up")
    _do(database_url, lambda keyring: keyring.add(key))
    terminal.say(
        "Callers need a key: nlp-runner keys create --owner NAME --database-url "
        f"{masked(database_url)}"
    )
    try:
        yield token
    finally:
        _do(database_url, lambda keyring: keyring.revoke(key.id, time.time()))


def _do(database_url: str, work: Callable[[Keyring], Awaitable[T]]) -> T:
    """Do something with the keys of a database; raises `StoreUnavailable`."""
    from runner.orchestrator.store import Store

    make_room(database_url)

    async def whole() -> T:
        store = Store(database_url)
        await store.open()
        try:
            return await work(store.keys)
        finally:
            await store.close()

    return asyncio.run(whole())
