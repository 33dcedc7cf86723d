"""A handler may be a plain function."""


def run(ctx, text):
    """Returns its text in capitals."""
    return {"text": text.upper()}
