"""Returns what its manifest does not promise."""

ANSWERS = {
    "type": {"text": 1},
    "missing": {},
    "unknown": {"text": "a", "secret": "b"},
    "set": {"text": "a", "extra": {1, 2}},
    "number": {"text": "a", "extra": {1: 2}},
    "surrogate": {"text": "a", "extra": "\ud800"},
    "nothing": None,
}


def run(ctx, kind):
    """Returns one of the wrong answers."""
    return ANSWERS[kind]
