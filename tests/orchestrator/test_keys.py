"""Keys cannot be guessed, forged or read back, and end when they are told to; on both databases."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import NOW, Clock
from starlette.requests import Request

from runner.errors import BadRequest, Forbidden, Unauthenticated
from runner.orchestrator import gate
from runner.orchestrator.database import Database
from runner.orchestrator.gate import LOCAL, MEMORY, OFF, ON, QUIET, Gate, stance
from runner.orchestrator.keyring import COLUMNS, Keyring
from runner.orchestrator.keys import ANYBODY, OPEN, SCOPES, Caller, Key, make, parse
from runner.orchestrator.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Give an open store."""
    store = Store(database_url)
    await store.open()
    yield store
    await store.close()


class Counting(Keyring):
    """A keyring that counts how often it is asked."""

    asked = 0

    async def get(self, key_id: str) -> Key | None:
        """Return the key, and count."""
        self.asked += 1
        return await super().get(key_id)


def request(**headers: str) -> Request:
    """Return a request with these headers; `_` in a name stands for `-`."""
    raw = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    return Request({"type": "http", "headers": raw, "client": ("203.0.113.7", 5000)})


def bearer(token: str) -> Request:
    return request(authorization=f"Bearer {token}")


# --- a key ---------------------------------------------------------------------------------------


def test_a_key_is_chance_and_only_its_hash_is_kept() -> None:
    """A secret has 160 bits, no two keys share any, and neither row nor repr holds it."""
    made = [make("ada", ["read"], NOW) for _ in range(200)]
    parts = [parse(token) for _, token in made]
    assert len({part[1] for part in parts if part}) == 200
    assert len({key.id for key, _ in made}) == 200
    for (key, _), part in zip(made, parts, strict=True):
        assert part is not None
        key_id, secret = part
        assert (key.id, len(bytes.fromhex(secret)) * 8) == (key_id, 160)
        assert key.hash == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in str(dataclasses.asdict(key))
        assert key.hash not in repr(key)
        assert key.matches(secret)
        assert not key.matches(secret[:-1] + ("0" if secret[-1] != "0" else "1"))


@given(st.text(max_size=80))
def test_only_keys_are_read_as_keys(text: str) -> None:
    """Whatever else a caller sends is no key, and no error of ours."""
    assert parse(text) is None
    assert parse(f"nlp_{text}") is None


@pytest.mark.parametrize("owner", ["", " ", "a b", "-a", "x" * 65, "é", "a\n", "../a"])
def test_an_owner_has_a_plain_name(owner: str) -> None:
    """A key without an owner, who would see what was made without keys, cannot be made."""
    with pytest.raises(BadRequest, match="An owner is"):
        make(owner, ["read"], NOW)


def test_scopes_are_those_that_exist() -> None:
    """A key for nothing, or for something unknown, is refused with the scopes that there are."""
    for scopes in ([], ["write"], ["read", "open"]):
        with pytest.raises(BadRequest, match="submit, read, cancel, admin"):
            make("ada", scopes, NOW)
    assert make("ada", ["cancel", "submit", "submit"], NOW)[0].scopes == ("submit", "cancel")


def test_admin_allows_everything_and_others_only_what_they_say() -> None:
    """Scopes do not imply one another, apart from `admin`, which sees all jobs as well."""
    for scope in SCOPES:
        caller = Caller("ada", frozenset({scope}))
        allowed = {one for one in SCOPES if caller.may(one)}
        assert allowed == (set(SCOPES) if scope == "admin" else {scope})
        assert caller.sees("ada")
        assert caller.sees("bob") is caller.sees("") is (scope == "admin")
    assert Caller("ada", frozenset({"read"})).listing(None) == "ada"
    assert Caller("ada", frozenset({"admin"})).listing(None) is None
    assert Caller("ada", frozenset({"admin"})).listing("bob") == "bob"
    with pytest.raises(Forbidden, match="admin"):
        Caller("ada", frozenset({"read"})).listing("bob")


# --- the keyring ---------------------------------------------------------------------------------


def test_the_row_is_the_key() -> None:
    """A key and its row have the same fields, so that none can be forgotten in between."""
    assert tuple(field.name for field in dataclasses.fields(Key)) == COLUMNS


async def test_keys_are_kept_listed_and_revoked(store: Store) -> None:
    """What was put into the ring comes out again; a key is revoked once, for good."""
    key, _ = make("ada", ["read", "submit"], NOW, lifetime=60, note="l'été — 'x'; DROP TABLE")
    other, _ = make("bob", ["admin"], NOW + 1)
    await store.keys.add(other)
    await store.keys.add(key)
    assert await store.keys.get(key.id) == key
    assert await store.keys.all() == [key, other]
    assert [key.state(NOW + age) for age in (0, 59, 60)] == ["valid", "valid", "expired"]
    revoked = await store.keys.revoke(key.id, NOW + 5)
    assert revoked == dataclasses.replace(key, revoked_at=NOW + 5)
    assert await store.keys.revoke(key.id, NOW + 9) == revoked
    assert revoked.state(NOW) == "revoked"
    assert await store.keys.revoke("nothing", NOW) is None
    assert await store.keys.get("nothing") is None


