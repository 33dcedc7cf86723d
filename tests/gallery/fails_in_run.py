"""Raises while it runs."""


def run(ctx, text):
    """Divides by nothing, in the middle of a step."""
    with ctx.step("think"):
        return {"text": text * (1 // 0)}
