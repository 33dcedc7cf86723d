"""Returns more than most can carry."""


def run(ctx, bytes):
    """Returns a text of that many bytes."""
    return {"text": "x" * bytes}