# --- the gate ------------------------------------------------------------------------------------


async def test_a_valid_key_opens_what_it_names(store: Store) -> None:
    """Both ways to send a key work, in any letter case of the scheme, and tell whose it is."""
    key, token = make("ada", ["read"], NOW)
    await store.keys.add(key)
    gate = Gate(store.keys, ON, Clock())
    for sent in (
        bearer(token),
        request(authorization=f"bearer  {token} "),
        request(x_api_key=token),
        request(authorization="Basic YTpi", x_api_key=token),
    ):
        assert await gate.admit(sent, "read") == Caller("ada", frozenset({"read"}))
    with pytest.raises(Forbidden, match="scope `submit`") as caught:
        await gate.admit(bearer(token), "submit")
    assert caught.value.extensions == {"scope": "submit"}
    assert await gate.admit(request(), OPEN) == ANYBODY


async def test_everything_else_is_refused(store: Store) -> None:
    """No key, half a key, another secret, an expired or a revoked key: 401, and no hint of more."""
    key, token = make("ada", ["admin"], NOW)
    old, expired = make("ada", ["admin"], NOW - 100, lifetime=100)
    ended, revoked = make("ada", ["admin"], NOW)
    for one in (key, old, ended):
        await store.keys.add(one)
    await store.keys.revoke(ended.id, NOW)
    _, foreign = make("ada", ["admin"], NOW)
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    gate = Gate(store.keys, ON, Clock())
    said = {}
    for name, sent in {
        "nothing": request(), "empty": bearer(""), "half": bearer(token[:-2]),
        "longer": bearer(token + "0"), "upper": bearer(token.upper()), "é": bearer("é" * 40),
        "basic": request(authorization=f"Basic {token}"), "bare": request(authorization=token),
        "foreign": bearer(foreign), "forged": bearer(forged), "expired": bearer(expired),
        "revoked": bearer(revoked), "two": bearer(f"{token}, {token}"),
    }.items():  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            await gate.admit(sent, "read")
        said[name] = caught.value.detail
    assert said["foreign"] == said["forged"]
    assert "expired" in said["expired"]
    assert "revoked" in said["revoked"]
    assert (await gate.admit(bearer(token), "read")).owner == "ada"


async def test_a_lookup_is_not_a_query_per_request(store: Store) -> None:
    """A key is looked up once in some seconds, also one that does not exist, however often sent."""
    clock = Clock()
    keyring = Counting(store._database)
    key, token = make("ada", ["read"], NOW)
    _, foreign = make("eve", ["read"], NOW)
    await keyring.add(key)
    gate = Gate(keyring, ON, clock)
    for _ in range(50):
        await gate.admit(bearer(token), "read")
        with pytest.raises(Unauthenticated):
            await gate.admit(bearer(foreign), "read")
        with pytest.raises(Unauthenticated):
            await gate.admit(bearer("not a key"), "read")
    assert keyring.asked == 2
    clock.now += MEMORY
    await gate.admit(bearer(token), "read")
    assert keyring.asked == 3


async def test_a_revoked_key_ends_within_five_seconds(store: Store) -> None:
    """A key that was used a moment ago is refused 5 s after it was revoked, also by a clock that
    was set back meanwhile; one that expires is refused at that very time.
    """
    clock = Clock()
    gate = Gate(store.keys, ON, clock)
    key, token = make("ada", ["read"], NOW)
    brief, ending = make("ada", ["read"], NOW, lifetime=1)
    for one in (key, brief):
        await store.keys.add(one)
    await gate.admit(bearer(token), "read")
    await gate.admit(bearer(ending), "read")
    await store.keys.revoke(key.id, NOW)
    clock.now += 1
    with pytest.raises(Unauthenticated, match="expired"):
        await gate.admit(bearer(ending), "read")
    clock.now += 4
    with pytest.raises(Unauthenticated, match="revoked"):
        await gate.admit(bearer(token), "read")
    clock.now = NOW - 3600
    with pytest.raises(Unauthenticated, match="revoked"):
        await gate.admit(bearer(token), "read")


