"""A service that its operator lets work in some of its languages only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runner.errors import InputInvalid, SettingInvalid
from runner.language import ANY, lookup
from runner.manifest import Manifest


def narrowed(manifest: Manifest, wanted: Sequence[str]) -> Manifest:
    """Return the same service, of the same digest, for those of its languages that are wanted.

    A request that names none gets one of these; examples in others are left out. A service that
    names no languages stays as it is. Raises `SettingInvalid` when none is left.
    """
    if ANY in wanted or not manifest.languages:
        return manifest
    found = [lookup(tag, manifest.languages) for tag in wanted]
    left = tuple(dict.fromkeys(one for one in found if one is not None))
    if not left:
        raise SettingInvalid(
            f"LANGUAGE: {manifest.name} has none of {', '.join(wanted)}; it has "
            f"{', '.join(manifest.languages)}."
        )
    fewer = replace(manifest, languages=left, input=_with_default(manifest.input, left))
    return replace(fewer, examples=tuple(e for e in fewer.examples if _accepts(fewer, e.input)))


def _with_default(schema: dict[str, Any], left: tuple[str, ...]) -> dict[str, Any]:
    """Let a request that names no language have one that is left; one alone needs no detection."""
    language = schema["properties"].get("language")
    if not isinstance(language, dict):
        return schema
    default = language.get("default", ANY)
    if lookup(default, left) and not (default == ANY and len(left) == 1):
        return schema
    properties = {**schema["properties"], "language": {**language, "default": left[0]}}
    return {**schema, "properties": properties}


def _accepts(manifest: Manifest, value: Any) -> bool:
    try:
        manifest.accept(value)
    except InputInvalid:
        return False
    return True
