"""How documents travel and are kept: JSON, and compressed JSON for what may be large."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import orjson


def pack(value: Any) -> bytes:
    """Return a value as compressed JSON, the one form in which payloads travel and are kept."""
    return zlib.compress(orjson.dumps(value), 1)


def unpack(data: bytes) -> Any:
    """Read a packed value back."""
    return orjson.loads(zlib.decompress(data))


def write(document: Any) -> bytes:
    """Write a document as JSON; half a character in a handler's words becomes a question mark."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def read_object(data: bytes) -> dict[str, Any]:
    """Read a JSON object; anything else is an empty one."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def fingerprint(*values: Any) -> str:
    """Return the SHA-256 (hex) of values as canonical JSON: the same for equal ones, in any order
    of their keys."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