async def test_memory_is_bounded(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Who tries thousands of ids fills neither memory nor log."""
    caplog.set_level(logging.WARNING)

    class Nothing(Keyring):
        async def get(self, key_id: str) -> Key | None:
            return None

    tried = Gate(Nothing(store._database), ON, Clock())
    for number in range(gate.KNOWN + 50):
        with pytest.raises(Unauthenticated):
            await tried.admit(bearer(f"nlp_{number:016x}_{'0' * 40}"), "read")
    assert len(tried._known) == gate.KNOWN
    assert len(tried._refused) == 1
    assert len(caplog.messages) == 1


async def test_refusals_are_logged_once_a_minute_without_secrets(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator reads which key was refused, from where and why, and never what was sent."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    gate = Gate(store.keys, ON, clock)
    key, token = make("ada", ["read"], NOW)
    await store.keys.add(key)
    forged = token[:-4] + ("beef" if token[-4:] != "beef" else "0000")
    canary = "c4n4ry-s3cret"
    for _ in range(20):
        for sent in (forged, canary, f"nlp_{'f' * 16}_{'0' * 40}"):
            with pytest.raises(Unauthenticated) as caught:
                await gate.admit(bearer(sent), "read")
            assert sent not in str(caught.value.to_problem())
    ours = [line for line in caplog.messages if key.id in line]
    others = [line for line in caplog.messages if "(unknown)" in line]
    assert len(ours) == len(others) == 1
    assert "203.0.113.7" in ours[0]
    assert "its secret is wrong" in ours[0]
    clock.now += QUIET
    with pytest.raises(Unauthenticated):
        await gate.admit(bearer(forged), "read")
    assert "(19 more since the last line)" in caplog.messages[-1]
    for secret in (token, forged, forged[-40:], canary, key.hash, "f" * 16):
        assert secret not in caplog.text


async def test_a_database_that_is_down_lets_nobody_in(database_url: str) -> None:
    """Where a key cannot be looked up, nobody passes."""
    closed = Keyring(Database(database_url))
    with pytest.raises(Exception, match="not open"):
        await Gate(closed, ON, Clock()).admit(bearer(make("a", ["read"], NOW)[1]), "read")


# --- where the gate stands -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "host", "expected"),
    [
        ("auto", "127.0.0.1", LOCAL), ("auto", "localhost", LOCAL), ("auto", "::1", LOCAL),
        ("auto", "127.8.8.8", LOCAL), ("auto", "0.0.0.0", ON), ("auto", "::", ON), ("auto", "", ON),
        ("auto", "192.0.2.1", ON), ("auto", "no-such-name.invalid", ON),
        ("on", "127.0.0.1", ON), ("on", "0.0.0.0", ON), ("off", "127.0.0.1", OFF),
        ("off", "0.0.0.0", OFF),
    ],
)  # fmt: skip
def test_keys_are_asked_for_wherever_others_can_reach(auth: str, host: str, expected: str) -> None:
    """`auto` asks for keys on every address but loopback; what nobody can resolve counts too."""
    assert stance(auth, host) == expected


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", []), ("192.0.2.1", ["WARNING NOBODY IS ASKED FOR A KEY"]),
        ("0.0.0.0", ["INFO AUTH is off: no key is asked for"]),
        ("", ["INFO AUTH is off: no key is asked for"]),
    ],
)  # fmt: skip
def test_an_open_door_is_said_at_the_start(
    host: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """`AUTH=off` on an address of other machines is a warning that nobody overlooks; on every
    interface, which may be a container's, it is said plainly.
    """
    caplog.set_level(logging.INFO)
    gate.warn(OFF, host)
    gate.warn(ON, host)
    gate.warn(LOCAL, host)
    lines = [f"{one.levelname} {one.getMessage()}" for one in caplog.records]
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


async def test_an_open_door_is_said_loudly_once_others_come(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The first request for another name or address than this machine's is a warning that nobody
    overlooks, once; those of this machine and of a container's network are none.
    """
    open_gate = Gate(store.keys, OFF, Clock())
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000", "orchestrator:8000", ""):
        assert await open_gate.admit(request(host=host), "read") == ANYBODY
    assert await open_gate.admit(request(host="nlp.example"), OPEN) == ANYBODY
    assert caplog.messages == []
    for host in ("nlp.example", "192.0.2.7:8000", "[2001:db8::1]:8000"):
        assert await open_gate.admit(request(host=host), "read") == ANYBODY
    [line] = caplog.messages
    assert line.startswith("NOBODY IS ASKED FOR A KEY: AUTH is off, and a request came for 'nlp.")


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"host": "LOCALHOST:1"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ({"host": "localhost:8000", "sec_fetch_site": "same-origin"}, True),
        ({"host": "localhost:8000", "sec_fetch_site": "cross-site",
          "sec_fetch_mode": "navigate"}, True),
        ({"host": "rebound.example"}, False),
        ({"host": "127.0.0.1.evil.example:8000"}, False),
        ({"host": "192.168.1.2:8000"}, False),
        ({"host": "nlp.example.org"}, False),
        ({"host": ""}, False),
        ({"host": "[::1"}, False),
        ({}, False),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, False),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:8000", "origin": "null"}, False),
        ({"host": "localhost:8000", "origin": "http://["}, False),
        ({"host": "localhost:8000", "sec_fetch_site": "cross-site",
          "sec_fetch_mode": "no-cors"}, False),
    ],
)  # fmt: skip
async def test_without_keys_no_other_site_comes_in(headers: dict[str, str], let_in: bool) -> None:
    """On loopback without keys, neither a page of another site in this machine's browser (CSRF,
    DNS rebinding) nor a proxy that publishes this machine gets anywhere.
    """
    none: Any = None
    local = Gate(none, LOCAL, Clock())
    if let_in:
        assert await local.admit(request(**headers), "read") == ANYBODY
    else:
        with pytest.raises(Forbidden, match="Without keys"):
            await local.admit(request(**headers), "read")
    assert await local.admit(request(**headers), OPEN) == ANYBODY
    assert await Gate(none, OFF, Clock()).admit(request(**headers), "read") == ANYBODY
