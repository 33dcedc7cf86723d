"""What the text of a setting may say: each function returns its value or raises `ValueError`."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from runner.language import ANY, TAG


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    words = f"must be a whole number, {least} " + ("or more" if most is None else f"to {most}")

    def parse(text: str) -> int:
        value = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
        if value < least or (most is not None and value > most):
            raise ValueError(words)
        return value

    return parse


def seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s?", text):
        raise ValueError("must be seconds, 0 or more")
    return float(text.removesuffix("s"))


def kept(text: str) -> str:
    """Check how long something is kept: `7d`, `12h`, `30m`, `90s`; or `never` to erase it."""
    text = text.lower()
    if text == "0":
        return "never"
    if text != "never" and not re.fullmatch(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?[smhd]", text):
        raise ValueError("must be a time such as 7d, 12h, 30m or 90s, or never")
    return text


def kept_seconds(text: str) -> float | None:
    """Return the seconds that `kept` has found right; None for ever."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return None if text == "never" else float(text[:-1]) * units[text[-1]]


def mode(text: str) -> str:
    if text not in ("http", "worker", "task"):
        raise ValueError("must be http or worker")
    return "worker" if text == "task" else text


def broker(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError("must be a redis:// or rediss:// URL")
    if not re.fullmatch("(/[0-9]{0,4})?", parts.path) or not _sound_port(parts):
        raise ValueError(
            "must be redis://host:port/number; in its password write @ as %40, / as %2F, # as %23"
        )
    return text


def _sound_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def database(text: str) -> str:
    if not text.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise ValueError("must be a sqlite:///… or postgresql://… URL")
    return text


def http(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    return text


def namespace(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_" for c in text):
        raise ValueError("must be letters, digits, - or _")
    return text


def name(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("must be at most 100 letters, digits, ., - or _")
    return text


def key(text: str) -> str:
    if not re.fullmatch("[!-~]{1,200}", text):
        raise ValueError("must be a key, at most 200 characters without a space")
    return text


def lifetime(text: str) -> float:
    found = re.fullmatch("([1-9][0-9]{0,5})([mhdw])", text)
    if not found:
        raise ValueError("must be a number of minutes, hours, days or weeks: 30m, 12h, 90d, 4w")
    return int(found[1]) * {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}[found[2]]


def sentence(text: str) -> str:
    if len(text) > 500:
        raise ValueError("must be at most 500 characters")
    return text


def languages(text: str) -> tuple[str, ...]:
    """Read `fr|en`, `fr en`, `fr_FR` or `*`; gettext's lists (`en_US:en`) are not meant for us."""
    if ":" in text:
        return (ANY,)
    tags = tuple(dict.fromkeys(tag.replace("_", "-") for tag in re.split(r"[\s|,]+", text) if tag))
    if not tags or not all(tag == ANY or TAG.fullmatch(tag) for tag in tags) or len(tags) > 50:
        raise ValueError("must be language tags, such as fr|en, or *")
    return (ANY,) if ANY in tags else tags


def choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return text.lower()

    return parse
