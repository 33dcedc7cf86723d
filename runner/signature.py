"""Signs webhooks as Standard Webhooks says, so that who receives one knows who sent it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"

Keys = tuple[bytes, ...]
"""Secrets that sign now; several while one replaces another."""


def secrets(text: str) -> Keys:
    """Read one `whsec_…` secret or several with spaces between; raises `ValueError`."""
    keys = tuple(map(_key, text.split()))
    if not keys or not all(24 <= len(key) <= 64 for key in keys):
        raise ValueError(
            "must be whsec_ and the base64 of 24 to 64 random bytes; several stand with spaces "
            "between"
        )
    return keys


def headers(message_id: str, body: bytes, at: float, keys: Keys) -> dict[str, str]:
    """Return the headers of a message sent `at` (seconds since the epoch), signed by each key."""
    timestamp = str(int(at))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signatures(message_id, timestamp, body, keys)),
    }


def _signatures(message_id: str, timestamp: str, body: bytes, keys: Sequence[bytes]) -> list[str]:
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(key, signed, hashlib.sha256) for key in keys]
    return [f"v1,{base64.b64encode(digest).decode()}" for digest in digests]


def _key(word: str) -> bytes:
    text = word.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    return key if word.startswith(PREFIX) else b""
