"""Runs out of memory."""


def run(ctx, megabytes):
    """Holds `megabytes` that are really written, or raises at once when that is 0."""
    if not megabytes:
        raise MemoryError
    blocks = [b"x" * (1_000_000 + number % 2) for number in range(megabytes)]
    return {"done": len(blocks)}
