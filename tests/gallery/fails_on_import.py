"""Raises while it is imported."""

NUMBER = int("seven")


def run(ctx, text):
    """Is never defined."""
    return {"text": text}
