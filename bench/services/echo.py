"""The work that every contestant does: hardly any."""

from __future__ import annotations

from typing import Any

INPUT: dict[str, Any] = {
    "text": ("The quick brown fox jumps over the lazy dog. " * 21)[:930],
    "tags": ["bench", "one", "two", "three"],
    "first": 20,
}
"""A request of 1 KB as JSON."""


def run(ctx: object, text: str, tags: list[str], first: int) -> dict[str, Any]:
    """Say how long the text is and how it begins."""
    return {"beginning": text[:first], "characters": len(text), "tags": len(tags)}
