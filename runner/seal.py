"""Seals on what travels through Redis, so that whoever can only write there cannot forge work."""

from __future__ import annotations

import hashlib
import hmac


class Seal:
    """An HMAC-SHA256 over parts, with a secret that orchestrators and workers share.

    Without a secret nothing is sealed and every seal holds. Source: RFC 2104.
    """

    def __init__(self, secret: str | None) -> None:
        self._key = secret.encode() if secret else b""

    @property
    def fingerprint(self) -> str:
        """Tell this secret from others without saying it: 16 digits, or none without a secret.

        It is one more seal, cut short: it helps to guess the secret no more than the others do.
        """
        return self.of(b"fingerprint")[:16].decode()

    def of(self, *parts: bytes) -> bytes:
        """Return the seal of these parts in their order, as hexadecimal digits."""
        if not self._key:
            return b""
        whole = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            # With its length, so that no two lists of parts read the same.
            whole.update(len(part).to_bytes(8, "big"))
            whole.update(part)
        return whole.hexdigest().encode()

    def holds(self, given: bytes | None, *parts: bytes) -> bool:
        """Tell whether this is the seal of these parts, in constant time."""
        return not self._key or hmac.compare_digest(self.of(*parts), given or b"")


OPEN = Seal(None)
"""Seals nothing, and holds everything to be sealed."""
