"""Takes the process down with it, as a crash in native code does."""

import os


def run(ctx, attempts):
    """Dies on the first `attempts` attempts; later ones succeed."""
    if ctx.attempt <= attempts:
        os._exit(7)
    return {"done": ctx.attempt}
