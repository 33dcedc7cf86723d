"""Keys of the HTTP API: whose they are, what they allow, and how one is told from a forged one."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.errors import BadRequest, Forbidden

SUBMIT, READ, CANCEL, ADMIN = "submit", "read", "cancel", "admin"

SCOPES = (SUBMIT, READ, CANCEL, ADMIN)
"""What a key may allow; `admin` allows everything, on everybody's jobs."""

USUAL = (SUBMIT, READ, CANCEL)
"""What a key allows when nothing is said."""

OPEN = "open"
"""Stands in the place of a scope where nobody is asked for a key."""

FORM = re.compile("nlp_([0-9a-f]{16})_([0-9a-f]{40})")
"""A key as its holder has it: a prefix that scanners find, its id, and 160 bits of chance."""

OWNER = re.compile("[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LONGEST_NOTE = 200


@dataclass(frozen=True, slots=True)
class Key:
    """One key as it is kept; `hash` is the SHA-256 of its secret, times are seconds (UTC)."""

    id: str
    hash: str = field(repr=False)
    owner: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    note: str = ""

    def matches(self, secret: str) -> bool:
        """Tell whether this is its secret, in a time that says nothing about it."""
        return hmac.compare_digest(self.hash, _hash(secret))

    def state(self, now: float) -> str:
        """Return `valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: the owner of what they ask for, and what they may ask for."""

    owner: str
    scopes: frozenset[str]

    @property
    def everywhere(self) -> bool:
        """Whether the jobs of all owners are theirs to see."""
        return ADMIN in self.scopes

    def may(self, scope: str) -> bool:
        """Tell whether they may do what asks for this scope."""
        return scope in self.scopes or self.everywhere

    def sees(self, owner: str) -> bool:
        """Tell whether what belongs to this owner is there for them."""
        return self.everywhere or owner == self.owner

    def listing(self, wanted: str | None) -> str | None:
        """Return whose jobs a list may hold, None for everybody's; raises `Forbidden`."""
        if self.everywhere:
            return wanted
        if wanted not in (None, self.owner):
            raise Forbidden(f"Lists of others' jobs need the scope `{ADMIN}`.", scope=ADMIN)
        return self.owner


ANYBODY = Caller("", frozenset({ADMIN}))
"""Who sends a request where nobody is asked for a key."""


def make(
    owner: str, scopes: Sequence[str], now: float, *, lifetime: float | None = None, note: str = ""
) -> tuple[Key, str]:
    """Return a new key, and what its holder sends, which nobody can find out again.

    `lifetime` is in seconds. Raises `BadRequest`.
    """
    if not OWNER.fullmatch(owner):
        raise BadRequest(
            f"An owner is at most 64 letters, digits, ., _, @ or -, and starts with a letter or a "
            f"digit; found {owner[:80]!r}."
        )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise BadRequest(f"Scopes are {', '.join(SCOPES)}; found {', '.join(unknown) or 'none'}.")
    if len(note) > LONGEST_NOTE:
        raise BadRequest(f"A note has at most {LONGEST_NOTE} characters.")
    key_id, secret = secrets.token_hex(8), secrets.token_hex(20)
    chosen = tuple(scope for scope in SCOPES if scope in scopes)
    expires_at = None if lifetime is None else now + lifetime
    key = Key(key_id, _hash(secret), owner, chosen, now, expires_at, None, note)
    return key, f"nlp_{key_id}_{secret}"


def parse(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of what a caller sent, or None if that is no key."""
    found = FORM.fullmatch(text)
    return (found[1], found[2]) if found else None


def _hash(secret: str) -> str:
    """Return what is kept of a secret; one made of pure chance needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
