"""One voice for what lasts: said at once, then ever more rarely."""

from __future__ import annotations

import logging

import pytest

from runner.voice import Voice


def test_what_lasts_is_said_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """The same sentence comes after 1, 2, 4 … and at most every 30 s; another one comes at once;
    and a trouble that had passed begins anew."""
    now, times = 0.0, []
    voice = Voice(logging.getLogger("test"), clock=lambda: now)
    for now in range(0, 200):
        before = len(caplog.messages)
        voice.say("It is down.")
        if len(caplog.messages) > before:
            times.append(now)
    assert times == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    voice.say("It refuses us.")
    assert caplog.messages[-1] == "It refuses us."
    for later in (500, 501, 502):
        now = later
        voice.say("It is down.")
    assert len(caplog.messages) == len(times) + 1 + 2


def test_many_sentences_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Sentences without end take no memory without end."""
    voice = Voice(logging.getLogger("test"), clock=lambda: 0.0)
    for number in range(1000):
        voice.say(f"Trouble {number}.")
    assert len(caplog.messages) == 1000
    assert len(voice._told) < 100


def test_what_has_passed_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its end is told where its trouble was; after that it is told at once again."""
    caplog.set_level("INFO")
    voice = Voice(logging.getLogger("test"), clock=lambda: 0.0)
    voice.over("It is well.")
    voice.say("It is down.")
    voice.over("It is well.")
    voice.over("It is well.")
    voice.say("It is down.")
    assert caplog.messages == ["It is down.", "It is well.", "It is down."]
